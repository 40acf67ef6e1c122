"""Means of right and wrong answers, and how sure they are. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def standard_error(score: float, count: int) -> float:
    """Of a share of right answers over so many questions: sqrt(p (1 - p) / n)."""
    return math.sqrt(score * (1 - score) / count) if count else 0.0


def summary(correct: Sequence[int]) -> dict[str, Any]:
    """Score, its standard error and the number of questions; correct holds 0 and 1."""
    count = len(correct)
    score = sum(correct) / count if count else 0.0
    return {
        "score": score,
        "standard_error": standard_error(score, count),
        "num_questions": count,
    }


def benchmark_scores(rows: Sequence[Mapping[str, Any]], *, num_empty: int) -> dict[str, Any]:
    """Scores of one benchmark, whole and per category, categories in alphabetical order.

    rows: {"category", "correct"}; every question has one, so num_missing is 0 here: an answer that
    is missing stops the stage instead of being counted as wrong.
    """
    categories = sorted({row["category"] for row in rows})
    return {
        **summary([row["correct"] for row in rows]),
        "num_missing": 0,
        "num_empty": num_empty,
        "categories": {
            name: summary([row["correct"] for row in rows if row["category"] == name])
            for name in categories
        },
    }
