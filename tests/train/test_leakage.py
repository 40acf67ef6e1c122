"""The probe passes sound models and refuses those whose packed samples see one another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.errors import StageError
from scalesweep.models import attention
from scalesweep.models.attention import Kernel, PackedSequences
from scalesweep.models.recompute import Recompute
from scalesweep.specs import Method
from scalesweep.train.leakage import refuse_leakage
from scalesweep.train.trainable import Trainable, build_trainable
from tests.train.leaking import whole_row
from tests.train.small_stages import PATHS, training_spec


def trainable(method: Method, **built: Any) -> Trainable:
    return build_trainable(
        training_spec(method),
        paths=PATHS,
        inputs={},
        tokenizer=miniature_tokenizer(),
        image_token_id=4,
        **built,
    )


def probe(made: Trainable) -> None:
    side = None if made.spec.tower is None else 32
    refuse_leakage(made.task, vocab_size=132, picture_side=side)


@pytest.mark.parametrize("method", [Method.full, Method.lora, Method.qlora, Method.language])
def test_a_sound_model_passes_and_is_left_as_it_was(method: Method) -> None:
    made = trainable(method, recompute=Recompute.full)
    made.task.train()
    random = torch.get_rng_state()

    probe(made)

    assert made.task.training
    assert all(p.grad is None for p in made.task.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_a_kernel_that_mixes_samples_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention._KERNELS, Kernel.sdpa, whole_row)

    with pytest.raises(StageError, match=r"not kept apart: changing one moves the other's"):
        probe(trainable(Method.full))


def test_positions_that_run_on_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def running_on(self: PackedSequences) -> Tensor:
        return torch.arange(sum(self.lengths)).unsqueeze(0) ** 2

    monkeypatch.setattr(PackedSequences, "position_ids", running_on)

    with pytest.raises(StageError, match=r"packing moves them by"):
        probe(trainable(Method.language))


def test_the_way_of_transformers_leaks_and_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cache the stock mask forgets where samples begin; checkpointing would hide it."""
    made = trainable(Method.language, recompute=Recompute.full)
    model = made.model.model
    model.set_attn_implementation("sdpa")
    plain = model.forward

    def with_cache(*args: Any, packed: Any = None, use_cache: Any = None, **kwargs: Any) -> Any:
        del packed, use_cache
        return plain(*args, use_cache=True, **kwargs)

    monkeypatch.setattr(model, "forward", with_cache)

    with pytest.raises(StageError, match="not kept apart"):
        probe(made)
