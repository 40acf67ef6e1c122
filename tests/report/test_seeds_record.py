"""The record of the spread between seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from scalesweep.errors import ConfigError, StoreError
from scalesweep.report.collect import StudyResults, collect
from scalesweep.report.command import record_seeds, without_store
from scalesweep.report.seeds_record import SHIPPED, load_seed_record, write_seed_record
from scalesweep.report.study_report import build_report
from tests.report.synthetic import Point, build_study

SEEDS = [
    Point(score=score, text=0.9, pixels=pixels, seed=seed)
    for pixels, scores in ((32, (0.48, 0.50, 0.52)), (48, (0.60, 0.63, 0.66)))
    for seed, score in enumerate(scores, start=1)
]


def results_of(tmp_path: Path, points: list[Point]) -> StudyResults:
    study = build_study(tmp_path, points, name="quickstart_seeds", num_questions=100)
    return collect(study.store, study.plan)


def test_record_is_read_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"

    written = write_seed_record(results_of(tmp_path, SEEDS), path, "the command line")

    assert load_seed_record(path) == written
    spread = written.benchmarks["mini_vqa"].spread
    # squares 2 x 0.02^2 + 2 x 0.03^2 over 2 + 2 degrees of freedom
    assert spread.standard_deviation == pytest.approx((0.0026 / 4) ** 0.5)
    assert (spread.df, spread.num_settings) == (4, 2)
    assert written.command == "the command line"
    assert written.versions == {"torch": ["2.13.0"]}
    assert written.settings[0].label == "mini_s 32px full"
    assert written.settings[0].scores["mini_vqa"] == {"1": 0.48, "2": 0.5, "3": 0.52}
    assert all(key.startswith("judge/") for key in written.settings[0].keys.values())


def test_a_study_of_one_seed_is_judged_by_the_record_and_says_so(tmp_path: Path) -> None:
    record = write_seed_record(results_of(tmp_path, SEEDS), tmp_path / "record.json", "")
    one_seed = build_study(
        tmp_path / "other", [SEEDS[0], SEEDS[3]], name="quickstart", num_questions=100
    )

    report = build_report(collect(one_seed.store, one_seed.plan), record)

    known = report.spreads["mini_vqa"]
    assert known.spread == record.benchmarks["mini_vqa"].spread
    assert "2 of this study's 2 cells are among them" in known.source


def test_no_record_is_none(tmp_path: Path) -> None:
    assert load_seed_record(tmp_path / "none.json") is None


def test_a_damaged_record_names_the_command_that_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"schema": 1, "study": "x"}')

    with pytest.raises(StoreError, match="--seed-record FILE"):
        load_seed_record(path)


def test_the_shipped_record_can_be_read() -> None:
    record = load_seed_record()

    assert (record is not None) == SHIPPED.exists()


def test_an_unfinished_study_makes_no_record(tmp_path: Path) -> None:
    points = [*SEEDS[:2], dataclasses.replace(SEEDS[2], state="failed")]

    with pytest.raises(ConfigError, match="1 of 3 cells have no score"):
        write_seed_record(results_of(tmp_path, points), tmp_path / "record.json", "")


def test_a_study_of_one_seed_makes_no_record(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="add seed=1,2,3"):
        write_seed_record(results_of(tmp_path, SEEDS[:1]), tmp_path / "record.json", "")


def test_the_verb_says_what_it_recorded(tmp_path: Path) -> None:
    study = build_study(tmp_path, SEEDS, name="quickstart_seeds", num_questions=100)
    path = tmp_path / "record.json"

    said = record_seeds(study.store, "quickstart_seeds", path)

    assert "mini_vqa 0.0255 (4 df)" in said
    record = load_seed_record(path)
    assert record is not None
    assert record.command == without_store(study.plan.command)
    assert "private" not in record.command


def test_the_recorded_command_names_no_place_of_this_machine() -> None:
    line = "python -m scalesweep -m +sweep=quickstart_seeds store=/tmp/x 'study=a b'"

    assert without_store(line) == "python -m scalesweep -m +sweep=quickstart_seeds 'study=a b'"
