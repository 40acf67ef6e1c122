"""Reports as text: golden files, and what other programs read.

SCALESWEEP_UPDATE_GOLDEN=1 writes the golden files anew; look at what changed before a commit.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from pathlib import Path

import pytest

from scalesweep.report.answer_text import answer
from scalesweep.report.collect import collect
from scalesweep.report.render_csv import render_csv
from scalesweep.report.render_json import render_json
from scalesweep.report.render_markdown import render_markdown
from scalesweep.report.render_terminal import render_terminal
from scalesweep.report.study_report import StudyReport, build_report
from scalesweep.report.summary import progress
from tests.report.synthetic import QUICKSTART, Point, build_study
from tests.report.test_verdicts import RECORD

GOLDEN = Path(__file__).with_name("golden")


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("SCALESWEEP_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyReport:
    study = build_study(tmp_path_factory.mktemp("store"), num_questions=400)
    return build_report(collect(study.store, study.plan), RECORD)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> StudyReport:
    points = list(QUICKSTART)
    points[2] = dataclasses.replace(points[2], state="missing")
    points[3] = dataclasses.replace(points[3], state="failed")
    study = build_study(
        tmp_path_factory.mktemp("store"), points, num_questions=40, notes=["A note of the plan."]
    )
    return build_report(collect(study.store, study.plan), None)


def test_terminal_at_80_columns(whole: StudyReport) -> None:
    text = render_terminal(whole, width=80)

    assert max(map(len, text.splitlines())) <= 80
    check_golden("terminal.txt", text)


def test_terminal_of_an_unfinished_study(unfinished: StudyReport) -> None:
    text = render_terminal(unfinished, width=80)

    assert max(map(len, text.splitlines())) <= 80
    check_golden("terminal_unfinished.txt", text)


def test_colours_add_nothing_but_colours(whole: StudyReport) -> None:
    text = render_terminal(whole, color=True)

    assert "\x1b[" in text
    assert "\x1b[" not in render_terminal(whole)


def test_markdown(whole: StudyReport) -> None:
    check_golden("report.md", render_markdown(whole))


def test_csv(whole: StudyReport) -> None:
    check_golden("report.csv", render_csv(whole))


def test_csv_has_one_row_per_cell_and_exact_shares(whole: StudyReport) -> None:
    rows = list(csv.DictReader(io.StringIO(render_csv(whole))))

    assert [row["cell"] for row in rows] == [cell.cell.name for cell in whole.results.cells]
    shares = sum(round(float(row["share_usd"]) * 1e6) for row in rows)
    assert shares == whole.results.total.total.micro_usd
    assert rows[3]["score_mini_vqa"] == "0.680000"
    assert {row["price_is_example"] for row in rows} == {"1"}


def test_csv_of_an_unfinished_study_leaves_scores_empty(unfinished: StudyReport) -> None:
    rows = list(csv.DictReader(io.StringIO(render_csv(unfinished))))

    assert [rows[i]["state"] for i in (1, 2, 3)] == ["done", "missing", "failed"]
    assert rows[3]["score_mini_vqa"] == ""
    assert "/home/" not in rows[3]["cause"]


def test_json_holds_what_the_report_says(whole: StudyReport) -> None:
    data = json.loads(render_json(whole))

    assert data["study"] == "quickstart"
    assert data["cells"][3]["scores"]["mini_vqa"]["score"] == 0.68
    assert {finding["verdict"] for finding in data["findings"]} == {"shown"}
    assert data["costs"]["prices"][0]["is_example"] is True
    assert data["seed_spread"]["mini_vqa"]["df"] == 22
    assert data["pareto_front"] == [setting.label for setting in whole.front]
    shares = sum(round(cell["costs"]["share"]["usd"] * 1e6) for cell in data["cells"])
    assert shares == round(data["costs"]["total"]["usd"] * 1e6)
    assert "/home/" not in render_json(whole)


def test_answer_names_the_cheapest_that_is_as_good(tmp_path: Path) -> None:
    points = [
        Point(score=0.500, model="mini_xs"),
        Point(score=0.595),
        Point(score=0.600, model="mini_m"),
    ]
    study = build_study(tmp_path, points, num_questions=400)

    report = build_report(collect(study.store, study.plan), RECORD)

    said = answer(report)
    assert said.startswith("mini_m 32px full scores highest, 0.600 ± 0.031, for $0.0019 a run; ")
    assert "mini_s 32px full costs 38 % less and cannot be told apart from it" in said


def test_answer_of_a_single_setting(tmp_path: Path) -> None:
    study = build_study(tmp_path, [Point(score=0.5)], num_questions=40)

    said = answer(build_report(collect(study.store, study.plan), None))

    assert said.endswith("there is no other setting to compare it with.")


def test_a_study_that_ends_before_scoring_says_so(tmp_path: Path) -> None:
    study = build_study(tmp_path, [Point(score=0.5)], num_questions=40)
    cell = study.plan.cells[0]
    kept = {role: ref for role, ref in cell.stages.items() if ref.kind in ("data", "align")}
    plan = dataclasses.replace(study.plan, cells=(dataclasses.replace(cell, stages=kept),))

    report = build_report(collect(study.store, plan), None)

    assert answer(report) == "This study ends before its checkpoints are scored."
    assert "missing" not in render_terminal(report)


def test_versions_are_those_recorded(whole: StudyReport) -> None:
    data = json.loads(render_json(whole))

    assert data["versions"] == {"torch": ["2.13.0"]}
    assert data["versions_recorded"] is True


def test_progress_counts_states(unfinished: StudyReport, whole: StudyReport) -> None:
    assert progress(whole) == ""
    assert progress(unfinished) == (
        "Not finished: 9 of 11 cells done, 1 not started or waiting, 1 failed. "
        "The same line typed again continues."
    )


def test_an_example_price_is_called_one_in_every_text(whole: StudyReport) -> None:
    for render in (render_terminal, render_markdown):
        assert "an example price" in " ".join(render(whole).split())
