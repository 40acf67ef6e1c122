"""Loss on conversations that no step has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from scalesweep.data.samples import TrainingSet
from scalesweep.models.output_layer import OutputLayer
from scalesweep.train.batches import MicroBatch, StepMaker
from scalesweep.train.tasks import LlavaTask


def task_of(model: Any, *, blind: bool) -> LlavaTask:
    """A published LLaVA, with or without adapters, as the task that it was trained in."""
    task = LlavaTask(model, blind=blind)
    task.unwrapped.lm_head = OutputLayer.of(task.unwrapped.lm_head)
    task.training = model.training  # new modules are in training mode: dropout would stay on
    return task


def held_out_loss(
    task: nn.Module,
    data: TrainingSet,
    numbers: Sequence[int],
    *,
    tokenizer: Any,
    picture_side: int | None,
    micro_batch_size: int = 8,
) -> float:
    """Mean negative log-likelihood of the answers' tokens, as in training; dropout is off.

    task: LanguageTask or LlavaTask
    numbers: samples of data that take part
    """
    maker = StepMaker(
        data,
        seed=0,
        global_batch_size=len(numbers),
        micro_batch_size=micro_batch_size,
        rank=0,
        world_size=1,
        pad_token_id=int(tokenizer.pad_token_id or 0),
        picture_side=picture_side,
    )
    device = next(task.parameters()).device
    step = maker.step(list(numbers))
    was_training = task.training
    task.eval()
    with torch.no_grad():
        total = sum(float(task(*_inputs(batch, device))) for batch in step.micro_batches)
    task.train(was_training)
    return total / step.loss_weight


def _inputs(batch: MicroBatch, device: torch.device) -> tuple[Any, ...]:
    return (
        batch.input_ids.to(device),
        batch.loss_weights.to(device),
        batch.pixels.to(device),
        batch.num_pictures,
        batch.lengths,
    )
