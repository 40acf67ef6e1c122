"""Shares of right answers, and how sure they are. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from scalesweep.evaluate.scores import PartScore, mean_and_error


def standard_error(score: float, count: int) -> float:
    """Of a share of right answers over so many questions: sqrt(p (1 - p) / n)."""
    return math.sqrt(score * (1 - score) / count) if count else 0.0


def share_right(correct: Sequence[int], *, digits: int = 1) -> PartScore:
    """Of questions that are right or wrong; correct holds 0 and 1.

    digits: of the official percentage.
    """
    count = len(correct)
    if not count:
        return PartScore(official=None, score=None, standard_error=None, num_questions=0)
    score = sum(correct) / count
    return PartScore(
        official=round(100 * score, digits),
        score=score,
        standard_error=standard_error(score, count),
        num_questions=count,
    )


def percent(score: float) -> float:
    """A fraction as most official scripts print it."""
    return round(100 * score, 1)


def mean_of(
    questions: Collection[str],
    items: Mapping[str, float],
    *,
    unparsable: Collection[str] = (),
    official: Callable[[float], float] = percent,
) -> PartScore:
    """Of some questions by id; those without an item are missing and in no mean.

    unparsable: ids, of other questions too.
    official: fraction -> percent as the official script rounds it.
    """
    score, error = mean_and_error([items[item] for item in questions if item in items])
    return PartScore(
        official=None if score is None else official(score),
        score=score,
        standard_error=error,
        num_questions=len(questions),
        num_missing=sum(item not in items for item in questions),
        num_unparsable=sum(item in unparsable for item in questions),
    )
