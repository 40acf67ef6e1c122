"""Saves are no more frequent than they are worth, and there is always time for the last."""

from __future__ import annotations

import pytest

from scalesweep.records import Measured
from scalesweep.train.pacing import Pace


def pace(
    *, every: int = 10, step_s: float = 1.0, held_up_s: float = 0.0, written_s: float = 0.0
) -> Pace:
    """After five saves, and after more time spent on saving than is free."""
    made = Pace(every_steps=every)
    for _ in range(5):
        made.step(step_s)
        made.saved(held_up_s, waited_s=7.0)
        made.written(written_s)
    return made


@pytest.mark.parametrize(
    ("measured", "interval"),
    [
        pytest.param({"held_up_s": 0.4}, 10, id="4 % of 10 s are no more than 5 %"),
        pytest.param({"held_up_s": 2.0}, 40, id="2 s are 5 % of 40 s"),
        pytest.param({"held_up_s": 2.01}, 50, id="2.01 s are 5 % of 40.2 s; multiples of 10"),
        pytest.param({"held_up_s": 0.01, "step_s": 0.01}, 20, id="short steps, too"),
        pytest.param({"held_up_s": 30.0, "step_s": 60.0}, 10, id="5 % of 600 s are 30 s"),
        pytest.param({"written_s": 35.0}, 40, id="35 s of writing end before the next begins"),
        pytest.param({"held_up_s": 1.5, "written_s": 35.0}, 40, id="the longer of the two"),
    ],
)
def test_the_interval_keeps_the_share_of_saving(measured: dict[str, float], interval: int) -> None:
    assert pace(**measured).interval_steps == interval  # type: ignore[arg-type]


def test_without_a_measurement_the_interval_is_as_configured() -> None:
    assert Pace(every_steps=7).interval_steps == 7


def test_the_first_half_minute_of_saving_puts_nothing_off() -> None:
    made = Pace(every_steps=10)
    made.step(0.01)

    made.saved(10.0, waited_s=10.0)
    made.saved(9.0, waited_s=1.0)
    at_30_s = made.interval_steps
    made.saved(1.0)

    assert at_30_s == 10
    assert made.interval_steps == 18_000  # 9 s, the median, are 5 % of 180 s


def test_one_slow_save_among_others_puts_nothing_off() -> None:
    made = pace(held_up_s=0.3)

    made.saved(3600.0)
    made.written(3600.0)

    assert made.interval_steps == 10


def test_saves_come_at_multiples_an_interval_apart() -> None:
    made = pace(every=10, held_up_s=1.2)  # 5 % of 24 s: 30 steps
    due = []
    for step in range(1, 101):
        if made.is_due(step):
            due.append(step)
            made.saved_step = step

    assert due == [30, 60, 90]


def test_after_a_stop_between_them_saves_come_at_the_same_steps_as_ever() -> None:
    made = Pace(every_steps=2, saved_step=3)

    assert [step for step in range(4, 9) if made.is_due(step)] == [4, 6, 8]


def test_a_stop_leaves_twice_the_longest_save_and_a_step() -> None:
    made = pace(step_s=3.0, written_s=20.0)  # 2 x 20 + 3
    made.began_at = 0.0

    assert made.longest.lead_s == 43.0
    assert not made.must_stop(now=1000.0, ends_at=1043.1)
    assert made.must_stop(now=1000.0, ends_at=1043.0)


def test_one_slow_save_leaves_half_of_the_time_to_train() -> None:
    made = Pace(every_steps=10, longest=Measured(longest_save_s=1900.0, longest_step_s=9.0))
    made.began_at = 1000.0

    assert not made.must_stop(now=2799.0, ends_at=4600.0)
    assert made.must_stop(now=2800.0, ends_at=4600.0)


def test_without_a_limit_or_a_saved_checkpoint_nothing_stops_by_itself() -> None:
    made = Pace(every_steps=10)
    made.step(1.0)
    made.step(5.0)

    assert not made.must_stop(now=1000.0, ends_at=1000.0)
    assert not pace(written_s=5.0).must_stop(now=1000.0, ends_at=None)


def test_what_earlier_attempts_measured_counts() -> None:
    made = Pace(every_steps=10, longest=Measured(longest_save_s=100.0, longest_step_s=9.0))

    made.written(10.0)

    assert made.longest == Measured(longest_save_s=100.0, longest_step_s=9.0)
