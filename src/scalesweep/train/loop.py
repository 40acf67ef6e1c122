"""The training loop: the same for all stages, sizes and tuning methods."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from scalesweep.errors import Interrupted, StageError
from scalesweep.models.flops import Work
from scalesweep.specs import OptimSpec
from scalesweep.tracking import metric_names as names
from scalesweep.train.batches import MicroBatch, Step
from scalesweep.train.checkpoint import TrainState
from scalesweep.train.optimizer import learning_rate

if TYPE_CHECKING:
    from scalesweep.train.deepspeed import Engine


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop asks of its surroundings."""

    inputs: Callable[[MicroBatch], tuple[Any, ...]]
    """A micro-batch as the task takes it."""
    log: Callable[[Mapping[str, Any]], None]
    save: Callable[[TrainState], None]
    """Write a checkpoint, or begin to."""
    save_due: Callable[[TrainState], bool]
    """Asked after every step; what rank zero says holds for all ranks."""
    finish: Callable[[], None]
    """Wait until everything that was saved is durable."""
    stop_requested: Callable[[], bool]
    peak_memory_bytes: Callable[[], int]
    utilisation: Callable[[Work, float], Mapping[str, float]]
    """Metrics of the devices' use: of a step's work, done in so many seconds."""
    count: Callable[[Step], None] = lambda _: None
    """Add a step that is done to what the attempt worked through."""


def train(
    engine: Engine,
    steps: Iterator[Step],
    state: TrainState,
    *,
    optim: OptimSpec,
    num_steps: int,
    world_size: int,
    hooks: Hooks,
) -> float:
    """Train from state to num_steps; returns the last step's loss (nan when there was none).

    Raises:
        Interrupted: a stop was asked for; a checkpoint of the last whole step is written.
        StageError: the loss is not a finite number.
    """
    loss = math.nan
    begin = time.perf_counter()
    for step in steps if state.step < num_steps else ():
        fetched = time.perf_counter()
        lr = learning_rate(optim, step=state.step, num_steps=num_steps)
        losses = []
        for i, micro_batch in enumerate(step.micro_batches):
            micro_loss = engine.loss_sum(*hooks.inputs(micro_batch))
            # Gradients are averaged over ranks, so the sum over ranks is world_size times it.
            scale = world_size / step.loss_weight if step.loss_weight else 0.0
            engine.backward(micro_loss * scale, last=i == len(step.micro_batches) - 1)
            losses.append(micro_loss.detach())
        grad_norm = engine.step(lr)
        loss_sum = sum(float(loss) for loss in losses)  # here, where the device has ended anyway
        state = TrainState(
            step=state.step + 1,
            samples_seen=state.samples_seen + step.num_samples,
            tokens_seen=state.tokens_seen + step.num_tokens,
        )
        loss, stop, save = _agreed(
            loss_sum,
            stop=hooks.stop_requested(),
            save=hooks.save_due(state),
            world_size=world_size,
        )
        loss = loss / step.loss_weight if step.loss_weight else 0.0
        if not math.isfinite(loss):
            raise StageError(
                f"step {state.step}: the loss is {loss}; lower the learning rate "
                f"(it was {lr:g}), or look at the samples of this step"
            )
        hooks.count(step)
        end = time.perf_counter()
        hooks.log(_row(state, step, loss, lr, grad_norm, begin, fetched, end, num_steps, hooks))
        begin = end
        if state.step >= num_steps:
            break
        if save or stop:
            hooks.save(state)
            begin = time.perf_counter()  # what it cost is told by itself
        if stop:
            hooks.finish()
            raise Interrupted(f"stopped after step {state.step} of {num_steps}")
    hooks.finish()
    return loss


def _agreed(
    loss_sum: float, *, stop: bool, save: bool, world_size: int
) -> tuple[float, bool, bool]:
    """The step's loss over all ranks, whether any was asked to stop, and whether any is to save.

    One reduction a step: a signal reaches ranks at different times, and their clocks differ, but
    all must stop and save at one step.
    """
    if world_size == 1:
        return loss_sum, stop, save
    device = "cuda" if torch.cuda.is_available() else "cpu"
    all_three = torch.tensor(
        [loss_sum, float(stop), float(save)], dtype=torch.float64, device=device
    )
    dist.all_reduce(all_three)
    loss, stops, saves = all_three.tolist()
    return loss, stops > 0, saves > 0


def _row(
    state: TrainState,
    step: Step,
    loss: float,
    lr: float,
    grad_norm: float,
    begin: float,
    fetched: float,
    end: float,
    num_steps: int,
    hooks: Hooks,
) -> dict[str, Any]:
    seconds = end - begin
    row = {
        names.PROGRESS_DONE: state.step,
        names.PROGRESS_TOTAL: num_steps,
        names.PROGRESS_UNIT: "step",
        names.STEP: state.step,
        names.LOSS: loss,
        names.LEARNING_RATE: lr,
        names.TOKENS_PER_SECOND: round(step.num_tokens / seconds, 1),
        names.SAMPLES_PER_SECOND: round(step.num_samples / seconds, 2),
        names.TOKENS: step.num_tokens,
        names.TOKENS_SEEN: state.tokens_seen,
        names.SAMPLES_SEEN: state.samples_seen,
        names.PADDING_FRACTION: round(1 - step.num_tokens / step.num_computed_tokens, 4),
        names.STEP_SECONDS: round(seconds, 4),
        names.DATA_WAIT_SECONDS: round(fetched - begin, 4),
        names.PEAK_MEMORY_GIB: round(hooks.peak_memory_bytes() / 2**30, 3),
        **hooks.utilisation(step.work, seconds),
    }
    if math.isfinite(grad_norm):
        row[names.GRAD_NORM] = grad_norm
    return row
