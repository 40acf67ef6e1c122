"""One store's runs predict another's, beside the ways of predicting that they must beat."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.predictions import (
    STUDY,
    compare,
    core_seconds,
    held_per_core_second,
    held_seconds,
    print_stores,
)
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.graph import Plan
from scalesweep.records import Outcome, StageKind, Usage
from scalesweep.rundir import Store, write_json
from tests.config.composing import cell


@pytest.fixture(scope="module")
def plan() -> Plan:
    cells = [cell("model=mini_xs", "tuning=full", f"seed={seed}") for seed in (1, 2)]
    requests = [CellRequest(point={"seed": i}, config=config) for i, config in enumerate(cells)]
    return build_plan(requests, study=STUDY)


def ran(store: Store, plan: Plan, seconds: dict[StageKind, list[float]]) -> Store:
    """A store in which every stage ran once; seconds: of the stages of a kind, in turn."""
    store.study(STUDY).mkdir(parents=True)
    write_json(store.study(STUDY) / "plan.json", plan.to_json())
    left = {kind: list(each) for kind, each in seconds.items()}
    for stage in plan.stages:
        made = store.stage(stage.ref)
        attempt = made.attempt(1)
        attempt.path.mkdir(parents=True)
        made.stage_file.write_text(json.dumps(stage.spec.to_json()))
        wall_s = left[stage.spec.kind].pop(0)
        usage = Usage(
            outcome=Outcome.done, wall_s=wall_s, startup_s=wall_s / 4, cpu_s=wall_s / 2, steps=10
        )
        write_json(attempt.usage_file, usage.to_json())
        write_json(attempt.execution_file, stage.execution.to_json())
        write_json(made.done_file, {"schema": 1, "attempt": 1})
    return store


def test_each_stage_is_predicted_by_the_other_stores_runs_of_its_like(
    tmp_path: Path, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {
        StageKind.data: [8.0, 4.0],
        StageKind.align: [2.0, 4.0],
        StageKind.tune: [10.0, 20.0],
        StageKind.generate: [1.0, 3.0, 2.0],
        StageKind.judge: [0.1, 0.1, 0.1],
    }
    after = {kind: [2 * each for each in seconds] for kind, seconds in before.items()}
    a = ran(Store(tmp_path / "a"), plan, before)
    b = ran(Store(tmp_path / "b"), plan, after)

    found = compare(a, b)

    tunes = [stage for stage in found if stage.kind is StageKind.tune]
    assert len(found) == len(plan.stages)
    for stage, measured, twin, other in zip(
        tunes, (20.0, 40.0), (10.0, 20.0), (20.0, 10.0), strict=True
    ):
        assert stage.wall_s.measured == measured
        # Two seeds of one recipe do the same work: the median of both.
        assert stage.wall_s.predicted == pytest.approx(15.0)
        assert stage.wall_s.error == pytest.approx(15 / measured - 1)
        assert stage.others["twin"] == twin
        assert stage.others["unseen"] == pytest.approx(other)
        assert stage.others["mean of kind"] == 15.0
        assert stage.others["declared"] > 0
    assert held_per_core_second(b) == pytest.approx(2.0)
    print_stores(a, b)
    assert "median error of a stage's time held: 50.0%, NOT within 20%" in capsys.readouterr().out


def test_core_seconds_tell_a_busy_machine_from_a_wrong_prediction(
    tmp_path: Path, plan: Plan
) -> None:
    one = {kind: [1.0] * 3 for kind in StageKind}
    a, b = (ran(Store(tmp_path / name), plan, one) for name in ("a", "b"))
    for stage in plan.stages:  # the same work, held five times as long
        attempt = b.stage(stage.ref).attempt(1)
        usage = attempt.usage()
        assert usage is not None
        write_json(attempt.usage_file, replace(usage, wall_s=5.0).to_json())

    held, cores = (
        [stage for stage in compare(a, b, clock=clock) if stage.kind is StageKind.tune]
        for clock in (held_seconds, core_seconds)
    )

    assert [stage.wall_s.error for stage in held] == pytest.approx([-0.8, -0.8])
    assert [stage.wall_s.measured for stage in cores] == [0.5, 0.5]
    assert [stage.wall_s.error for stage in cores] == pytest.approx([0.0, 0.0])


def test_a_stage_that_was_tried_twice_is_not_compared(tmp_path: Path, plan: Plan) -> None:
    one = {kind: [1.0] * 3 for kind in StageKind}
    a, b = (ran(Store(tmp_path / name), plan, one) for name in ("a", "b"))
    twice = next(stage for stage in plan.stages if stage.spec.kind is StageKind.tune)
    b.stage(twice.ref).attempt(2).path.mkdir()

    assert twice.ref not in {stage.ref for stage in compare(a, b)}
