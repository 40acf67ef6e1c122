"""Which pairs are told apart, against calculation by hand."""

from __future__ import annotations

import json
import math
import random
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesweep.report import study_report
from scalesweep.report.answer_text import pairs_text
from scalesweep.report.collect import collect
from scalesweep.report.distinguishable import holm
from scalesweep.report.pairs_table import pairs_table, ranges
from scalesweep.report.render_json import render_json
from scalesweep.report.statistics import Contrast, Estimate, Term, contrast, p_value
from scalesweep.report.study_report import StudyReport, build_report
from tests.report.synthetic import Point, build_study
from tests.report.test_verdicts import RECORD

POINTS = [
    Point(score=0.500, model="mini_xs"),
    Point(score=0.510),
    Point(score=0.800, model="mini_m"),
    Point(score=0.170, blind=True),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> StudyReport:
    study = build_study(tmp_path_factory.mktemp("store"), POINTS, num_questions=400)
    return build_report(collect(study.store, study.plan), RECORD)


def test_holm_multiplies_the_smallest_p_by_all_tests_and_the_next_by_one_fewer() -> None:
    # In order 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1, which may not be below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1)))
def test_holm_never_tells_apart_what_a_test_by_itself_does_not(p_values: list[float]) -> None:
    corrected = holm(p_values)

    assert all(raw <= p <= 1 for raw, p in zip(p_values, corrected, strict=True))
    by_raw = [p for _, p in sorted(zip(p_values, corrected, strict=True))]
    assert by_raw == sorted(by_raw)
    # Nor less than Bonferroni's correction does.
    bonferroni = [min(1.0, raw * len(p_values)) for raw in p_values]
    assert all(p <= most for p, most in zip(corrected, bonferroni, strict=True))


def test_p_is_two_sided_students() -> None:
    estimate = Estimate(value=-2.0, standard_error=1.0, df=2, low=0, high=0)
    found = Contrast(
        estimate=estimate,
        num_questions=500,
        seed_variance=0,
        question_variance=1,
        num_differing=300,
    )

    # For two degrees of freedom P(|T| > t) = 1 - t / sqrt(2 + t^2).
    assert p_value(found) == pytest.approx(1 - 2 / math.sqrt(6))


@pytest.mark.parametrize(
    ("num_right", "p"), [(0, 1.0), (1, 1.0), (5, 0.0625), (6, 0.03125)], ids=str
)
def test_a_handful_of_questions_tells_nothing_apart_however_alike(num_right: int, p: float) -> None:
    right = Term(weight=1.0, items={str(i): 1.0 for i in range(max(num_right, 2))}, num_seeds=1)
    wrong = Term(
        weight=-1.0,
        items={name: float(int(name) >= num_right) for name in right.items},
        num_seeds=1,
    )

    assert p_value(contrast([right, wrong], spread=None)) == p


def test_pairs_are_of_sighted_settings_the_better_one_first(report: StudyReport) -> None:
    found = [(pair.one.label, pair.other.label) for pair in report.pairs]

    assert found == [
        ("mini_m 32px full", "mini_s 32px full"),
        ("mini_m 32px full", "mini_xs 32px full"),
        ("mini_s 32px full", "mini_xs 32px full"),
    ]
    assert [pair.is_told_apart for pair in report.pairs] == [True, True, False]
    assert [pair.corrected_p for pair in report.pairs] == holm([pair.p for pair in report.pairs])


def test_a_pair_seen_from_the_other_side_has_the_opposite_difference(report: StudyReport) -> None:
    best, middle = (report.pairs[0].one, report.pairs[0].other)

    there, back = report.pair(best, middle), report.pair(middle, best)

    assert there is not None
    assert back is not None
    assert there.difference.value == pytest.approx(0.29)
    assert (back.one, back.other) == (middle, best)
    assert back.difference.value == -there.difference.value
    assert (back.difference.low, back.difference.high) == (
        -there.difference.high,
        -there.difference.low,
    )
    assert back.p == there.p
    blind = next(setting for setting in report.settings if setting.is_blind)
    assert report.pair(best, blind) is None


def test_of_equal_settings_hardly_a_study_tells_any_apart() -> None:
    draw = random.Random(7)
    num_studies, num_settings, num_questions = 100, 5, 40
    by_themselves = together = 0
    for _ in range(num_studies):
        hard = [draw.random() for _ in range(num_questions)]
        answers = [
            {str(i): float(draw.random() < share) for i, share in enumerate(hard)}
            for _ in range(num_settings)
        ]
        p_values = [
            p_value(
                contrast(
                    [
                        Term(weight=1.0, items=one, num_seeds=1),
                        Term(weight=-1.0, items=other, num_seeds=1),
                    ],
                    spread=None,
                )
            )
            for one, other in combinations(answers, 2)
        ]
        by_themselves += min(p_values) <= 0.05
        together += min(holm(p_values)) <= 0.05

    # Of 10 pairs one comes out by luck in every fifth study or more; corrected, in 5 % at most
    # (and in 9 of 100 studies only by a luck of its own of two standard errors).
    assert by_themselves > 0.15 * num_studies
    assert together <= 0.09 * num_studies


def test_the_table_names_each_settings_equals_by_their_places(report: StudyReport) -> None:
    table = pairs_table(report)

    assert table is not None
    assert [(row[0].text, row[4].text) for row in table.rows] == [
        ("mini_m 32px full", "told apart from all others"),
        ("mini_s 32px full", "3"),
        ("mini_xs 32px full", "2"),
    ]
    assert pairs_text(report).startswith("Of 3 pairs of settings 2 are told apart")


def test_json_has_every_pair_with_both_p_values(report: StudyReport) -> None:
    rows = json.loads(render_json(report))["pairs"]

    assert [(row["setting"], row["other"]) for row in rows] == [
        (pair.one.label, pair.other.label) for pair in report.pairs
    ]
    assert all(row["p"] <= row["corrected_p"] for row in rows)
    assert rows[0]["difference"] == pytest.approx(0.29)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([3, 1, 2], "1–3"), ([1, 2], "1, 2"), ([9, 5, 4, 6, 1], "1, 4–6, 9"), ([], "")],
)
def test_places_are_said_in_runs(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


def test_holm_corrects_for_tests_that_were_not_made() -> None:
    # 0.001 x 10 and 0.02 x 9
    assert holm([0.02, 0.001], num_tests=10) == pytest.approx([0.18, 0.01])


def test_of_very_many_settings_the_best_and_the_front_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = build_study(tmp_path, num_questions=200)
    results = collect(study.store, study.plan)
    whole = build_report(results, RECORD)
    monkeypatch.setattr(study_report, "MOST_PAIRED", 3)
    part = build_report(results, RECORD)
    count = len(part.by_score)
    left_out = [s for s in part.by_score if s not in part.paired]

    assert count > len(part.paired) > 3
    assert set(map(id, part.front)) <= set(map(id, part.paired))
    assert left_out
    assert len(part.pairs) == len(part.paired) * (len(part.paired) - 1) // 2
    # A pair that is looked at by itself: as hard as the hardest of all that there could be.
    one, other = part.by_score[0], left_out[-1]
    found = part.pair(one, other)
    assert found is not None
    assert found.corrected_p == pytest.approx(min(1.0, found.p * count * (count - 1) / 2))
    by_label = {(p.one.label, p.other.label): p.corrected_p for p in whole.pairs}
    for pair in part.pairs:  # never less strict than with all pairs tested
        assert pair.corrected_p >= by_label[pair.one.label, pair.other.label] - 1e-12
    table = pairs_table(part)
    assert table is not None
    assert len(table.rows) == len(part.paired)
    assert f"{len(left_out)} others are not compared here" in table.notes[-1]
