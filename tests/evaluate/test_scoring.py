"""Scores and their standard errors, by hand."""

from __future__ import annotations

import pytest

from scalesweep.evaluate.benchmarks.mini import is_correct
from scalesweep.evaluate.scoring import benchmark_scores, standard_error, summary


def test_the_standard_error_of_a_share() -> None:
    assert standard_error(0.5, 100) == pytest.approx(0.05)  # sqrt(0.25 / 100)
    assert standard_error(0.2, 64) == pytest.approx(0.05)  # sqrt(0.16 / 64)
    assert standard_error(1.0, 10) == 0.0
    assert standard_error(0.0, 0) == 0.0


def test_three_of_four_right() -> None:
    assert summary([1, 1, 0, 1]) == {
        "score": 0.75,
        "standard_error": pytest.approx(0.216506, abs=1e-6),  # sqrt(0.75 * 0.25 / 4)
        "num_questions": 4,
    }


def test_a_benchmark_is_scored_whole_and_by_category() -> None:
    rows = [
        {"category": "where", "correct": 1},
        {"category": "color", "correct": 0},
        {"category": "color", "correct": 1},
        {"category": "color", "correct": 0},
        {"category": "color", "correct": 0},
    ]

    scores = benchmark_scores(rows, num_empty=2)

    assert (scores["score"], scores["num_questions"], scores["num_empty"]) == (0.4, 5, 2)
    assert scores["standard_error"] == pytest.approx((0.4 * 0.6 / 5) ** 0.5)
    assert scores["num_missing"] == 0
    assert list(scores["categories"]) == ["color", "where"]
    assert scores["categories"]["color"] == {
        "score": 0.25,
        "standard_error": pytest.approx((0.25 * 0.75 / 4) ** 0.5),
        "num_questions": 4,
    }


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("red", "red", True),
        (" top  left ", "top left", True),
        ("top", "top left", False),
        ("top left left", "top left", False),
        ("Red", "red", False),
        ("", "red", False),
    ],
)
def test_an_answer_is_right_when_it_is_the_whole_reference(
    answer: str, reference: str, expected: bool
) -> None:
    assert is_correct(answer, reference) is expected
