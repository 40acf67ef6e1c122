"""The loop around the engine: sums, stops, saves and refusals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from scalesweep.errors import Interrupted, StageError
from scalesweep.models.flops import Work
from scalesweep.tracking import metric_names as names
from scalesweep.train.batches import MicroBatch, Step
from scalesweep.train.checkpoint import TrainState
from scalesweep.train.loop import Hooks, train
from tests.train.small_stages import optim_spec


@dataclass
class FakeEngine:
    """Says the losses it was given; remembers what it was asked."""

    losses: list[float]
    scaled: list[float] = field(default_factory=list)
    boundaries: list[bool] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def loss_sum(self) -> Tensor:
        return torch.tensor(self.losses.pop(0))

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self.scaled.append(float(loss))
        self.boundaries.append(last)

    def step(self, lr: float) -> float:
        self.rates.append(lr)
        return 1.5


@dataclass
class Surroundings:
    """Everything the loop tells."""

    stop_after: int = 10**9
    save_every: int = 10**9
    rows: list[dict[str, Any]] = field(default_factory=list)
    saved: list[TrainState] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    """Checkpoints at each time it was waited until they are durable."""
    _asked: int = 0

    def hooks(self) -> Hooks:
        return Hooks(
            inputs=lambda _: (),
            log=lambda row: self.rows.append(dict(row)),
            save=self.saved.append,
            save_due=lambda state: state.step % self.save_every == 0,
            finish=lambda: self.finished.append(len(self.saved)),
            stop_requested=self._stop,
            peak_memory_bytes=lambda: 2**30,
            utilisation=lambda work, seconds: {
                names.MODEL_TFLOPS_PER_SECOND: work.num_tokens,
                names.MFU: seconds,
            },
        )

    def _stop(self) -> bool:
        self._asked += 1
        return self._asked >= self.stop_after


def steps(*, num_micro_batches: int = 1, loss_weight: float = 4.0) -> Iterator[Step]:
    nothing = torch.zeros(0)
    batch = MicroBatch(
        input_ids=nothing,
        lengths=None,
        loss_weights=nothing,
        pixels=nothing,
        num_pictures=0,
        texts=[],
        num_tokens=10,
    )
    while True:
        yield Step(
            micro_batches=[batch] * num_micro_batches,
            loss_weight=loss_weight,
            num_tokens=10 * num_micro_batches,
            num_computed_tokens=16 * num_micro_batches,
            num_samples=8,
            work=Work.of([10] * num_micro_batches, num_supervised=4, num_pictures=0),
        )


def run(
    engine: FakeEngine,
    around: Surroundings,
    *,
    num_steps: int,
    state: TrainState | None = None,
    made: Iterator[Step] | None = None,
) -> float:
    return train(
        engine,  # type: ignore[arg-type]
        made or steps(),
        state or TrainState(),
        optim=optim_spec(lr=1.0, schedule="constant", warmup_steps=0),
        num_steps=num_steps,
        world_size=1,
        hooks=around.hooks(),
    )


def test_the_loss_is_the_sum_over_micro_batches_by_the_weight_of_the_step() -> None:
    engine, around = FakeEngine([2.0, 6.0, 1.0, 3.0]), Surroundings()

    last = run(engine, around, num_steps=2, made=steps(num_micro_batches=2))

    assert [row["loss"] for row in around.rows] == [2.0, 1.0]  # (2 + 6) / 4, (1 + 3) / 4
    assert last == 1.0
    assert engine.scaled == [0.5, 1.5, 0.25, 0.75]
    assert engine.boundaries == [False, True, False, True]


def test_a_row_tells_where_the_run_stands() -> None:
    around = Surroundings()

    run(FakeEngine([4.0] * 3), around, num_steps=3)

    row = around.rows[-1]
    assert (row["step"], row["progress/done"], row["progress/total"]) == (3, 3, 3)
    assert (row["tokens_seen"], row["samples_seen"], row["tokens"]) == (30, 24, 10)
    assert (row["learning_rate"], row["grad_norm"], row["peak_memory_gib"]) == (1.0, 1.5, 1.0)
    assert row["model_tflops_per_second"] == 10  # as the surroundings count it
    assert row["mfu"] == pytest.approx(row["step_s"], abs=1e-4)


def test_checkpoints_are_written_when_due_but_not_after_the_last_step() -> None:
    around = Surroundings(save_every=2)

    run(FakeEngine([4.0] * 6), around, num_steps=6)

    assert [state.step for state in around.saved] == [2, 4]
    assert around.finished == [2]


def test_a_stop_writes_a_checkpoint_and_is_raised() -> None:
    around = Surroundings(stop_after=3)

    with pytest.raises(Interrupted, match="stopped after step 3 of 6"):
        run(FakeEngine([4.0] * 6), around, num_steps=6)

    assert [state.step for state in around.saved] == [3]
    assert around.finished == [1]
    assert len(around.rows) == 3


def test_a_stop_in_the_last_step_lets_the_run_end() -> None:
    around = Surroundings(stop_after=2)

    assert run(FakeEngine([4.0, 8.0]), around, num_steps=2) == 2.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_stage(bad: float) -> None:
    around = Surroundings(save_every=1)

    with pytest.raises(StageError, match=r"step 2: the loss is (nan|inf); lower the learning rate"):
        run(FakeEngine([4.0, bad]), around, num_steps=3)

    assert [state.step for state in around.saved] == [1]  # nothing of the bad step is kept


def test_a_finished_run_does_nothing_more() -> None:
    around = Surroundings()

    loss = run(FakeEngine([]), around, num_steps=5, state=TrainState(step=5))

    assert math.isnan(loss)
    assert around.rows == []


def test_a_step_without_anything_to_learn_has_no_loss_and_no_gradient() -> None:
    engine, around = FakeEngine([0.0]), Surroundings()

    run(engine, around, num_steps=1, made=steps(loss_weight=0.0))

    assert engine.scaled == [0.0]
    assert around.rows[0]["loss"] == 0.0
