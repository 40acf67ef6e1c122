"""Arithmetic of figures: scales, ticks, labels that do not overlap, lanes of a timeline."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesweep.records import Outcome, Usage
from scalesweep.report.collect import collect
from scalesweep.report.figures.cost_score import cost_score_views
from scalesweep.report.figures.effects import effect_panels
from scalesweep.report.figures.loss_curves import every_curve, loss_curves, smoothed
from scalesweep.report.figures.svg import (
    Box,
    Scale,
    linear_ticks,
    log_ticks,
    place_label,
    spread_apart,
)
from scalesweep.report.figures.timeline import (
    Span,
    attempt_spans,
    lanes,
    timeline_figure,
    without_pauses,
)
from scalesweep.report.stage_results import LossPoint
from scalesweep.report.study_report import StudyReport, build_report
from tests.report.synthetic import QUICKSTART, START, Point, add_attempt, build_study


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> StudyReport:
    study = build_study(tmp_path_factory.mktemp("store"), num_questions=100)
    return build_report(collect(study.store, study.plan), None)


def test_scales() -> None:
    assert Scale(low=0, high=10, start=100, end=0)(2.5) == 75
    assert Scale(low=1, high=100, start=0, end=200, is_log=True)(10) == pytest.approx(100)
    assert Scale(low=3, high=3, start=0, end=200)(3) == 100


def test_linear_ticks_are_round() -> None:
    assert linear_ticks(0.13, 0.71) == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert linear_ticks(0, 150, most=6) == [0, 25, 50, 75, 100, 125, 150]
    assert linear_ticks(1, 1) == [1]


def test_log_ticks_are_as_dense_as_there_is_room() -> None:
    assert log_ticks(0.0007, 0.0021, most=5) == [0.0007, 0.001, 0.0015, 0.002]
    assert log_ticks(0.5, 3.2, most=8) == [0.5, 0.7, 1, 1.5, 2, 3]
    assert log_ticks(1, 1e6, most=8) == [1, 10, 100, 1e3, 1e4, 1e5, 1e6]


@settings(deadline=None)
@given(st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=11))
def test_spread_labels_keep_their_order_and_distance(wanted: list[float]) -> None:
    places = spread_apart(wanted, gap=10, low=0, high=100)

    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], places[i]))
    for before, after in itertools.pairwise(order):
        assert places[after] - places[before] >= 10 - 1e-9
    assert min(places) >= -1e-9
    assert max(places) <= 100 + 1e-9


def test_a_label_covers_no_mark_and_stays_inside() -> None:
    inside = Box(0, 0, 200, 100)
    taken = [Box(95, 45, 105, 55)]
    placed = []
    while found := place_label(
        100, 50, "some name", size=12, gap=5, taken=taken, thin=[], inside=inside
    ):
        assert found.box.within(inside)
        assert not any(found.box.overlap(other) for other in taken)
        taken.append(found.box)
        placed.append(found)

    assert len(placed) > 6
    assert not placed[0].is_far
    assert placed[-1].is_far


def test_a_label_without_room_is_left_out() -> None:
    assert (
        place_label(5, 5, "long name", size=12, gap=5, taken=[], thin=[], inside=Box(0, 0, 20, 20))
        is None
    )


def test_effects_compare_settings_that_differ_in_one_thing(report: StudyReport) -> None:
    panels = {panel.axis: [name for name, _ in panel.rows] for panel in effect_panels(report)}

    assert panels == {
        "Model size": ["mini_xs", "mini_s", "mini_m"],
        "Resolution": ["32px", "48px"],
        "Data mix": ["mini_text", "mini"],
        "Tuning method": ["full", "lora", "qlora"],
        "Hyperparameters": ["usual", "lr=0.0015", "r64 lr=0.0015", "a1"],
        "Blind baseline": ["sighted", "blind"],
    }


def test_loss_curves_are_of_adapters_and_of_full_tuning_beside_them(report: StudyReport) -> None:
    assert [curve.name for curve in loss_curves(report)] == [
        "s 32px full",
        "s 32px lora",
        "s 32px qlora",
        "s 32px lora lr=0.0015",
        "s 32px lora r64 lr=0.0015",
        "s 32px lora a1",
    ]


def test_smoothing_takes_means_of_a_fifteenth() -> None:
    points = [LossPoint(step=i + 1, loss=float(i % 2)) for i in range(30)]

    assert smoothed(points)[0] == (1.5, 0.5)
    assert len(smoothed(points)) == 29


def test_every_setting_has_a_dot_with_its_interval(report: StudyReport) -> None:
    views = cost_score_views(report)

    assert [(view.unit, view.scale) for view in views] == [
        ("dollars", "log"),
        ("dollars", "linear"),
        ("node-hours", "log"),
        ("node-hours", "linear"),
    ]
    for figure in (figure for view in views for figure in view.figures):
        assert figure.count('class="dot ') == len(QUICKSTART)
        assert figure.count("<polygon") == 6  # adapters and the blind one: told by shape too
        assert figure.count("whisker") == 3 * len(QUICKSTART)
        assert "mini_s 48px full\nscore 0.680, 95 %" in figure


def test_all_cells_have_a_loss_curve_and_those_compared_are_shown(report: StudyReport) -> None:
    curves = every_curve(report)

    assert len(curves) == len(QUICKSTART)
    assert [c.name for c in curves if c.is_shown] == [c.name for c in loss_curves(report)]


def test_an_attempt_shows_the_work_it_lost(tmp_path: Path) -> None:
    study = build_study(tmp_path, [Point(score=0.5, state="missing")], num_questions=8)
    tune = study.plan.cells[0].stages["tune"]
    # 40 steps in 20 s after 2 s of start-up; the next begins at step 30: a quarter is lost
    times = [(0, 40, 22.0, Outcome.killed, 0.0), (30, 70, 37.0, Outcome.done, 50.0)]
    for first, steps, wall, outcome, at in times:
        usage = Usage(
            outcome=outcome,
            started_at=START + at,
            wall_s=wall,
            startup_s=2.0,
            first_step=first,
            steps=steps,
        )
        add_attempt(study, tune, usage)
    report = build_report(collect(study.store, study.plan), None)

    killed, resumed = [s for s in attempt_spans(report) if s.kind == "tune"]

    assert (killed.lost_s, resumed.lost_s) == (5.0, 0.0)
    assert killed.ended_badly
    assert "5.0 s of work lost" in killed.words
    assert 'class="hatch"' in timeline_figure(report)[0]


def span(start: float, end: float) -> Span:
    return Span(start=start, end=end, kind="tune", label="", words="", ended_badly=False)


def test_lanes_are_as_few_as_ran_at_once() -> None:
    spans = [span(0, 10), span(1, 4), span(4, 6), span(10, 12), span(11, 13)]

    assert lanes(spans) == [0, 1, 1, 0, 1]


def test_a_long_pause_is_shortened() -> None:
    spans = [span(100, 150), span(120, 160), span(5000, 5040), span(5041, 5060)]

    moved, pauses = without_pauses(spans)

    # busy: 60 + 40 + 19 s, so a pause is drawn 4 % of that, 4.76 s, long
    assert [round(s.start, 2) for s in moved] == [0, 20, 64.76, 105.76]
    assert [round(p.seconds) for p in pauses] == [4840]
    assert pauses[0].at == pytest.approx(60 + 4.76 / 2)


def test_timeline_holds_every_attempt_once(report: StudyReport) -> None:
    attempts = sum(len(stage.attempts) for stage in report.results.stages.values())

    assert len(attempt_spans(report)) == attempts
    assert max(lanes(attempt_spans(report))) == 1  # the synthetic study has two workers


def test_nothing_scored_has_no_figure(tmp_path: Path) -> None:
    study = build_study(tmp_path, QUICKSTART[:2], num_questions=8)
    for ref in study.plan.by_ref:
        if ref.kind == "judge":
            study.store.stage(ref).done_file.unlink()

    made = build_report(collect(study.store, study.plan), None)

    assert cost_score_views(made) == []
    assert effect_panels(made) == []
