"""Verdicts on the paper's findings: each flips when the scores are swapped."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from scalesweep.report.collect import collect
from scalesweep.report.findings import FINDINGS, MARGIN, Finding, Kind, Measure, Side
from scalesweep.report.seeds_record import RecordedSpread, SeedsRecord
from scalesweep.report.statistics import Spread
from scalesweep.report.study_report import StudyReport, build_report
from scalesweep.report.verdicts import Judged, Verdict
from tests.report.synthetic import QUICKSTART, Point, build_study

RECORD = SeedsRecord(
    study="quickstart_seeds",
    command="python -m scalesweep -m +sweep=quickstart_seeds",
    versions={},
    benchmarks={
        name: RecordedSpread(
            spread=Spread(standard_deviation=0.019, df=22, num_settings=11), num_questions=1500
        )
        for name in ("mini_vqa", "mini_text")
    },
    settings=(),
)

BY_ID = {finding.id: finding for finding in FINDINGS}


def point_of(side: Side) -> Point:
    (point,) = [point for point in QUICKSTART if side.selects(point.config)]
    return point


def with_value(point: Point, finding: Finding, side: Side, value: float) -> Point:
    if finding.measure is Measure.cost:
        return dataclasses.replace(point, step_s=value)
    if finding.measure is Measure.score:
        return dataclasses.replace(point, score=value)
    if side.before:
        return dataclasses.replace(point, before=value)
    return dataclasses.replace(point, text=value)


def report_with(
    tmp_path: Path,
    finding: Finding,
    values: Sequence[float],
    *,
    num_questions: int = 700,
    record: SeedsRecord | None = RECORD,
) -> StudyReport:
    """A study of the finding's own cells, with these values on its sides."""
    points: dict[str, Point] = {}
    for side, value in zip(finding.sides, values, strict=True):
        point = point_of(side)
        points[point.name] = with_value(points.get(point.name, point), finding, side, value)
    study = build_study(tmp_path, list(points.values()), num_questions=num_questions)
    return build_report(collect(study.store, study.plan), record)


def verdict(report: StudyReport, finding: Finding) -> Judged:
    (judged,) = [judged for judged in report.findings if judged.finding is finding]
    return judged


AGREES = {
    Kind.greater: (0.75, 0.45),
    Kind.not_worse: (0.70, 0.70),
    Kind.repairs_little: (0.35, 0.38, 0.70),
    Kind.costs_little: (0.20, 0.22, 0.20, 0.40),
}
"""Values of the sides, in their order, for which the paper is right."""

SWAPPED = {
    Kind.greater: (0.45, 0.75),
    Kind.not_worse: (0.45, 0.70),
    Kind.repairs_little: (0.35, 0.68, 0.70),
    Kind.costs_little: (0.20, 0.60, 0.20, 0.22),
}

UNDECIDED = {
    Kind.greater: (0.600, 0.590),
    Kind.not_worse: (0.60, 0.69),
    Kind.repairs_little: (0.35, 0.52, 0.70),
    Kind.costs_little: (0.200, 0.2002, 0.200, 0.2004),
}


def sized(finding: Finding, values: Sequence[float]) -> Sequence[float]:
    """The synthetic m takes twice the time of s at the same step_s; here values are whole."""
    if finding.measure is not Measure.cost:
        return values
    return (*values[:3], values[3] / 2.0)


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.id)
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(AGREES, Verdict.shown, id="agrees"),
        pytest.param(SWAPPED, Verdict.contrary, id="swapped"),
        pytest.param(UNDECIDED, Verdict.not_shown, id="undecided"),
    ],
)
def test_verdict_follows_the_scores(
    tmp_path: Path, finding: Finding, values: dict[Kind, tuple[float, ...]], expected: Verdict
) -> None:
    report = report_with(tmp_path, finding, sized(finding, values[finding.kind]))

    judged = verdict(report, finding)

    assert judged.verdict is expected
    assert judged.estimate is not None
    assert judged.estimate.low < judged.estimate.value < judged.estimate.high
    assert judged.threshold == (-MARGIN if finding.kind is Kind.not_worse else 0.0)


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.id)
def test_a_missing_cell_cannot_be_judged(tmp_path: Path, finding: Finding) -> None:
    points = {point_of(side).name: point_of(side) for side in finding.sides}
    first = point_of(finding.sides[0])
    points[first.name] = dataclasses.replace(first, state="missing")
    study = build_study(tmp_path, list(points.values()), num_questions=40)

    judged = verdict(build_report(collect(study.store, study.plan), None), finding)

    assert judged.verdict is Verdict.cannot_judge
    assert "cells missing" in judged.reason
    assert judged.estimate is None


def test_the_quickstart_selects_one_cell_for_every_side() -> None:
    for finding in FINDINGS:
        for side in finding.sides:
            assert sum(side.selects(point.config) for point in QUICKSTART) == 1, side.name


