"""transformers.Trainer on the same model and samples, as its users would write it.

Padded rows, the model's own forward with labels and a mask, fused AdamW, no logging and no saving.
Samples come in our order, tokenised beforehand, pictures already in the tower's size.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.training_args import TrainingArguments

from scalesweep.data.images import normalise
from scalesweep.data.order import sample_order
from scalesweep.specs import OptimSpec

IGNORED = -100
"""Label of a token without a loss."""
NUM_SAMPLES = 200_000
"""In the order of training, more than a benchmark sees."""


class InOrder(Dataset[dict[str, Any]]):
    """Samples of a training set in the order in which our loop takes them."""

    def __init__(self, data: Any, *, seed: int) -> None:
        self._data = data
        self.order = list(
            itertools.islice(sample_order(len(data), seed=seed, start=0), NUM_SAMPLES)
        )

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> dict[str, Any]:
        number = self.order[place]
        ids, weights = (torch.from_numpy(array) for array in self._data.sequence(number))
        sample: dict[str, Any] = {
            "input_ids": ids.long(),
            "labels": torch.where(weights > 0, ids.long(), IGNORED),
        }
        if self._data.has_image(number):
            sample["pixels"] = torch.from_numpy(self._data.pixels([number]))
        return sample


def padded(
    samples: Sequence[dict[str, Any]], *, pad_token_id: int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Rows of a micro-batch, padded on the right to the longest."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = [sample["input_ids"] for sample in samples]
    batch = {
        "input_ids": pad(ids, batch_first=True, padding_value=pad_token_id),
        "labels": pad([s["labels"] for s in samples], batch_first=True, padding_value=IGNORED),
        "attention_mask": pad([torch.ones_like(row) for row in ids], batch_first=True),
    }
    shown = [sample["pixels"] for sample in samples if "pixels" in sample]
    if shown:
        batch["pixel_values"] = normalise(torch.cat(shown)).to(dtype)
    return batch


class SequentialTrainer(Trainer):
    """A Trainer that does not shuffle, since the order is ours already, and tells its losses."""

    on_loss: Callable[[Tensor], object] = staticmethod(lambda _: None)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.on_loss(loss.detach())
        return loss

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)


def trainer(
    model: Any,
    data: Any,
    *,
    optim: OptimSpec,
    num_steps: int,
    micro_batch_size: int,
    gradient_accumulation_steps: int,
    pad_token_id: int,
    seed: int,
    scratch: Path,
    callbacks: Sequence[TrainerCallback],
    optimizer: torch.optim.Optimizer | None = None,
    dtype: torch.dtype = torch.float32,
    on_loss: Callable[[Tensor], object] | None = None,
    **arguments: Any,
) -> Trainer:
    """A Trainer with our settings; arguments go to TrainingArguments.

    on_loss: called with each micro-batch's part of its step's mean loss.
    """
    schedule = "constant_with_warmup" if optim.schedule == "constant" else optim.schedule
    made = SequentialTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(scratch),
            per_device_train_batch_size=micro_batch_size,
            gradient_accumulation_steps=gradient_accumulation_steps,
            max_steps=num_steps,
            learning_rate=optim.lr,
            lr_scheduler_type=schedule,
            warmup_steps=optim.warmup_steps or optim.warmup_ratio or 0,
            weight_decay=optim.weight_decay,
            adam_beta1=optim.betas[0],
            adam_beta2=optim.betas[1],
            adam_epsilon=optim.eps,
            max_grad_norm=optim.max_grad_norm,
            optim="adamw_torch_fused",
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            seed=seed,
            **arguments,
        ),
        train_dataset=InOrder(data, seed=seed),
        data_collator=partial(padded, pad_token_id=pad_token_id, dtype=dtype),
        callbacks=list(callbacks),
        optimizers=(optimizer, None),
    )
    if on_loss is not None:
        made.on_loss = on_loss
    for noisy in (PrinterCallback, ProgressCallback):
        made.remove_callback(noisy)
    return made


class Pausing(TrainerCallback):
    """Lets a Trainer do so many steps, then asks how many more; 0 ends it.

    A step begins when the Trainer has its batches, so that a round holds as many look-ups of
    batches as steps.
    """

    def __init__(self, ask: Callable[[], int]) -> None:
        self._ask = ask
        self._left = 0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self._left == 0:
            self._left = self._ask()
            if self._left == 0:
                raise Ended
        self._left -= 1


class Ended(Exception):
    """The last round is over."""


def train_in_rounds(made: Trainer) -> None:
    """Train until a Pausing callback ends it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made.train()
        except Ended:
            return
