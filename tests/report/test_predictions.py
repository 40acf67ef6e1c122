"""Predicted beside measured: what is judged, and what the medians are of."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from scalesweep.cli import run as run_command
from scalesweep.errors import ConfigError
from scalesweep.records import Execution, Outcome, Predicted, StageKind, StageRef, Usage
from scalesweep.report.costs import StageCost
from scalesweep.report.predictions import PredictionReport, prediction_report
from scalesweep.report.render_predictions import render
from scalesweep.report.stage_results import Attempt, StageResult, StageState

PREDICTED = Predicted(
    startup_s=2.0,
    work_s=8.0,
    flops=1e9,
    device_bytes=3e9,
    host_bytes=5e9,
    node_hours=10 / 3600,
    usd=0.1,
    basis="measured: 2 tune lora runs here",
)
USAGE = Usage(
    outcome=Outcome.done, wall_s=8.0, peak_device_bytes=4 * 10**9, peak_memory_bytes=10**9
)


def attempt(number: int = 1, *, published: bool = True, **how: Any) -> Attempt:
    usage = replace(USAGE, **how.pop("usage", {}))
    execution = Execution(
        cluster="local", devices_per_node=2, predicted=how.pop("predicted", PREDICTED)
    )
    return Attempt(
        number=number,
        usage=usage,
        charged=usage,
        published=published,
        execution=execution.to_json(),
    )


def stage(key: str, *attempts: Attempt, **how: Any) -> StageResult:
    fields = {"kind": StageKind.tune, "state": StageState.done, **how}
    return StageResult(
        ref=StageRef(kind=fields["kind"], key=key),
        label=f"{fields['kind']} {key}",
        cause="",
        attempts=attempts,
        num_cells=1,
        cost=StageCost(),
        output=None,
        **fields,
    )


def report(*stages: StageResult) -> PredictionReport:
    return prediction_report("study", stages)


def test_a_stage_that_ran_once_is_judged_by_time_and_memory() -> None:
    (graded,) = report(stage("a", attempt())).stages

    assert graded.not_judged == ""
    assert graded.wall_s.error == pytest.approx(10 / 8 - 1)
    assert graded.node_hours is not None
    assert graded.device_bytes is not None
    assert graded.device_bytes.error == pytest.approx(3 / 4 - 1)
    assert graded.host_bytes is not None
    assert graded.host_bytes.measured == 2e9  # two ranks of 1e9 on the node


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (stage("a", attempt(1, published=False), attempt(2)), "2 attempts"),
        (stage("a", attempt(usage={"first_step": 50})), "resumed after step 50"),
        (
            stage(
                "a",
                attempt(published=False, usage={"outcome": Outcome.killed}),
                state=StageState.killed,
            ),
            "killed",
        ),
    ],
    ids=["tried_twice", "resumed", "killed"],
)
def test_what_did_not_run_once_and_whole_is_shown_and_not_judged(
    made: StageResult, why: str
) -> None:
    found = report(made)

    assert [graded.not_judged for graded in found.stages] == [why]
    assert found.groups == ()


def test_attempts_without_a_prediction_are_named() -> None:
    old = Attempt(number=1, usage=USAGE, charged=USAGE, published=True, execution={"cluster": "x"})
    damaged = replace(old, execution={})
    never_ran = stage("c", state=StageState.missing)

    found = report(stage("a", old), stage("b", damaged), never_ran, stage("d", attempt()))

    assert found.without == ("tune a", "tune b")
    assert [graded.label for graded in found.stages] == ["tune d"]


def test_a_study_of_which_nothing_ran_says_so() -> None:
    assert render(prediction_report("early", []), "terminal") == (
        "Nothing of study early has run yet.\n"
    )


def test_medians_are_of_absolute_errors_by_kind_and_basis() -> None:
    declared = replace(PREDICTED, basis="declared")
    walls = {"a": 8.0, "b": 12.5, "c": 20.0}  # 10 s predicted: +25 %, -20 %, -50 %
    stages = [stage(key, attempt(usage={"wall_s": wall})) for key, wall in walls.items()]
    stages.append(stage("d", attempt(predicted=declared, usage={"wall_s": 5.0})))  # +100 %

    groups = {(group.name, group.basis): group for group in report(*stages).groups}

    assert list(groups) == [("tune", "declared"), ("tune", "measured"), ("all", "either")]
    measured = groups["tune", "measured"]
    assert (measured.num_stages, measured.median) == (3, pytest.approx(0.25))
    assert measured.bias == pytest.approx(-0.2)
    assert measured.worst == pytest.approx(-0.5)
    assert groups["all", "either"].median == pytest.approx((0.25 + 0.5) / 2)


def test_every_format_tells_the_same_errors() -> None:
    found = report(stage("a", attempt()), stage("b", attempt(predicted=None)))

    text = render(found, "terminal", width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "+25 %" in text
    assert "1 stage ran without a prediction" in text
    assert "Speed measured: 2 tune lora runs here." in text
    assert "| tune a | 10 s | 8.0 s | +25 % | measured |" in render(found, "md")
    (row,) = csv.DictReader(io.StringIO(render(found, "csv")))
    assert float(row["wall_s_error"]) == pytest.approx(0.25)
    data = json.loads(render(found, "json"))
    assert data["stages"][0]["device_bytes"]["error"] == pytest.approx(-0.25)
    assert data["without_prediction"] == ["tune b"]
    with pytest.raises(ConfigError, match="--format=html: --predictions comes as"):
        render(found, "html")


def test_the_command_line_refuses_two_reports_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    status = run_command(["report", "--predictions", "--paper", "table4"])

    assert status == 2
    assert "--predictions: is a report of its own; leave --paper out" in capsys.readouterr().err
