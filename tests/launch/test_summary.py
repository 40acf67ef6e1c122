"""The last lines of a run, word for word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scalesweep.launch.local import StageRun, State, StudyResult
from scalesweep.launch.summary import summary_lines
from tests.fakes.plans import plan_of, stage

DATA = stage("data")
BAD, GOOD, COSTLY = (stage(name, after=[DATA]) for name in ("bad", "good", "costly"))
JUDGE = stage("judge", after=[BAD])
PLAN = plan_of(
    DATA,
    BAD,
    GOOD,
    COSTLY,
    JUDGE,
    cells={
        "first": [DATA, BAD, JUDGE],
        "second": [DATA, GOOD],
        "third": [DATA, COSTLY],
    },
)


def result(interrupted: bool = False, /, **fields: dict[str, Any]) -> StudyResult:
    runs = {
        planned.spec.ref: StageRun(planned=planned, **fields.get(planned.spec.label, {}))
        for planned in PLAN.stages
    }
    return StudyResult(runs=runs, interrupted=interrupted, wall_s=75.0)


def done(attempts: int = 1, cpu_s: float = 10.0) -> dict[str, Any]:
    fields = {"state": State.done, "new_attempts": attempts, "cpu_s": cpu_s}
    return {**fields, "was_done": attempts == 0}


def test_a_run_that_found_all_done_is_one_line() -> None:
    before = {s.spec.label: done(0) for s in PLAN.stages}

    assert summary_lines(PLAN, result(**before)) == [
        "all 5 stages were done; 0 new attempts, 75.0 s"
    ]


def test_a_whole_run_is_two_lines() -> None:
    ended = {s.spec.label: done() for s in PLAN.stages}

    assert summary_lines(PLAN, result(**{**ended, "data": done(0, 0)})) == [
        "5 stages: 5 done (1 done before), 4 new attempts",
        "wall 1:15 (75 s), cores 40 core seconds in stages",
    ]


def test_each_cell_that_is_not_done_has_its_cause_and_log() -> None:
    failed = {"state": State.failed, "new_attempts": 1, "cause": "loss is nan", "log": Path("/log")}
    left_out = {"state": State.left_out, "cause": "the budget is spent"}
    blocked = {"state": State.blocked, "cause": "needs bad"}

    lines = summary_lines(
        PLAN, result(data=done(), bad=failed, good=done(), costly=left_out, judge=blocked)
    )

    assert lines == [
        "5 stages: 2 done, 1 failed, 1 blocked, 1 left out (0 done before), 3 new attempts",
        "wall 1:15 (75 s), cores 20 core seconds in stages",
        "failed: cell first: bad: loss is nan; log: /log",
        "left out: cell third: costly: the budget is spent",
    ]


def test_an_interrupted_run_says_what_was_under_way() -> None:
    stopped = {"state": State.interrupted, "new_attempts": 1, "cause": "asked to stop"}
    not_begun = {"state": State.interrupted, "cause": "not started"}

    lines = summary_lines(
        PLAN,
        result(
            True,
            data=done(),
            bad=stopped,
            good=not_begun,
            costly=not_begun,
            judge=not_begun,
        ),
    )

    assert lines[0] == "5 stages: 1 done, 4 interrupted (0 done before), 2 new attempts"
    assert lines[2:] == [
        "interrupted: cell first: bad: asked to stop",
        "interrupted: cell second: good: not started",
        "interrupted: cell third: costly: not started",
    ]
