"""Errors of scores and differences, against calculation by hand."""

from __future__ import annotations

import math
import random
import statistics as python_statistics

import pytest

from scalesweep.report.statistics import (
    Spread,
    Term,
    VariancePart,
    block_mean,
    contrast,
    estimate,
    mean_items,
    pooled_spread,
)


def test_pooled_spread_weighs_each_setting_by_its_degrees_of_freedom() -> None:
    spread = pooled_spread([[0.4, 0.6], [0.1, 0.2, 0.3], [0.9]])

    # squares: 2 x 0.1^2 and 2 x 0.1^2; df: 1 + 2; the single seed says nothing
    assert spread is not None
    assert spread.standard_deviation == pytest.approx(math.sqrt(0.04 / 3))
    assert (spread.df, spread.num_settings) == (3, 2)


def test_one_seed_per_setting_has_no_spread() -> None:
    assert pooled_spread([[0.4], [0.5]]) is None


def test_difference_is_paired_by_question() -> None:
    one = Term(weight=1.0, items={"a": 1, "b": 1, "c": 1, "d": 0}, num_seeds=1)
    other = Term(weight=-1.0, items={"d": 0, "c": 1, "b": 0, "a": 1}, num_seeds=1)

    found = contrast([one, other], spread=None)

    # differences 0 1 0 0: mean 1/4, variance (3 x 1/16 + 9/16) / 3 = 1/4, of the mean 1/16
    assert found.estimate.value == pytest.approx(0.25)
    assert found.estimate.standard_error == pytest.approx(0.25)
    assert found.estimate.df == 3
    assert found.estimate.high == pytest.approx(0.25 + 3.182446305284263 * 0.25)
    assert (found.num_questions, found.seed_variance) == (4, 0.0)


def test_seeds_add_twice_their_variance_over_their_number() -> None:
    items = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}
    same = {"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0}
    spread = Spread(standard_deviation=0.03, df=22, num_settings=11)

    found = contrast(
        [
            Term(weight=1.0, items=items, num_seeds=3),
            Term(weight=-1.0, items=same, num_seeds=3),
        ],
        spread=spread,
    )

    seeds, questions = 2 * 0.03**2 / 3, 0.25 / 4
    assert found.seed_variance == pytest.approx(seeds)
    assert found.question_variance == pytest.approx(questions)
    assert found.estimate.standard_error == pytest.approx(math.sqrt(seeds + questions))
    # Welch-Satterthwaite
    assert found.estimate.df == pytest.approx(
        (seeds + questions) ** 2 / (seeds**2 / 22 + questions**2 / 3)
    )


def test_a_base_before_tuning_has_no_seed_variance() -> None:
    spread = Spread(standard_deviation=0.1, df=10, num_settings=5)
    items = {"a": 1.0, "b": 0.0}

    found = contrast(
        [
            Term(weight=1.0, items=items, num_seeds=2),
            Term(weight=-1.0, items=items, num_seeds=0),
        ],
        spread=spread,
    )

    assert found.seed_variance == pytest.approx(0.1**2 / 2)


def test_only_questions_that_all_answered_count() -> None:
    one = Term(weight=1.0, items={"a": 1, "b": 1, "x": 0}, num_seeds=1)
    other = Term(weight=-1.0, items={"a": 0, "b": 0, "y": 1}, num_seeds=1)

    found = contrast([one, other], spread=None)

    assert found.num_questions == 2
    assert found.estimate.value == 1.0


def test_too_few_questions_in_common_are_refused() -> None:
    one = Term(weight=1.0, items={"a": 1}, num_seeds=1)

    with pytest.raises(ValueError, match="1 questions in common"):
        contrast([one, one], spread=None)


def test_an_estimate_without_variance_is_a_point() -> None:
    found = estimate(0.5, [VariancePart(variance=0.0, df=3)])

    assert (found.low, found.high, found.df) == (0.5, 0.5, math.inf)


def test_items_are_averaged_over_seeds() -> None:
    runs = [{"a": 1.0, "b": 0.0, "x": 1.0}, {"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 0.0}]

    assert mean_items(runs) == {"a": pytest.approx(2 / 3), "b": 0.0}


def test_block_mean_leaves_out_the_first_steps_that_fill_no_block() -> None:
    mean, part = block_mean([99.0, *([1.0, 3.0] * 5), *([2.0, 4.0] * 5)], num_blocks=10)

    # 21 values in blocks of 2: the first is left out; five blocks of mean 2, five of 3
    assert mean == pytest.approx(2.5)
    assert part.variance == pytest.approx((10 * 0.25 / 9) / 10)
    assert part.df == 9


def test_the_95_percent_interval_covers_19_of_20_times() -> None:
    draw = random.Random(7)
    seed_sd, difficulty_sd, num_questions, trials, covered = 0.03, 0.15, 100, 400, 0
    for _ in range(trials):
        # Two settings without a true difference: seeds move each by a normal amount.
        chances = [min(max(draw.gauss(0.5, difficulty_sd), 0.1), 0.9) for _ in range(num_questions)]
        runs = []
        for _ in range(2):
            shift = draw.gauss(0, seed_sd)
            runs.append({str(i): float(draw.random() < c + shift) for i, c in enumerate(chances)})
        pilot = [[draw.gauss(0.5, seed_sd) for _ in range(3)] for _ in range(11)]
        found = contrast(
            [
                Term(weight=1.0, items=runs[0], num_seeds=1),
                Term(weight=-1.0, items=runs[1], num_seeds=1),
            ],
            spread=pooled_spread(pilot),
        )
        covered += found.estimate.low <= 0.0 <= found.estimate.high

    expected = python_statistics.NormalDist(0.95, math.sqrt(0.95 * 0.05 / trials))
    assert expected.inv_cdf(0.001) <= covered / trials <= expected.inv_cdf(0.999)