def test_difference_and_error_by_hand(tmp_path: Path) -> None:
    finding = BY_ID["resolution"]

    report = report_with(tmp_path, finding, (0.75, 0.45), num_questions=400)

    judged = verdict(report, finding)
    assert judged.estimate is not None
    items = [setting.cells[0].scores["mini_vqa"].items for setting in judged.settings]
    differences = [items[0][question] - items[1][question] for question in items[0]]
    mean = sum(differences) / 400
    variance = sum((d - mean) ** 2 for d in differences) / 399 / 400
    seeds = 2 * 0.019**2
    assert judged.estimate.value == pytest.approx(0.30)
    assert judged.estimate.standard_error == pytest.approx((variance + seeds) ** 0.5)
    assert judged.estimate.df == pytest.approx(
        (variance + seeds) ** 2 / (variance**2 / 399 + seeds**2 / 22)
    )
    assert judged.values == (0.75, 0.45)


def test_without_a_record_only_questions_count_and_it_is_said(tmp_path: Path) -> None:
    finding = BY_ID["resolution"]

    with_record = report_with(tmp_path / "a", finding, (0.62, 0.57))
    without = report_with(tmp_path / "b", finding, (0.62, 0.57), record=None)

    assert verdict(with_record, finding).verdict is Verdict.not_shown
    assert verdict(without, finding).verdict is Verdict.shown  # surer than it may be
    assert without.spread("mini_vqa") is None
    assert "questions only" in without.spreads["mini_vqa"].source


def test_several_seeds_are_averaged_and_give_the_spread(tmp_path: Path) -> None:
    scores = {(32, 1): 0.50, (32, 2): 0.54, (48, 1): 0.60, (48, 2): 0.66}
    study = build_study(
        tmp_path,
        [Point(score=score, pixels=px, seed=seed) for (px, seed), score in scores.items()],
        num_questions=500,
    )

    report = build_report(collect(study.store, study.plan), None)

    judged = verdict(report, BY_ID["resolution"])
    spread = report.spread("mini_vqa")
    assert len(report.settings) == 2
    # squares 2 x 0.02^2 + 2 x 0.03^2 over 1 + 1 degrees of freedom
    assert spread is not None
    assert spread.standard_deviation == pytest.approx((0.0026 / 2) ** 0.5)
    assert spread.df == 2
    assert judged.estimate is not None
    assert judged.estimate.value == pytest.approx(0.63 - 0.52)
    assert judged.num_seeds == (2, 2)


def test_the_record_is_used_where_it_knows_more_than_the_study(tmp_path: Path) -> None:
    points = [Point(score=0.5, seed=1), Point(score=0.54, seed=2), Point(score=0.6, pixels=48)]
    study = build_study(tmp_path, points, num_questions=100)

    report = build_report(collect(study.store, study.plan), RECORD)

    assert report.spreads["mini_vqa"].spread == RECORD.benchmarks["mini_vqa"].spread
    assert "measured with other cells" in report.spreads["mini_vqa"].source


def test_two_settings_that_fit_a_side_cannot_be_judged(tmp_path: Path) -> None:
    finding = BY_ID["lora_lr"]
    points = [
        point_of(finding.sides[0]),
        point_of(finding.sides[1]),
        dataclasses.replace(point_of(finding.sides[1]), lr=0.001),
    ]
    study = build_study(tmp_path, points, num_questions=40)

    judged = verdict(build_report(collect(study.store, study.plan), None), finding)

    assert judged.verdict is Verdict.cannot_judge
    assert "several settings fit LoRA r8, low LR" in judged.reason


def test_without_a_loss_there_is_nothing_to_repair(tmp_path: Path) -> None:
    finding = BY_ID["lora_rank_repair"]

    judged = verdict(report_with(tmp_path, finding, (0.60, 0.50, 0.605)), finding)

    assert judged.verdict is Verdict.not_shown
    assert "nothing to repair" in judged.reason


def test_repair_says_what_share_was_regained(tmp_path: Path) -> None:
    finding = BY_ID["lora_rank_repair"]

    judged = verdict(report_with(tmp_path, finding, (0.40, 0.46, 0.70)), finding)

    assert judged.reason == "regains 20 % of the loss of 0.300"


def test_what_else_differs_between_the_sides_is_told(tmp_path: Path) -> None:
    finding = BY_ID["resolution"]
    points = [point_of(side) for side in finding.sides]
    study = build_study(tmp_path, points, num_questions=40)
    config = {**study.plan.cells[0].config, "precision": "bf16", "batch": {"max_seq_len": 128}}
    cells = (dataclasses.replace(study.plan.cells[0], config=config), *study.plan.cells[1:])
    plan = dataclasses.replace(study.plan, cells=cells)

    judged = verdict(build_report(collect(study.store, plan), None), finding)

    assert judged.also_differs == ("batch.max_seq_len", "precision")


def test_recipes_that_follow_model_and_method_are_no_other_difference(tmp_path: Path) -> None:
    study = build_study(tmp_path, QUICKSTART, num_questions=40)

    report = build_report(collect(study.store, study.plan), None)

    assert [judged.also_differs for judged in report.findings] == [()] * len(FINDINGS)


def test_a_study_of_other_models_has_no_findings(tmp_path: Path) -> None:
    points = [Point(score=0.7, pixels=336, mix="llava80k", lr=2e-5)]
    study = build_study(tmp_path, points, num_questions=40)

    report = build_report(collect(study.store, study.plan), None)

    assert report.findings == ()


def test_a_study_with_the_cells_of_no_finding_has_none(tmp_path: Path) -> None:
    study = build_study(tmp_path, [Point(score=0.7)], num_questions=40)

    assert build_report(collect(study.store, study.plan), None).findings == ()
