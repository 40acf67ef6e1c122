"""What judges were paid, in every report and in what it compares by."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from scalesweep.report.answer_text import cost_text
from scalesweep.report.cells_table import cells_table
from scalesweep.report.collect import collect
from scalesweep.report.html import render_html
from scalesweep.report.render_csv import render_csv
from scalesweep.report.render_json import report_json
from scalesweep.report.render_markdown import render_markdown
from scalesweep.report.render_terminal import render_terminal
from scalesweep.report.study_report import StudyReport, build_report
from scalesweep.report.tables import cost_table, kinds_table
from tests.report.synthetic import Point, SyntheticStudy, build_study, write_json

SMALL = Point(score=0.5, model="mini_xs")
LARGE = Point(score=0.6)


def pay(study: SyntheticStudy, cell: int, usd: float | None) -> None:
    """Lets a cell's judge ask another model for money; None: of one that has no price."""
    judge = study.store.stage(study.plan.cells[cell].stages["judge"]).attempt(1)
    account = {
        "usd": usd,
        "unsure_usd": None if usd is None else 0.0,
        "benchmarks": {"mini_vqa": {"metered": {"replies": 8}}},
    }
    write_json(judge.path / "judging.json", account)


def report_of(study: SyntheticStudy) -> StudyReport:
    return build_report(collect(study.store, study.plan), None)


@pytest.fixture
def study(tmp_path: Path) -> SyntheticStudy:
    return build_study(tmp_path, [SMALL, LARGE], num_questions=8)


def test_a_judge_that_costs_more_than_the_model_takes_it_off_the_front(
    study: SyntheticStudy,
) -> None:
    before = report_of(study)
    small, large = before.settings
    assert before.front == (small, large)

    pay(study, 0, 0.5)
    pay(study, 1, 0.25)
    after = report_of(study)

    assert [setting.label for setting in after.front] == [large.label]
    # alone: 84.8 s of one of two devices at $0.10 per node-hour, each stage in whole millionths
    assert after.cost(after.settings[1]) == pytest.approx(84.8 / 2 / 3600 * 0.1 + 0.25, abs=5e-6)
    assert cost_text(after, after.settings[1]) == "$0.25"


def test_every_report_shows_judge_dollars_beside_the_others(study: SyntheticStudy) -> None:
    pay(study, 0, 0.5)
    pay(study, 1, 0.25)
    report = report_of(study)

    for table, judged in (
        (cost_table(report), ["0.50000", "0.25000"]),
        (cells_table(report), ["0.50000", "0.25000"]),
        (kinds_table(report), ["–", "–", "–", "–", "0.75000", "0.75000"]),
    ):
        column = [column.title for column in table.columns].index("judge $")
        texts = [row[column].text for row in table.rows]
        assert [text.rstrip("0") for text in texts] == [text.rstrip("0") for text in judged]
    text = render_terminal(report)
    assert max(map(len, text.splitlines())) <= 80
    for page in (text, render_markdown(report), render_html(report)):
        assert "judge $" in page
        assert "take alone $ and judge $ together" in " ".join(page.split())
    rows = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert [row["judge_usd"] for row in rows] == ["0.500000", "0.250000"]
    data = json.loads(json.dumps(report_json(report)))
    assert [setting["judge_usd"] for setting in data["settings"]] == [0.5, 0.25]


def test_a_judge_without_a_price_is_not_free(study: SyntheticStudy) -> None:
    pay(study, 0, 0.5)
    pay(study, 1, None)
    table = cells_table(report_of(study))

    column = [column.title for column in table.columns].index("judge $")
    assert [row[column].text.rstrip("0") for row in table.rows] == ["0.5", "–"]
    kinds = kinds_table(report_of(study))
    assert kinds.rows[-1][-1].text.rstrip("0") == "≥0.5"


def test_without_judges_there_is_no_column(study: SyntheticStudy) -> None:
    report = report_of(study)

    for table in (cost_table(report), cells_table(report), kinds_table(report)):
        assert "judge $" not in [column.title for column in table.columns]
