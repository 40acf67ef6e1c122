"""How sure a difference of scores is: the spread between seeds and the luck of the questions.

A contrast is a weighted sum of scores (weights 1 and -1: a difference). Its variance is

    seeds      s^2 * sum of weight^2 / seeds of the cell      df: those of s
  + questions  variance over questions of the weighted sum of answers / questions      df: n - 1
  + judging    of a judged benchmark: variance between judge runs / their number       df: runs - 1

s is the standard deviation between seeds, pooled over cells. The degrees of freedom of the sum are
Welch's and Satterthwaite's; the interval is Student's, 95 %.

Assumed, and what follows from it:
- Seeds move every cell's score by the same standard deviation, independently in each cell. (A cell
  that varies more than the pooled cells is judged too surely.)
- Questions are a random draw; the cells answer the same ones, so answers are compared in pairs.
- A seed also changes which single answers are right. That part stands in both terms, so the
  interval is a little too wide, never too narrow on that account.
- The same holds of a judge: that one reply differs from run to run stands in the answers too, but
  a mood of a whole run does not, so the spread of the runs is counted besides.
- Not covered: the luck of one base model and one tower per size, which all cells share, and the
  choice among many comparisons, each of which is judged by itself (distinguishable.py corrects
  for it where all pairs are tried).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scalesweep.report import student_t

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Standard deviation of a score between seeds of one setting, pooled over settings."""

    standard_deviation: float
    df: int
    num_settings: int
    """Settings with more than one seed."""


def pooled_spread(groups: Iterable[Sequence[float]]) -> Spread | None:
    """Spread within groups of scores (one group: the seeds of one setting).

    None when no group has two scores.
    """
    squares, df, num_settings = 0.0, 0, 0
    for scores in groups:
        if len(scores) > 1:
            mean = statistics.fmean(scores)
            squares += sum((score - mean) ** 2 for score in scores)
            df += len(scores) - 1
            num_settings += 1
    if not df:
        return None
    return Spread(standard_deviation=math.sqrt(squares / df), df=df, num_settings=num_settings)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its standard error and 95 % interval."""

    value: float
    standard_error: float
    df: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class VariancePart:
    variance: float
    df: float


def estimate(value: float, parts: Sequence[VariancePart]) -> Estimate:
    """Value with the interval that follows from independent parts of its variance."""
    variance = sum(part.variance for part in parts)
    standard_error = math.sqrt(variance)
    # Welch-Satterthwaite
    weight = sum(part.variance**2 / part.df for part in parts if part.variance > 0)
    df = variance**2 / weight if weight > 0 else math.inf
    half = student_t.quantile((1 + CONFIDENCE) / 2, df=df) * standard_error
    return Estimate(
        value=value, standard_error=standard_error, df=df, low=value - half, high=value + half
    )


@dataclass(frozen=True, kw_only=True)
class Term:
    """One score of a contrast."""

    weight: float
    items: Mapping[str, float]
    """Question -> share of the seeds that answered it right."""
    num_seeds: int
    """Seeds the items are means of; 0: no seed plays a part (a base before tuning)."""
    judging: VariancePart | None = None
    """Of the score, by the spread of its judge runs; None: not judged, or in one run."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    estimate: Estimate
    num_questions: int
    """Questions that all terms answered."""
    seed_variance: float
    question_variance: float
    judge_variance: float = 0.0
    num_differing: int = 0
    """Of the questions, those on which the weighted sum is not zero."""


def p_value(found: Contrast) -> float:
    """Chance of a difference at least so far from zero if there were none, to either side.

    Never below what an exact test by signs could find: of k questions on which two settings
    differ, all in favour of one happens with a chance of 2 / 2^k if neither is better. So a
    handful of questions tells nothing apart, however alike they came out.
    """
    value = found.estimate
    if value.standard_error == 0:
        p = 1.0 if value.value == 0 else 0.0
    else:
        # The lower tail: the upper one is 1 minus nearly 1.
        p = 2 * student_t.cdf(-abs(value.value) / value.standard_error, df=value.df)
    return min(1.0, max(p, 2 * 0.5**found.num_differing))


def contrast(terms: Sequence[Term], *, spread: Spread | None) -> Contrast:
    """A weighted sum of scores over the questions that all terms answered.

    spread: None leaves the seeds out of the error.

    Raises:
        ValueError: fewer than two questions in common.
    """
    first, *others = terms
    common = list(first.items)
    if any(other.items.keys() != first.items.keys() for other in others):
        common = [q for q in common if all(q in other.items for other in others)]
    if len(common) < 2:
        raise ValueError(f"{len(common)} questions in common; at least 2 are needed")
    weighed = [[term.weight * term.items[question] for question in common] for term in terms]
    sums = [math.fsum(values) for values in zip(*weighed, strict=True)]
    value = math.fsum(sums) / len(sums)
    # Not statistics.variance: it sums exact fractions, which takes several times as long; a study
    # of many settings has thousands of pairs.
    variance = math.fsum((each - value) ** 2 for each in sums) / (len(sums) - 1)
    parts = [VariancePart(variance=variance / len(sums), df=len(sums) - 1)]
    seed_variance = 0.0
    if spread is not None:
        seed_variance = spread.standard_deviation**2 * sum(
            term.weight**2 / term.num_seeds for term in terms if term.num_seeds
        )
        parts.append(VariancePart(variance=seed_variance, df=spread.df))
    judging = [
        VariancePart(variance=term.weight**2 * term.judging.variance, df=term.judging.df)
        for term in terms
        if term.judging is not None
    ]
    parts += judging
    return Contrast(
        estimate=estimate(value, parts),
        num_questions=len(sums),
        seed_variance=seed_variance,
        question_variance=parts[0].variance,
        judge_variance=math.fsum(part.variance for part in judging),
        num_differing=sum(value != 0 for value in sums),
    )


def mean_items(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Answers averaged over seeds, question by question; only questions that every run has."""
    if len(runs) == 1:
        return dict(runs[0])
    common = set(runs[0]).intersection(*runs[1:])
    return {
        question: statistics.fmean(run[question] for run in runs)
        for question in runs[0]
        if question in common
    }


def block_mean(values: Sequence[float], *, num_blocks: int = 10) -> tuple[float, VariancePart]:
    """Mean of a series and the variance of that mean, from means of consecutive blocks.

    Steps that follow each other are alike (a busy machine stays busy a while), so their own
    variance divided by their number would be too small. Values that do not fill a block are left
    out, the first ones: they hold the warming up.

    Raises:
        ValueError: fewer values than two blocks need.
    """
    size = max(1, len(values) // num_blocks)
    kept = values[len(values) % size :] if len(values) >= num_blocks else values
    blocks = [statistics.fmean(kept[i : i + size]) for i in range(0, len(kept), size)]
    if len(blocks) < 2:
        raise ValueError(f"{len(values)} values; at least 2 are needed")
    return statistics.fmean(blocks), VariancePart(
        variance=statistics.variance(blocks) / len(blocks), df=len(blocks) - 1
    )
