"""The score of one checkpoint on one benchmark, with all that a reader needs to trust it. Pure.

Two forms of the same number: official is what the benchmark's own script prints, rounded as it
rounds; score is the same as a fraction of 1, unrounded, the mean of items. Items make paired
comparisons and standard errors: they are what each question adds, so that a ratio of means (a
relative score) is linearised: R + (candidate - R x reference) / mean reference.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PartScore:
    """Of some of the questions: a category, a capability, a subject."""

    official: float | None
    """Percent, as the official script prints it; None where no question of it has a verdict."""
    score: float | None
    """Fraction, unrounded."""
    standard_error: float | None
    """Of the questions, as a fraction."""
    num_questions: int
    num_missing: int = 0
    """Answers or verdicts that are not there, of a judge in all of its runs together."""
    num_unparsable: int = 0
    """Replies without a verdict in them, of a judge in all of its runs together."""

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PartScore:
        """Of what to_json gave, or BenchmarkScore's for its whole."""
        # What has a default here is not in stores of the first versions.
        return cls(
            official=data["official"] if "official" in data else _percent(data["score"]),
            score=data["score"],
            standard_error=data["standard_error"],
            num_questions=data["num_questions"],
            num_missing=data.get("num_missing", 0),
            num_unparsable=data.get("num_unparsable", 0),
        )


@dataclass(frozen=True, kw_only=True)
class BenchmarkScore:
    """Of all questions, and of the parts that the benchmark reports."""

    benchmark: str
    rule: str
    """The official rule that the number follows, in words that name its source."""
    options: Mapping[str, Any]
    """What was chosen where official rules differ (strict | exclude, ...)."""
    whole: PartScore
    categories: Mapping[str, PartScore] = field(default_factory=dict)
    """In the benchmark's own order."""
    other_parts: Mapping[str, Mapping[str, PartScore]] = field(default_factory=dict)
    """Further divisions by name ("capability sets", "subjects")."""
    runs: Sequence[float] = ()
    """Official number of each judge run; empty where nothing was judged."""
    run_spread: float | None = None
    """Population standard deviation of runs, percent; None for fewer than two runs."""
    also: Mapping[str, float | None] = field(default_factory=dict)
    """Further official numbers by name ("mean x 10, reference"), percent."""
    num_empty: int | None = 0
    """Answers of no character; None where the answers are not at hand."""
    items: Mapping[str, float] = field(default_factory=dict)
    """question_id -> what it adds, a fraction; missing ones are left out. Their mean is score."""
    judge_model: str | None = None
    notes: Sequence[str] = ()
    """What a reader must know besides, one sentence each: files cut short, scores by hand."""

    def to_json(self) -> dict[str, Any]:
        """All but items, which stand in a file of their own."""
        whole = self.whole
        return {
            "score": whole.score,
            "standard_error": whole.standard_error,
            "official": whole.official,
            "num_questions": whole.num_questions,
            "num_missing": whole.num_missing,
            "num_unparsable": whole.num_unparsable,
            "num_empty": self.num_empty,
            "rule": self.rule,
            "options": dict(self.options),
            "judge_model": self.judge_model,
            "runs": list(self.runs),
            "run_spread": self.run_spread,
            "also": dict(self.also),
            "notes": list(self.notes),
            "categories": {name: part.to_json() for name, part in self.categories.items()},
            "other_parts": {
                division: {name: part.to_json() for name, part in parts.items()}
                for division, parts in self.other_parts.items()
            },
        }

    @classmethod
    def from_json(cls, benchmark: str, data: Mapping[str, Any]) -> BenchmarkScore:
        """Of what to_json gave; without items."""

        def parts(found: Mapping[str, Any]) -> dict[str, PartScore]:
            return {name: PartScore.from_json(part) for name, part in found.items()}

        return cls(
            benchmark=benchmark,
            rule=data.get("rule", "as an earlier version of scalesweep scored it"),
            options=data.get("options", {}),
            whole=PartScore.from_json(data),
            categories=parts(data.get("categories", {})),
            other_parts={name: parts(found) for name, found in data.get("other_parts", {}).items()},
            runs=data.get("runs", ()),
            run_spread=data.get("run_spread"),
            also=data.get("also", {}),
            num_empty=data.get("num_empty"),
            judge_model=data.get("judge_model"),
            notes=data.get("notes", ()),
        )


def _percent(score: float | None) -> float | None:
    return None if score is None else 100 * score


def mean_and_error(items: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and its standard error sqrt(var / n), var with n - 1; None where it is not known."""
    if not items:
        return None, None
    if len(items) == 1:
        return items[0], None
    return statistics.fmean(items), statistics.stdev(items) / math.sqrt(len(items))


def ratio_items(candidate: Mapping[str, float], reference: Mapping[str, float]) -> dict[str, float]:
    """What each question adds to mean(candidate) / mean(reference): their mean is that ratio.

    Source: linearisation (delta method) of a ratio of means; R + (c - R r) / mean(r).
    """
    mean_reference = statistics.fmean(reference.values())
    ratio = statistics.fmean(candidate.values()) / mean_reference
    return {
        item: ratio + (candidate[item] - ratio * reference[item]) / mean_reference
        for item in candidate
    }


def population_spread(runs: Sequence[float]) -> float | None:
    """Standard deviation of runs with n, not n - 1, as MM-Vet has it; None for fewer than two."""
    return statistics.pstdev(runs) if len(runs) > 1 else None
