"""One pace for all calls to an endpoint."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from scalesweep.evaluate.judging.pace import Pace


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def paced(clock: Clock) -> Pace:
    return Pace(max_concurrent=16, backoff_s=1.0, clock=clock, dice=random.Random(3))


def test_a_rate_limit_stops_all_calls_for_as_long_as_the_endpoint_asks() -> None:
    clock = Clock()
    pace = paced(clock)

    pace.limited(sent_at=99.0, retry_after_s=20.0)

    assert 20.0 <= pace.wait_s() <= 21.0
    clock.now += 21.0
    assert pace.wait_s() == 0.0


def test_calls_that_were_limited_together_halve_the_pace_once() -> None:
    clock = Clock()
    pace = paced(clock)

    for _ in range(16):
        pace.limited(sent_at=99.0, retry_after_s=None)

    assert pace.allowed == 8
    assert 0.5 <= pace.wait_s() <= 1.0  # the first wait, with jitter


def test_without_retry_after_the_wait_doubles_up_to_60_times_the_first() -> None:
    clock = Clock()
    pace = paced(clock)
    waits = []
    for _ in range(9):
        pace.limited(sent_at=clock.now, retry_after_s=None)
        waits.append(pace.wait_s())
        clock.now += waits[-1]

    assert all(
        0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(waits[:6])
    )  # 1, 2, 4, 8, 16, 32 s
    assert all(30 <= wait <= 60 for wait in waits[6:])
    assert pace.allowed == 1.0  # but never nothing


def test_replies_bring_the_pace_back_one_by_one() -> None:
    clock = Clock()
    pace = paced(clock)
    pace.limited(sent_at=99.0, retry_after_s=None)

    for _ in range(9):
        pace.replied()
    assert int(pace.allowed) == 9
    for _ in range(500):
        pace.replied()
    assert pace.allowed == 16


@pytest.mark.parametrize(("failures", "most"), [(1, 1.0), (2, 2.0), (5, 16.0), (500, 60.0)])
def test_backoff_is_exponential_with_jitter(failures: int, most: float) -> None:
    waits = {paced(Clock()).backoff(failures)} | {
        Pace(max_concurrent=1, backoff_s=1.0, dice=random.Random(n)).backoff(failures)
        for n in range(20)
    }

    assert most / 2 <= min(waits) < max(waits) <= most


@pytest.mark.parametrize("asked", [0.0, 0.1])
def test_a_retry_after_of_nothing_is_no_leave_to_hurry(asked: float) -> None:
    clock = Clock()
    pace = paced(clock)
    for _ in range(4):
        pace.limited(sent_at=clock.now, retry_after_s=asked)

    assert pace.wait_s() >= 4.0  # half of 8 s, the fourth wait
