"""Larger sizes from smaller ones, against calculation by hand and the paper's own numbers."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesweep.cost_model.table4 import PUBLISHED_RUNS
from scalesweep.errors import ConfigError
from scalesweep.records import Predicted
from scalesweep.report.answer_text import sizes_text
from scalesweep.report.collect import collect
from scalesweep.report.command import report as report_text
from scalesweep.report.extrapolation import (
    IN_PROPORTION,
    WITH_FIXED_PART,
    extrapolated_cost,
    extrapolated_score,
)
from scalesweep.report.size_groups import (
    FLOPS,
    PARAMETERS,
    parsed_size,
    size_extrapolations,
    size_groups,
)
from scalesweep.report.study_report import StudyReport, build_report
from scalesweep.specs import Method
from tests.report.synthetic import Point, SyntheticStudy, build_study
from tests.report.test_verdicts import RECORD

T_1_DF = 12.706204736
"""Student's t, 97.5 %, one degree of freedom: tan(0.475 pi)."""

SIZES = [
    Point(score=0.40, model="mini_xs"),
    Point(score=0.50),
    Point(score=0.55, model="mini_m"),
]


def made(study: SyntheticStudy, **changes: float) -> StudyReport:
    report = build_report(collect(study.store, study.plan), RECORD)
    return dataclasses.replace(report, **changes)  # type: ignore[arg-type]


def predicted(flops: float) -> Predicted:
    return Predicted(
        startup_s=1, work_s=1, flops=flops, device_bytes=0, host_bytes=0, node_hours=1, usd=1
    )


def test_a_score_is_a_line_in_log_parameters_with_the_interval_of_one_more() -> None:
    sizes = [(math.exp(0), 1.0), (math.exp(1), 3.0), (math.exp(2), 4.0)]

    found = extrapolated_score(sizes, math.exp(3), known_error=0.1, measured=20.0)

    # Slope 3/2 through the mean (1, 8/3). Residuals -1/6, 1/3, -1/6: scatter sqrt(1/6), one df.
    assert found.value == pytest.approx(8 / 3 + 3)
    assert found.interval is not None
    error = math.sqrt(1 / 6) * math.sqrt(1 + 1 / 3 + 2**2 / 2)
    assert found.interval.standard_error == pytest.approx(error)
    assert found.interval.high == pytest.approx(8 / 3 + 3 + T_1_DF * error)
    assert math.tan(0.475 * math.pi) == pytest.approx(T_1_DF)
    assert found.is_inside is False


def test_scatter_by_luck_smaller_than_the_known_error_is_not_believed() -> None:
    on_a_line = [(math.exp(i), 0.1 * i) for i in range(4)]

    found = extrapolated_score(on_a_line, math.exp(4), known_error=0.02)

    assert found.value == pytest.approx(0.4)
    assert found.interval is not None
    # x - mean = 2.5; sum of squares of -1.5 -0.5 0.5 1.5 is 5
    assert found.interval.standard_error == pytest.approx(0.02 * math.sqrt(1.25 + 6.25 / 5))
    assert (found.interval.df, found.is_inside) == (2, None)


def test_two_sizes_give_a_score_but_no_interval() -> None:
    found = extrapolated_score([(10.0, 0.4), (100.0, 0.5)], 1000.0, known_error=0.1, measured=0.6)

    assert found.value == pytest.approx(0.6)
    assert (found.interval, found.is_inside) == (None, None)
    assert found.why_no_interval == "two sizes fit any line"


def test_a_cost_is_a_fixed_part_and_one_in_proportion_by_relative_errors() -> None:
    sizes = [(1.0, 2.0), (2.0, 2.5), (4.0, 5.0)]

    found = extrapolated_cost(sizes, 10.0, measured=10.0)

    # Least squares of 1 = fixed u + rate v with u = 1 / cost, v = work / cost, by Cramer's rule.
    uu, uv, vv, u, v = 0.45, 0.73, 1.53, 1.1, 2.1
    det = uu * vv - uv**2
    fixed, rate = (vv * u - uv * v) / det, (uu * v - uv * u) / det
    assert (fixed, rate) == (pytest.approx(0.964, abs=1e-3), pytest.approx(0.9126, abs=1e-4))
    assert found.form == WITH_FIXED_PART
    assert found.value == pytest.approx(fixed + 10 * rate)
    scatter = sum((1 - fixed / cost - rate * work / cost) ** 2 for work, cost in sizes)  # 1 df
    error = math.sqrt(scatter * (found.value**2 + (vv - 20 * uv + 100 * uu) / det))
    assert found.interval is not None
    assert found.interval.high == pytest.approx(found.value + T_1_DF * error)
    assert found.interval.low == 0.0  # it would be below zero, which no cost is


