"""Shares of right answers, and how sure they are. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scalesweep.evaluate.scores import PartScore


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
