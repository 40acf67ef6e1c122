"""Verdicts out of replies and scores out of verdicts, each number by hand or published."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from scalesweep.evaluate.reviews import (
    Pair,
    categories_of,
    numpy_round,
    parse_correctness,
    parse_last_line,
    parse_llava,
    parse_lmms_eval,
    parse_rating,
    parse_winner,
    relative_score,
    score_pairs,
    score_points,
    spread,
)
from tests.evaluate.official import official_samples


def pair(reference: float, candidate: float) -> Pair:
    return Pair(reference, candidate)


# ---------------------------------------------------------------- score lines


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("8 9", pair(8, 9)),
        ("8.5 9", pair(8.5, 9)),
        ("8,9", pair(8, 9)),
        ("8 9.", pair(8, 9)),
        ("8 9\r", pair(8, 9)),
        ("0 10", pair(0, 10)),
        ("8, 9", None),
        ("8  9", None),
        ("8 9 ", None),
        (" 8 9", None),
        ("8\t9", None),
        ("8", None),
        ("", None),
        ("8 9 10", None),
        ("7/10 9/10", None),
        ("Assistant 1: 8, Assistant 2: 9", None),
        ("\n8 9", None),
        ("nan 9", None),
        ("9 inf", None),
        ("1e308 1e308", None),
        ("-1 -1", None),
    ],
)
def test_llavas_score_line_is_two_numbers_with_one_separator(
    line: str, expected: Pair | None
) -> None:
    assert parse_llava(line) == expected
    assert parse_llava(f"{line}\n5 5") == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("8 9", pair(8, 9)),
        ("8, 9", pair(8, 9)),
        ("8; 9", pair(8, 9)),
        ("  8  9  ", pair(8, 9)),
        ("\n8.5 9", pair(8.5, 9)),
        ("7/10 9/10", pair(7, 10)),
        ("Assistant 1: 8, Assistant 2: 9", pair(1, 8)),
        ("about 8", None),
        ("", None),
        ("-1 -1", None),
    ],
)
def test_lmms_eval_takes_the_first_two_numbers_of_the_first_line(
    line: str, expected: Pair | None
) -> None:
    assert parse_lmms_eval(f"{line}\n5 5" if line.strip() else line) == expected


@pytest.mark.parametrize(
    ("review", "expected"),
    [
        ("Let us solve it.\nThe scores are (10, 1). The first did better.\n", pair(10, 1)),
        ("The point (10, 4) is far.\nThe first did better.", None),
        ("(2, -2) and (10, 4)", pair(10, 4)),
        ("Output: (8.5,7)", pair(8.5, 7)),
        ("\n\n", None),
    ],
)
def test_the_last_line_gives_the_last_tuple_on_it(review: str, expected: Pair | None) -> None:
    assert parse_last_line(review) == expected


@pytest.mark.parametrize(
    ("judgment", "expected"),
    [
        ("Good. Rating: [[8]]", 8.0),
        ("[[7.5]] rather than [[9]]", 7.5),
        ("[3] at first, then [[6]]", 6.0),
        ("Rating: [4]", 4.0),
        ("Rating: [[0]]", 0.0),
        ("Rating: 8", None),
        ("[[eight]]", None),
        ("$ERROR$", None),
    ],
)
def test_a_rating_stands_in_two_brackets_or_else_in_one(
    judgment: str, expected: float | None
) -> None:
    assert parse_rating(judgment) == expected


@pytest.mark.parametrize(
    ("judgment", "expected"),
    [
        ("so [[A]]", "A"),
        ("so [[B]]", "B"),
        ("so [[C]]", "tie"),
        ("not [[B]] but [[A]]", "A"),
        ("[[C]], no, [[B]]", "B"),
        ("[A]", None),
    ],
)
def test_a_winner_is_looked_for_in_the_order_a_b_c(judgment: str, expected: str | None) -> None:
    assert parse_winner(judgment) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("0.5", 0.5),
        ("1.0 because", 1.0),
        ("0", 0.0),
        ("0.75", 0.75),
        ("\n0.3", 0.3),
        ("0.4\n", 0.4),
        (" 0.5", None),
        ("1.1", None),
        ("-0.1", None),
        ("The", None),
        ("", None),
        ("nan", None),
    ],
)
def test_a_grade_is_a_number_from_0_to_1_before_the_first_space(
    reply: str, expected: float | None
) -> None:
    assert parse_correctness(reply) == expected


# ---------------------------------------------------------------- relative scores


def scored(*pairs: Pair | None, strict: bool = True):  # type: ignore[no-untyped-def]
    run = {str(number): value for number, value in enumerate(pairs)}
    return score_pairs([run], list(run), strict=strict)


def test_a_relative_score_is_a_ratio_of_means_not_a_mean_of_ratios() -> None:
    found = scored(pair(10, 5), pair(5, 5))

    assert found.runs == (66.7,)  # 10 / 15; the mean of 0.5 and 1.0 would be 75
    assert found.part.score == pytest.approx(2 / 3)
    assert found.also == {"reference mean x 10": 75.0, "candidate mean x 10": 50.0}


@pytest.mark.parametrize(
    ("pairs", "official"),
    [
        # 4.333 / 4.667 = 92.843 %; unrounded 13 / 14 = 92.857 %, which would print 92.9
        ((pair(5, 4), pair(5, 4), pair(4, 5)), 92.8),
        # 1.667 / 1.333 = 125.056 %; unrounded, or with one of them rounded, it would print 125.0
        ((pair(1, 2), pair(1, 1), pair(2, 2)), 125.1),
    ],
)
def test_both_means_are_rounded_to_three_decimals_before_they_are_divided(
    pairs: tuple[Pair, ...], official: float
) -> None:
    found = scored(*pairs)

    assert found.part.official == official
    assert found.part.score == pytest.approx(
        sum(p.candidate for p in pairs) / sum(p.reference for p in pairs)
    )


def test_an_unreadable_review_stays_in_the_means_as_minus_one_or_is_left_out() -> None:
    pairs = (pair(8, 6), None, pair(10, 7.5), pair(8, 9))

    strict, exclude = scored(*pairs), scored(*pairs, strict=False)

    assert strict.part.official == 86.0  # (22.5 - 1) / (26 - 1)
    assert exclude.part.official == 86.5  # 22.5 / 26: 7.5 / 8.667 = 86.535 %
    assert (strict.part.num_unparsable, exclude.part.num_unparsable) == (1, 1)
    assert (strict.part.num_questions, exclude.part.num_questions) == (4, 4)
    assert set(strict.items) == {"0", "1", "2", "3"}
    assert set(exclude.items) == {"0", "2", "3"}


def test_a_score_of_zero_is_a_score() -> None:
    assert scored(pair(8, 0), pair(8, 8), strict=False).part.official == 50.0


def test_no_score_is_made_of_nothing() -> None:
    unread, none = scored(None, None), score_pairs([{}], ["a", "b"], strict=True)

    assert (unread.part.official, unread.part.score, unread.part.num_unparsable) == (None, None, 2)
    assert (none.part.official, none.part.num_missing, none.runs) == (None, 2, ())


def test_several_runs_give_the_mean_of_what_each_prints_not_their_pooled_reviews() -> None:
    runs = [{"a": pair(10, 5)}, {"a": pair(5, 5)}]

    found = score_pairs(runs, ["a"], strict=True)

    assert found.runs == (50.0, 100.0)
    assert found.part.official == 75.0  # pooled: 10 / 15 = 66.7
    assert found.part.score == pytest.approx(0.75)


def test_a_missing_reply_is_counted_and_adds_nothing() -> None:
    runs = [{"a": pair(10, 5), "b": pair(10, 9)}, {"a": pair(10, 7)}]

    found = score_pairs(runs, ["a", "b"], strict=True)

    assert found.runs == (70.0, 70.0)  # 14 / 20 and 7 / 10
    assert (found.part.num_missing, found.part.num_questions) == (1, 2)
    # b is known in the first run only; in the second it takes that run's 0.7.
    assert found.items == pytest.approx({"a": (0.5 + 0.7) / 2, "b": (0.9 + 0.7) / 2})
    assert statistics.fmean(found.items.values()) == pytest.approx(found.part.score)


def test_the_standard_error_of_a_ratio_is_that_of_its_linearised_items() -> None:
    found = scored(pair(8, 4), pair(10, 8), pair(6, 6))

    # mean reference 8, ratio 18 / 24 = 0.75: residuals (4 - 6, 8 - 7.5, 6 - 4.5) / 8
    residuals = [-0.25, 0.0625, 0.1875]
    by_hand = math.sqrt(sum(r * r for r in residuals) / 2 / 3)
    assert found.part.standard_error == pytest.approx(by_hand)
    assert list(found.items.values()) == pytest.approx([0.75 + r for r in residuals])


def test_the_whole_weighs_every_question_alike_and_categories_come_in_alphabetical_order() -> None:
    questions = {"0": "detail", "1": "conv", "2": "conv", "3": "", "4": "complex"}
    run = {
        "0": pair(10, 2),
        "1": pair(10, 8),
        "2": pair(10, 8),
        "3": pair(10, 4),
        "4": pair(10, 9),
    }

    score = relative_score(
        [run], questions, benchmark="b", reading="", options={"unparsable": "strict"}
    )

    assert list(score.categories) == ["complex", "conv", "detail"]
    assert {k: part.official for k, part in score.categories.items()} == {
        "complex": 90.0,
        "conv": 80.0,
        "detail": 20.0,
    }
    assert score.whole.official == 62.0  # 31 / 50; the categories' mean would be 63.3
    assert score.also["conv, candidate mean x 10"] == 80.0


def test_a_question_without_a_category_counts_in_the_whole_only() -> None:
    assert categories_of({"a": "", "b": "x", "c": ""}) == {"x": ["b"]}


# ---------------------------------------------------------------- points


def test_points_are_averaged_over_runs_and_their_spread_divides_by_their_number() -> None:
    found = score_points(
        [{"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 0.5}],
        ["a", "b"],
        unreadable=None,
    )

    assert found.runs == (50.0, 50.0, 75.0)
    assert found.part.official == 58.3
    assert found.part.score == pytest.approx(175 / 300)
    # mean 58.33: deviations -8.33, -8.33, 16.67; sqrt(416.67 / 3) = 11.79, with n - 1 14.4
    assert spread(found.runs) == 11.8
    assert spread([50.0]) is None


@pytest.mark.parametrize("value", [31.15, 31.25, 0.35, 0.05, 36.05, 2.675, 0.0, 100.0, 66.666])
def test_numpys_rounding_is_numpys(value: float) -> None:
    assert numpy_round(value) == round(np.float64(value), 1)


def test_numpys_rounding_is_not_pythons() -> None:
    assert (numpy_round(31.15), round(31.15, 1)) == (31.2, 31.1)


# ---------------------------------------------------------------- published


def test_alpaca_against_llama_scores_as_fastchat_published_it() -> None:
    file = official_samples() / "vicuna80" / "review_llama_alpaca-13b.jsonl"
    rows = [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()]
    run = {str(row["question_id"]): Pair(*map(float, row["score"])) for row in rows}

    found = score_pairs([run], list(run), strict=True)

    assert found.part.official == 115.2
    assert found.also == {"reference mean x 10": 65.6, "candidate mean x 10": 75.6}
    assert any(0.0 in pair for pair in run.values())


def test_only_the_three_math_reviews_of_a_published_file_are_unreadable() -> None:
    file = official_samples() / "vicuna80" / "review_llama_alpaca-13b.jsonl"
    rows = [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()]

    parsed = {row["question_id"]: parse_llava(row["text"]) for row in rows}

    assert [question for question, found in parsed.items() if found is None] == [68, 69, 70]
    assert all(
        parsed[row["question_id"]] == tuple(row["score"])
        for row in rows
        if row["question_id"] not in (68, 69, 70)
    )
    assert parse_last_line(rows[69]["text"]) == (10, 1) == tuple(rows[69]["score"])
    # Left in as -1, or out: not the published 115.2.
    run = {str(question): found for question, found in parsed.items()}
    assert score_pairs([run], list(run), strict=True).part.official != 115.2
    assert score_pairs([run], list(run), strict=False).part.official != 115.2


def test_published_reviews_of_llava_hold_the_scores_that_their_text_gives() -> None:
    file = official_samples() / "llava_bench" / "review_excerpt.jsonl"
    rows = [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()]

    assert [parse_llava(row["content"]) for row in rows] == [tuple(row["tuple"]) for row in rows]
