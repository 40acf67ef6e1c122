"""What the ± of a score holds: questions, seeds and judge runs, each by itself."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from scalesweep.report.collect import collect
from scalesweep.report.render_json import report_json
from scalesweep.report.statistics import Term, VariancePart, contrast
from scalesweep.report.study_report import StudyReport, build_report
from scalesweep.report.summary import error_note
from scalesweep.report.tables import cost_table
from tests.report.synthetic import Point, build_study
from tests.report.test_verdicts import RECORD

RUNS = {1: (72.0, 74.0), 2: (70.0, 76.0)}


def judged_report(
    root: Path, runs: Mapping[int, tuple[float, ...]], *, known_seeds: bool = True
) -> StudyReport:
    """One setting, a cell for each seed, judged in these runs (percent)."""
    study = build_study(root, [Point(score=0.5, seed=seed) for seed in runs], num_questions=40)
    for cell in study.plan.cells:
        stage = study.store.stage(cell.stages["judge"])
        path = stage.attempt(1).output / "scores.json"
        scores = json.loads(path.read_text())
        scores["benchmarks"]["mini_vqa"].update(
            judge_model="gpt-4-0314", runs=runs[cell.config["seed"]]
        )
        path.write_text(json.dumps(scores))
    return build_report(collect(study.store, study.plan), RECORD if known_seeds else None)


def test_judge_runs_add_the_variance_of_their_mean(tmp_path: Path) -> None:
    report = judged_report(tmp_path, RUNS)

    parts = report.error_parts(report.settings[0])

    # Of the means of two runs: 2 / 2 and 18 / 2 percent squared; of the mean of two cells: / 4.
    judging = (1e-4 + 9e-4) / 4
    assert report.settings[0].judging("mini_vqa") == VariancePart(
        variance=pytest.approx(judging), df=2
    )
    assert parts is not None
    seeds = report.spread("mini_vqa")
    assert seeds is not None
    expected = [0.5 * 0.5 / 40, seeds.standard_deviation**2 / 2, judging]
    assert list(parts.by_source.values()) == pytest.approx(expected)
    assert report.standard_error(report.settings[0]) == pytest.approx(math.sqrt(sum(expected)))


def test_judge_runs_widen_a_difference() -> None:
    items = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}
    one = Term(weight=1.0, items=items, num_seeds=1)
    other = Term(weight=-1.0, items=dict.fromkeys(items, 0.0), num_seeds=1)
    judged = dataclasses.replace(one, judging=VariancePart(variance=0.04, df=2))

    found = contrast([judged, other], spread=None)

    # differences 1 0 0 0: variance of their mean 1/16
    assert found.judge_variance == pytest.approx(0.04)
    assert found.estimate.standard_error == pytest.approx(math.sqrt(1 / 16 + 0.04))
    assert found.estimate.df == pytest.approx((1 / 16 + 0.04) ** 2 / ((1 / 16) ** 2 / 3 + 0.0008))


@pytest.mark.parametrize(
    ("runs", "known_seeds", "said"),
    [
        pytest.param(RUNS, True, "of the questions, the seeds and the judge runs.", id="all three"),
        pytest.param({1: (72.0, 74.0)}, False, "of the questions and the judge runs.", id="a seed"),
        pytest.param({1: (72.0,)}, False, "the spread between judge runs is not known", id="a run"),
        pytest.param({1: (72.0,)}, False, "of the questions. The spread between seeds", id="none"),
    ],
)
def test_the_report_says_what_an_error_holds(
    tmp_path: Path, runs: Mapping[int, tuple[float, ...]], known_seeds: bool, said: str
) -> None:
    assert said in error_note(judged_report(tmp_path, runs, known_seeds=known_seeds))


def test_json_gives_each_source_and_null_for_what_is_not_known(tmp_path: Path) -> None:
    report = judged_report(tmp_path, {1: (72.0,)}, known_seeds=False)

    (setting,) = report_json(report)["settings"]

    assert setting["error_sources"] == {
        "questions": pytest.approx(math.sqrt(0.25 / 40)),
        "seeds": None,
        "judge_runs": None,
    }


def test_a_score_names_the_parts_of_its_error_to_who_points_at_it(tmp_path: Path) -> None:
    report = judged_report(tmp_path, RUNS)

    hint = cost_table(report).rows[0][1].hint

    # sqrt(0.25 / 40), 0.019 / sqrt(2), sqrt(2.5e-4)
    assert hint.endswith("± of questions 0.079, seeds 0.013, judge runs 0.016")