def test_two_sizes_give_a_cost_but_no_interval() -> None:
    found = extrapolated_cost([(1.0, 3.0), (2.0, 4.0)], 10.0)

    assert found.value == pytest.approx(12.0)  # 2 + 1 x work
    assert (found.form, found.interval) == (WITH_FIXED_PART, None)


def test_a_fixed_part_below_zero_is_none_and_the_rest_goes_by_logarithms() -> None:
    found = extrapolated_cost([(1.0, 2.0), (2.0, 8.0)], 10.0, measured=30.0)

    assert found.form == IN_PROPORTION
    # Cost per work 2 and 4: by logarithms 2^1.5 on average, standard deviation ln 2 / sqrt 2
    assert found.value == pytest.approx(10 * 2**1.5)
    assert found.interval is not None
    half = T_1_DF * math.log(2) / math.sqrt(2) * math.sqrt(1.5)
    assert found.interval.high == pytest.approx(10 * 2**1.5 * math.exp(half))
    assert found.interval.low == pytest.approx(10 * 2**1.5 * math.exp(-half))
    assert found.is_inside is True
    assert extrapolated_cost([(1.0, 2.0)], 10.0).why_no_interval == "one size has no scatter"


@given(
    st.lists(st.integers(1, 100), min_size=2, max_size=5, unique=True),
    st.floats(0.01, 100),
    st.floats(0.1, 10),
)
def test_a_cost_in_proportion_to_work_is_found_in_any_unit(
    work: list[int], per_work: float, unit: float
) -> None:
    sizes = [(w * unit, w * per_work) for w in work]

    found = extrapolated_cost(sizes, 1000.0 * unit)

    assert found.value == pytest.approx(1000.0 * per_work, rel=1e-4)
    if found.interval is not None:
        assert found.interval.low <= found.value <= found.interval.high


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draw = random.Random(3)
    inside = costs_inside = 0
    for _ in range(400):
        costs = [(w, (1 + w) * math.exp(draw.gauss(0, 0.03))) for w in (1.0, 2.0, 5.0, 12.0)]
        cost = extrapolated_cost(costs[:3], 12.0, measured=costs[3][1])
        costs_inside += bool(cost.is_inside)
        sizes = [(math.exp(x), 0.1 * x + draw.gauss(0, 0.02)) for x in (0, 0.7, 1.6, 2.1)]
        truth = 0.1 * 3 + draw.gauss(0, 0.02)
        found = extrapolated_score(sizes, math.exp(3), known_error=0.0, measured=truth)
        inside += bool(found.is_inside)

    luck = 3 * math.sqrt(400 * 0.95 * 0.05)
    assert abs(inside - 0.95 * 400) <= luck
    assert abs(costs_inside - 0.95 * 400) <= luck


def test_the_papers_65b_from_its_smaller_full_runs() -> None:
    runs = [run for run in PUBLISHED_RUNS if run.method is Method.full]
    *smaller, largest = runs

    cost = extrapolated_cost(
        [(run.flops, run.node_hours) for run in smaller], largest.flops, measured=13.5
    )

    assert [run.size for run in runs] == ["7B", "13B", "33B", "65B"]
    # 16 % too few: 65B was full tuned at a lower efficiency than any smaller size.
    assert cost.value == pytest.approx(13.5 * 0.84, rel=0.01)
    assert cost.is_inside is True
    sizes = [(6.74e9, 65.9), (13.02e9, 70.1), (32.5e9, 72.0)]
    score = extrapolated_score(sizes, 65.2e9, known_error=0.5, measured=72.3)
    assert score.value == pytest.approx(75.1, abs=0.1)  # the gain shrinks with size, a line's not
    assert score.is_inside is True


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SyntheticStudy:
    return build_study(tmp_path_factory.mktemp("store"), SIZES, num_questions=200)


def test_the_largest_of_a_study_is_graded_by_what_it_scored_and_cost(study: SyntheticStudy) -> None:
    report = made(study)

    (found,) = size_extrapolations(report)

    sizes = [setting.cells[0].cell.num_params for setting in report.settings]
    slope = 0.10 / math.log(sizes[1] / sizes[0])
    assert found.target == "mini_m 32px full"
    assert found.smaller_models == ["mini_xs", "mini_s"]
    assert found.score.value == pytest.approx(0.5 + slope * math.log(sizes[2] / sizes[1]))
    assert found.score.measured == pytest.approx(0.55)
    assert found.cost_basis == PARAMETERS
    assert found.cost is not None
    rates = [report.settings[i].mean_cost("tune").usd / sizes[i] for i in (0, 1)]
    assert found.cost.value == pytest.approx(sizes[2] * math.sqrt(rates[0] * rates[1]))
    text = sizes_text(report)
    assert "By mini_xs and mini_s alone, mini_m 32px full would score 0." in text
    assert "(no interval: two sizes fit any line)" in text
    assert "; measured: 0.550 and $0.0" in text


