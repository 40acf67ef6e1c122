"""The answer at the top of a report, its tables, and the same as numbers."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest

from scalesweep.cli import run
from scalesweep.errors import ConfigError
from scalesweep.report.answer_text import answer_sentences
from scalesweep.report.collect import collect
from scalesweep.report.command import report as report_text
from scalesweep.report.study_report import StudyReport, build_report
from tests.report.synthetic import Point, SyntheticStudy, build_study
from tests.report.test_verdicts import RECORD

POINTS = [
    Point(score=0.500, model="mini_xs"),
    Point(score=0.510),
    Point(score=0.800, model="mini_m"),
]
ALIKE = [dataclasses.replace(point, score=0.5 + 0.01 * i) for i, point in enumerate(POINTS)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SyntheticStudy:
    return build_study(tmp_path_factory.mktemp("store"), POINTS, num_questions=400)


@pytest.fixture(scope="module")
def report(study: SyntheticStudy) -> StudyReport:
    return build_report(collect(study.store, study.plan), RECORD)


def test_a_point_is_priced_between_settings_that_are_told_apart(report: StudyReport) -> None:
    cheap, _, dear = report.front
    (step,) = report.shown_steps
    gain = report.difference(dear, cheap)

    assert gain is not None
    assert gain.estimate.value == pytest.approx(0.30)
    assert step.per_point is not None
    each = (report.cost(dear) - report.cost(cheap)) / 30
    assert step.per_point.value == pytest.approx(each)
    assert any(
        sentence.startswith(f"Along the Pareto front a point of score (0.01) costs ${each:.6f} ($")
        and sentence.endswith("95 %) from mini_xs 32px full to mini_m 32px full.")
        for sentence in answer_sentences(report)
    )


def test_settings_that_cannot_be_compared_are_not_said_to_score_lower(report: StudyReport) -> None:
    apart = dataclasses.replace(report)
    apart.__dict__["pairs"] = ()

    assert answer_sentences(apart)[0].endswith(
        " a run; too few questions were answered by both to compare it with mini_xs 32px full and "
        "mini_s 32px full, cheaper."
    )


def test_no_point_has_a_price_where_all_settings_may_be_equal(tmp_path: Path) -> None:
    study = build_study(tmp_path, ALIKE, num_questions=100)

    text = report_text(study.store, None, format="md")

    assert "No step along the Pareto front (3 settings) gains more than chance explains" in text
    assert text.count("| not distinguishable (≥ $") == 2


def test_a_setting_that_only_a_correction_keeps_is_called_not_surely_worse(
    tmp_path: Path,
) -> None:
    points = [
        Point(score=0.520, model="mini_xs"),
        Point(score=0.600),
        *(Point(score=0.3, method="lora", rank=rank, lr=0.01) for rank in (1, 2, 4, 16)),
    ]
    study = build_study(tmp_path, points, num_questions=400)
    report = build_report(collect(study.store, study.plan), RECORD)
    best, cheap = report.settings[1], report.settings[0]
    pair = report.pair(best, cheap)
    assert pair is not None
    assert pair.p < 0.05 < pair.corrected_p

    said = answer_sentences(report)[0]

    assert "mini_xs 32px full costs" in said
    assert "is not surely worse: difference 0.080" in said
    assert f"p is {pair.corrected_p:.2f} when all 15 pairs are judged together" in said


def test_every_format_says_the_best_under_a_ceiling(
    study: SyntheticStudy, report: StudyReport, tmp_path: Path
) -> None:
    _, middle, dear = report.front
    under = f"{(report.cost(middle) + report.cost(dear)) / 2:.6f}"

    for format in ("terminal", "md", "json", "html"):
        file = tmp_path / format
        report_text(study.store, None, format=format, under=under, output=file)
        text = " ".join(file.read_text().split()).replace("<b>", "").replace("</b>", "")
        assert "of 2 settings: mini_s 32px full scores highest, 0.510" in text
        assert "cheaper and not told apart from it: mini_xs 32px full ($0.0" in text
    rows = csv.DictReader(io.StringIO(report_text(study.store, None, format="csv", under=under)))
    assert [row["under_ceiling"] for row in rows] == ["not told apart", "best", ""]
    found = json.loads((tmp_path / "json").read_text())["best_under"]
    assert found["best"]["cost"] == report.cost(middle)
    assert [alike["setting"] for alike in found["cheaper_and_not_told_apart"]] == [
        "mini_xs 32px full"
    ]


def test_a_ceiling_says_what_is_not_finished(tmp_path: Path) -> None:
    points = [POINTS[0], dataclasses.replace(POINTS[1], state="failed"), POINTS[2]]
    study = build_study(tmp_path, points, num_questions=40)

    text = report_text(study.store, None, format="md", under="0.0000001")

    assert "Under $0.00000010 a run: nothing; the cheapest, mini_xs 32px full, costs $0." in text
    assert "1 setting without a score or a whole cost is not among them." in text


def test_the_front_comes_as_a_table_of_numbers(study: SyntheticStudy, report: StudyReport) -> None:
    rows = list(
        csv.DictReader(io.StringIO(report_text(study.store, None, format="csv", table="front")))
    )
    data = json.loads(report_text(study.store, None, format="json"))["front"]

    assert [row["setting"] for row in rows] == [setting.label for setting in report.front]
    assert [row["is_told_apart"] for row in rows] == ["", "0", "1"]
    assert [row["cost_per_point"] == "" for row in rows] == [True, True, False]
    assert float(rows[2]["extra_cost"]) == pytest.approx(
        report.cost(report.front[2]) - report.cost(report.front[1])
    )
    assert [str(row["gain"] or "") for row in data] == [row["gain"] for row in rows]


def test_one_table_fits_eighty_columns_and_says_what_its_errors_hold(
    study: SyntheticStudy,
) -> None:
    text = report_text(study.store, None, table="front", width=80)

    assert max(map(len, text.splitlines())) <= 80
    assert "± is one standard error, of the questions and the seeds" in " ".join(text.split())


def test_what_is_no_table_or_has_nothing_to_show_is_refused(tmp_path: Path) -> None:
    study = build_study(tmp_path, [POINTS[0]], num_questions=40)

    with pytest.raises(ConfigError, match="--table=best: choose one of front, pairs, sizes"):
        report_text(study.store, None, table="best")
    with pytest.raises(ConfigError, match="--table=front: nothing to show, fewer than two"):
        report_text(study.store, None, table="front")
    with pytest.raises(ConfigError, match="--format=html: one table comes as terminal, md, csv"):
        report_text(study.store, None, table="front", format="html")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--paper", "table4", "--under", "3"], "--paper: is one table by itself; leave --under"),
        (["--table", "front", "--under", "3"], "--table: is one table by itself; leave --under"),
        (["--ledger", "--size", "65b"], "--ledger: is a report of its own; leave --size out"),
        (["--under", "cheap"], "--under=cheap: takes a number above 0"),
        (["--table", "best"], "--table=best: choose one of front, pairs, sizes"),
    ],
)
def test_words_that_mean_nothing_together_are_refused_by_the_command(
    study: SyntheticStudy, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", "--store", str(study.store.root), *words]) == 2
    assert message in capsys.readouterr().err
