"""`report --paper table4 --predict`: nine rows, in every format, without a study."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from scalesweep.cli import run
from scalesweep.cost_model.table4 import PUBLISHED_RUNS
from scalesweep.report.paper.predicted import as_json, predicted_table4


def test_errors_are_within_what_one_constant_can_reach() -> None:
    found = as_json()

    assert found["leave_one_row_out"] <= 5.0
    assert found["worst_row"] <= 11.0
    assert found["leave_one_size_out"] <= 5.0
    assert all(abs(error) <= 10.0 for error in found["sixty_five_from_smaller"].values())


def test_an_error_is_what_the_two_times_beside_it_say() -> None:
    for row in as_json()["rows"]:
        for left_out in ("row_left_out", "size_left_out"):
            ratio = row[left_out]["node_hours"] / row["published_node_hours"]
            assert row[left_out]["error"] == pytest.approx(100 * (ratio - 1))


@pytest.mark.parametrize("format", ["terminal", "md"])
def test_all_nine_rows_are_shown(format: str) -> None:
    text = predicted_table4(format)

    for row in PUBLISHED_RUNS:
        assert row.label in text
        assert f"{row.node_hours:.2f}" in text
    assert max(map(len, text.splitlines())) <= 80 or format == "md"


def test_the_csv_has_the_numbers_of_the_json() -> None:
    rows = list(csv.DictReader(io.StringIO(predicted_table4("csv"))))

    assert [float(row["row_left_out_node_hours"]) for row in rows] == [
        row["row_left_out"]["node_hours"] for row in as_json()["rows"]
    ]


def test_the_command_needs_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", "--paper", "table4", "--predict", "--store", str(tmp_path / "none")]

    assert run([*words, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == as_json()
    assert run([*words, "--output", str(tmp_path / "table4.txt")]) == 0
    assert "65B full" in (tmp_path / "table4.txt").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--predict"], "--predict: goes with --paper table4"),
        (["--paper", "table1", "--predict"], "--predict: goes with --paper table4"),
        (["mine", "--paper", "table4", "--predict"], "leave mine out"),
        (["--paper", "table4", "--predict", "--format", "html"], "--format=html: a paper's table"),
    ],
)
def test_words_that_do_not_go_together_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", *words]) == 2
    assert message in capsys.readouterr().err