def test_cost_goes_by_flops_where_all_tune_stages_say_theirs(study: SyntheticStudy) -> None:
    flops = {"mini_xs": 1e12, "mini_s": 4e12, "mini_m": 9e12}
    tuned = {cell.stages["tune"]: flops[str(cell.point["model"])] for cell in study.plan.cells}
    stages = tuple(
        dataclasses.replace(
            stage,
            execution=dataclasses.replace(
                stage.execution, predicted=predicted(tuned[stage.spec.ref])
            ),
        )
        if stage.spec.ref in tuned
        else stage
        for stage in study.plan.stages
    )
    report = build_report(
        collect(study.store, dataclasses.replace(study.plan, stages=stages)), RECORD
    )

    (found,) = size_extrapolations(report)

    one, other = (report.settings[i].mean_cost("tune").usd for i in (0, 1))
    assert found.cost_basis == FLOPS
    assert found.cost is not None
    assert found.cost.value == pytest.approx(other + (other - one) * (9 - 4) / (4 - 1))


def test_a_size_that_no_cell_has_is_foretold_from_all_smaller_ones(study: SyntheticStudy) -> None:
    report = made(study, target_size=2e6)

    _, asked = size_extrapolations(report)

    assert asked.target == "2.00 M 32px full"
    assert asked.smaller_models == ["mini_xs", "mini_s", "mini_m"]
    assert (asked.score.measured, asked.score.interval is not None) == (None, True)
    assert sizes_text(report).startswith("By mini_xs, mini_s and mini_m alone, 2.00 M 32px full")
    too_small = made(study, target_size=1e5)
    assert "Nothing here foretells 100 k parameters" in sizes_text(too_small)


def test_what_differs_in_more_than_size_or_sees_nothing_is_no_group(tmp_path: Path) -> None:
    points = [
        *SIZES[:2],
        dataclasses.replace(SIZES[2], pixels=48),
        dataclasses.replace(SIZES[2], method="lora"),
        dataclasses.replace(SIZES[2], blind=True),
    ]
    report = made(build_study(tmp_path, points, num_questions=40))

    (group,) = size_groups(report.settings)

    assert [setting.label for setting in group] == ["mini_xs 32px full", "mini_s 32px full"]
    assert size_extrapolations(report) == ()
    assert "that takes three sizes that differ in nothing else" in sizes_text(report)


def test_a_study_of_one_size_says_nothing_of_sizes(tmp_path: Path) -> None:
    report = made(build_study(tmp_path, SIZES[:1], num_questions=40))

    assert sizes_text(report) == ""
    assert "foretells 65.0 B" in sizes_text(dataclasses.replace(report, target_size=65e9))


def test_a_largest_size_that_is_not_scored_yet_is_foretold(tmp_path: Path) -> None:
    points = [*SIZES[:2], dataclasses.replace(SIZES[2], state="missing")]

    (found,) = size_extrapolations(made(build_study(tmp_path, points, num_questions=40)))

    assert found.target == "mini_m 32px full"
    assert found.score.measured is None
    assert found.cost is not None
    assert found.cost.measured is None


def test_the_table_and_the_numbers_say_the_same(study: SyntheticStudy) -> None:
    text = report_text(study.store, None, table="sizes", size="2m", width=80)
    rows = json.loads(report_text(study.store, None, table="sizes", size="2m", format="json"))
    lines = list(
        csv.DictReader(
            io.StringIO(report_text(study.store, None, table="sizes", size="2m", format="csv"))
        )
    )

    assert max(map(len, text.splitlines())) <= 80
    assert [row["of"] for row in rows["sizes"]] == ["score", "tune_usd"] * 2
    assert [row["is_inside"] for row in rows["sizes"]] == [None, True, None, None]
    assert [line["setting"] for line in lines] == [row["setting"] for row in rows["sizes"]]
    assert f"{rows['sizes'][0]['expected']:.3f}" in text


@pytest.mark.parametrize(
    ("text", "size"), [("65b", 65e9), ("65.2B", 65.2e9), ("700m", 7e8), ("1.3e9", 1.3e9)]
)
def test_sizes_are_read(text: str, size: float) -> None:
    assert parsed_size(text) == pytest.approx(size)


@pytest.mark.parametrize("text", ["big", "0b", "-7b", "7t", "1e400", "9999999b"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"--size={text}: takes a number of parameters"):
        parsed_size(text)
