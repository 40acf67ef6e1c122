"""What was predicted of a stage is kept with its attempt, and graded from there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from scalesweep.cli import run as run_command
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.records import Predicted
from scalesweep.rundir import Store, write_json
from tests.fakes.plans import plan_of, stage
from tests.launch.running import run


def expecting(planned: PlannedStage, seconds: float) -> PlannedStage:
    predicted = Predicted(
        startup_s=seconds / 4,
        work_s=seconds * 3 / 4,
        flops=0.0,
        device_bytes=0.0,
        host_bytes=1e9,
        node_hours=seconds / 2 / 3600,  # one of two devices
        usd=0.0,
        basis="measured: 1 tune run here",
    )
    execution = dataclasses.replace(planned.execution, predicted=predicted)
    return dataclasses.replace(planned, execution=execution)


def graded(store: Store, plan: Plan, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The report of a study that has run, by the command."""
    store.study(plan.study).mkdir(parents=True, exist_ok=True)
    write_json(store.study(plan.study) / "plan.json", plan.to_json())
    line = ["report", plan.study, "--store", str(store.root), "--predictions", "--format", "json"]
    assert run_command(line) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_run_is_graded_by_what_was_predicted_when_it_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    first = expecting(stage("first", "count", steps=2), 10.0)
    second = expecting(stage("second", after=[first]), 20.0)
    run(plan_of(first, second, stage("third")), store)
    # A later plan expects something else: it is not what is graded.
    later = plan_of(expecting(first, 99.0), second, stage("third"))

    said = graded(store, later, capsys)

    took = {one.spec.label: store.stage(one.ref).attempt(1).usage() for one in (first, second)}
    rows = {row["label"]: row for row in said["stages"]}
    assert rows.keys() == {"first", "second"}
    for label, seconds in (("first", 10.0), ("second", 20.0)):
        usage = took[label]
        assert usage is not None
        assert rows[label]["wall_s"]["predicted"] == pytest.approx(seconds)
        assert rows[label]["wall_s"]["measured"] == pytest.approx(usage.wall_s, abs=1e-3)
        assert rows[label]["node_hours"]["predicted"] == pytest.approx(seconds / 7200)
        assert rows[label]["host_bytes"]["measured"] == usage.peak_memory_bytes
    assert said["without_prediction"] == ["third"]
