"""Scores and their standard errors, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalesweep.evaluate.benchmarks.mini import MiniVqa, is_correct
from scalesweep.evaluate.questions import Question
from scalesweep.evaluate.scoring import mean_of, share_right, standard_error


def test_the_standard_error_of_a_share() -> None:
    assert standard_error(0.5, 100) == pytest.approx(0.05)  # sqrt(0.25 / 100)
    assert standard_error(0.2, 64) == pytest.approx(0.05)  # sqrt(0.16 / 64)
    assert standard_error(1.0, 10) == 0.0
    assert standard_error(0.0, 0) == 0.0


def test_three_of_four_right() -> None:
    part = share_right([1, 1, 0, 1])

    assert (part.score, part.official, part.num_questions) == (0.75, 75.0, 4)
    assert part.standard_error == pytest.approx(0.216506, abs=1e-6)  # sqrt(0.75 * 0.25 / 4)


def test_of_no_question_no_share_is_known() -> None:
    part = share_right([])

    assert (part.score, part.official, part.num_questions) == (None, None, 0)


def question(number: int, category: str, answer: str) -> Question:
    return Question(question_id=str(number), text="?", category=category, answer=answer)


def test_a_benchmark_is_scored_whole_and_by_category() -> None:
    asked = [question(0, "where", "a"), *(question(i, "color", "b") for i in (1, 2, 3, 4))]
    said = {"0": "a", "1": "", "2": "b", "3": "x", "4": " "}

    class Given(MiniVqa):
        def _read_questions(self) -> list[Question]:
            return asked

    score = Given(Path(), "", {}).score(said, [])

    assert (score.whole.score, score.whole.num_questions, score.num_empty) == (0.4, 5, 2)
    assert score.whole.standard_error == pytest.approx((0.4 * 0.6 / 5) ** 0.5)
    assert list(score.categories) == ["color", "where"]
    assert score.categories["color"].score == 0.25
    assert score.categories["color"].standard_error == pytest.approx((0.25 * 0.75 / 4) ** 0.5)
    assert score.items == {"0": 1.0, "1": 0.0, "2": 1.0, "3": 0.0, "4": 0.0}


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


def test_a_question_without_an_item_is_missing_and_in_no_mean() -> None:
    part = mean_of(["a", "b", "c", "d"], {"a": 1.0, "b": 0.0, "d": 1.0, "e": 0.0}, unparsable="be")

    assert part.score == 2 / 3
    assert part.official == 66.7
    # variance with n - 1 of 1, 0, 1: (1/9 + 4/9 + 1/9) / 2 = 1/3; over three questions
    assert part.standard_error == pytest.approx(1 / 3)
    assert (part.num_questions, part.num_missing, part.num_unparsable) == (4, 1, 1)


def test_of_no_item_there_is_no_score() -> None:
    part = mean_of(["a"], {})

    assert (part.official, part.score, part.standard_error) == (None, None, None)
    assert (part.num_questions, part.num_missing) == (1, 1)
