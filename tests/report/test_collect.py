"""From records on disk to results."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from scalesweep.records import Outcome, StageKind, Usage
from scalesweep.report.collect import StudyResults, collect
from scalesweep.report.costs import StageCost
from scalesweep.report.stage_results import StageState, loss_curve, metric_rows
from scalesweep.rundir import read_json, write_json
from tests.report.synthetic import Point, SyntheticStudy, add_attempt, build_study, publish

TWO = (Point(score=0.5), Point(score=0.75, pixels=48))


def results_of(study: SyntheticStudy) -> StudyResults:
    return collect(study.store, study.plan)


def test_scores_costs_and_parameters_of_a_cell(tmp_path: Path) -> None:
    results = results_of(build_study(tmp_path, TWO, num_questions=200))

    cell = results.cells[1]

    assert (results.primary, results.text_benchmark) == ("mini_vqa", "mini_text")
    assert cell.state is StageState.done
    assert cell.scores["mini_vqa"].score == 0.75
    assert cell.scores["mini_vqa"].num_questions == 200
    assert sum(cell.scores["mini_vqa"].items.values()) == 150
    assert set(cell.scores["mini_vqa"].categories) == {"color", "plus", "read", "shape"}
    assert cell.before["mini_text"].score == 1.0
    # tune: 1.5 s + 150 steps of 0.25 s on one of two devices at $0.10 per node-hour
    assert cell.costs.tune.node_hours == pytest.approx(39.0 / 2 / 3600)
    assert cell.costs.tune.micro_usd == round(39.0 / 2 / 3600 * 0.1 * 1e6)
    # both data stages 24, align 9, tune 39, two generate 12, two judge 0.8
    assert cell.costs.standalone.device_seconds == pytest.approx(84.8)
    assert cell.costs.evaluation.device_seconds == pytest.approx(12.8)
    assert cell.wall_s == pytest.approx(39.0)
    assert (len(cell.loss), cell.loss[0].step, cell.loss[-1].step) == (150, 1, 150)


def test_shares_add_up_to_all_stages(tmp_path: Path) -> None:
    results = results_of(build_study(tmp_path, TWO, num_questions=8))

    assert (
        sum(cell.costs.share.micro_usd for cell in results.cells) == results.total.total.micro_usd
    )
    assert results.total.total.micro_usd == sum(
        cost.total.micro_usd for cost in results.cost_by_kind.values()
    )


def test_a_failed_cell_names_stage_cause_and_log(tmp_path: Path) -> None:
    points = (TWO[0], dataclasses.replace(TWO[1], state="failed"))

    results = results_of(build_study(tmp_path, points, num_questions=8))

    assert [cell.state for cell in results.cells] == [StageState.done, StageState.failed]
    failed = results.cells[1]
    assert failed.cause.startswith("tune: loss is NaN at step 41")
    assert failed.cause.endswith("/attempts/0001/log")
    assert failed.scores == {}
    assert not failed.costs_are_whole
    assert failed.costs.tune.micro_usd > 0  # what failed was paid as well


def test_a_cell_that_was_not_started_is_missing(tmp_path: Path) -> None:
    points = (TWO[0], dataclasses.replace(TWO[1], state="missing"))

    results = results_of(build_study(tmp_path, points, num_questions=8))

    assert results.cells[1].state is StageState.missing
    assert results.num_done == 1


@pytest.mark.parametrize(
    ("usage", "state"),
    [
        (Usage(outcome=Outcome.running), StageState.running),
        (Usage(outcome=Outcome.interrupted), StageState.interrupted),
        (Usage(outcome=Outcome.killed, cause="signal 9"), StageState.killed),
        (None, StageState.killed),
    ],
)
def test_state_follows_the_last_attempt(
    tmp_path: Path, usage: Usage | None, state: StageState
) -> None:
    study = build_study(tmp_path, [dataclasses.replace(TWO[0], state="missing")], num_questions=8)
    add_attempt(study, study.plan.cells[0].stages["tune"], usage)

    assert results_of(study).cells[0].state is state


def test_an_attempt_without_a_record_is_told(tmp_path: Path) -> None:
    study = build_study(tmp_path, [dataclasses.replace(TWO[0], state="missing")], num_questions=8)
    add_attempt(study, study.plan.cells[0].stages["tune"], None)

    assert any("1 attempt(s) died" in warning for warning in results_of(study).warnings)


def test_a_child_of_a_rebuilt_parent_is_stale(tmp_path: Path) -> None:
    study = build_study(tmp_path, TWO[:1], num_questions=8)
    tune = study.plan.cells[0].stages["tune"]
    number = add_attempt(study, tune, Usage(outcome=Outcome.done))
    (study.store.stage(tune).attempt(number).output / "weights").write_text("other bytes")
    study.store.stage(tune).done_file.unlink()
    publish(study, tune, number)

    results = results_of(study)

    assert results.cells[0].state is StageState.stale
    assert results.stages[study.plan.cells[0].stages["generate"]].state is StageState.stale
    assert any("stale" in warning for warning in results.warnings)


def test_metrics_of_a_resumed_stage_take_each_step_from_the_latest_attempt(tmp_path: Path) -> None:
    study = build_study(tmp_path, [dataclasses.replace(TWO[0], state="missing")], num_questions=8)
    tune = study.plan.cells[0].stages["tune"]
    stage = study.store.stage(tune)
    for steps, loss in (((1, 2, 3, 4), 9.0), ((3, 4, 5), 5.0), ((5, 6), 7.0)):
        number = add_attempt(study, tune, Usage(outcome=Outcome.killed))
        rows = [json.dumps({"step": step, "loss": loss}) for step in steps]
        torn = '{"step": 99, "lo'
        stage.attempt(number).metrics.write_text("\n".join([*rows, torn]))

    curve = loss_curve(metric_rows(stage, published=None))
    until_second = loss_curve(metric_rows(stage, published=2))

    assert [(p.step, p.loss) for p in curve] == [(1, 9), (2, 9), (3, 5), (4, 5), (5, 7), (6, 7)]
    assert [(p.step, p.loss) for p in until_second] == [(1, 9), (2, 9), (3, 5), (4, 5), (5, 5)]


def test_damaged_scores_cost_one_cell_not_the_report(tmp_path: Path) -> None:
    study = build_study(tmp_path, TWO, num_questions=8)
    judge = study.plan.cells[0].stages["judge"]
    (study.store.stage(judge).output() / "scores.json").write_text("{")

    results = results_of(study)

    assert results.cells[0].scores == {}
    assert results.cells[1].scores["mini_vqa"].score == 0.75
    assert any("cannot be read" in warning for warning in results.warnings)


def test_differences_in_execution_are_told(tmp_path: Path) -> None:
    study = build_study(tmp_path, TWO, num_questions=8)
    attempt = study.store.stage(study.plan.cells[1].stages["tune"]).attempt(1)
    changed = {
        **read_json(attempt.execution_file),
        "zero_stage": 2,
        "versions": {"torch": "2.14.0"},
    }
    write_json(attempt.execution_file, changed)

    warnings = results_of(study).warnings

    assert "tune stages differ in zero_stage: 0 (1 cells), 2 (1 cells)" in warnings
    assert "stages were run with several versions of torch: 2.13.0, 2.14.0" in warnings


def test_cells_asked_other_questions_are_told(tmp_path: Path) -> None:
    study = build_study(tmp_path, TWO, num_questions=8)
    output = study.store.stage(study.plan.cells[0].stages["judge"]).output()
    items = output / "items" / "mini_vqa.jsonl"
    items.write_text("".join(items.read_text().splitlines(keepends=True)[1:]))

    assert any(
        "not all cells were asked the same questions of mini_vqa" in warning
        and "(7 for all cells)" in warning
        for warning in results_of(study).warnings
    )


def test_a_missing_verdict_is_no_wrong_answer(tmp_path: Path) -> None:
    study = build_study(tmp_path, TWO[:1], num_questions=8)
    items = study.store.stage(study.plan.cells[0].stages["judge"]).output() / "items"
    rows = [json.loads(line) for line in (items / "mini_vqa.jsonl").read_text().splitlines()]
    rows[0]["correct"] = None
    (items / "mini_vqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert len(results_of(study).cells[0].scores["mini_vqa"].items) == 7


def test_stages_of_other_studies_are_counted(tmp_path: Path) -> None:
    build_study(tmp_path, TWO[:1], name="earlier", num_questions=8)
    results = results_of(build_study(tmp_path, TWO, name="later", num_questions=8))

    # all eight stages of the first cell, of which the second shares four more of its own
    assert results.other_studies == {"earlier": 8}


def test_costs_of_a_study_are_told_apart_by_who_paid(tmp_path: Path) -> None:
    study = build_study(tmp_path, TWO[:1], name="later", num_questions=8)
    first, second = [
        ref for ref in study.plan.by_ref if ref.kind in (StageKind.data, StageKind.tune)
    ][:2]
    for ref, payer in ((first, "earlier"), (second, "later")):
        attempt = study.store.stage(ref).attempt(1)
        write_json(attempt.execution_file, {**read_json(attempt.execution_file), "study": payer})

    results = results_of(study)
    paid = results.paid_by

    assert paid["earlier"].total == results.stages[first].cost.total
    assert paid["later"].total == results.stages[second].cost.total
    assert set(paid) == {"earlier", "later", ""}  # the others do not say
    assert sum(paid.values(), StageCost()) == results.total


def test_a_study_not_started_has_the_planned_price(tmp_path: Path) -> None:
    study = build_study(tmp_path, TWO[:1], num_questions=8)
    for ref in study.plan.by_ref:
        study.store.stage(ref).path.rename(tmp_path / f"{ref.kind}-{ref.key}")

    results = results_of(study)

    assert results.cells[0].state is StageState.missing
    assert [price.usd_per_node_hour for price in results.prices] == [0.1]
    assert results.prices[0].is_example
    assert results.total.total.micro_usd == 0
    assert StageKind.tune in results.cost_by_kind
