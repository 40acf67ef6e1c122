"""Score and cost of the largest size from the smaller ones, with an interval.

Score: a straight line in the logarithm of the parameters, by least squares. The interval is that
of one more observation, t of k - 2 degrees of freedom for k sizes:

    t * s * sqrt(1 + 1/k + (x - mean x)^2 / sum of (x_i - mean x)^2)

s is the scatter around the line (residuals over k - 2), which holds both chance and what a line
gets wrong; it is never taken to be less than the error that is known of the scores themselves
(questions, seeds, judge runs). Two sizes fit any line, so they have no interval. Three have one
degree of freedom: t is 12.7, and the interval hardly ever says anything. A score has an upper end
that a line does not know of.

Cost: a fixed part (start-up, and what a step takes whatever its size) and a part in proportion to
work (FLOPs, or parameters), by least squares of relative errors; the interval is that of one more
observation, t of k - 2 degrees of freedom, and two sizes have none. Where the fixed part would be
below zero there is none: then the mean and the interval are those of log(cost / work), t of k - 1.

That sizes answer the same questions is left out: what is hard for all of them moves the line and
the largest alike, so the interval is rather too wide.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scalesweep.report import student_t
from scalesweep.report.statistics import CONFIDENCE, Estimate

SCORE_FORM = "a straight line in the logarithm of the parameters"
WITH_FIXED_PART = "a fixed part and one in proportion"
IN_PROPORTION = "in proportion"
NO_SCATTER_OF_TWO = "two sizes fit any line"


@dataclass(frozen=True, kw_only=True)
class Extrapolated:
    """A value of a size that was not used, and what was measured there, where it was."""

    value: float
    interval: Estimate | None
    """95 %, of one measurement; None: too few sizes to know it."""
    why_no_interval: str = ""
    measured: float | None = None
    form: str = SCORE_FORM

    @property
    def is_inside(self) -> bool | None:
        """What was measured lies in the interval; None: nothing to grade, or no interval."""
        if self.measured is None or self.interval is None:
            return None
        return self.interval.low <= self.measured <= self.interval.high


def extrapolated_score(
    sizes: Sequence[tuple[float, float]],
    size: float,
    *,
    known_error: float,
    measured: float | None = None,
) -> Extrapolated:
    """Of the larger one that would have so many parameters.

    sizes: (parameters, score) of the smaller ones, two or more different.
    known_error: standard error of one score, of all that is known.
    """
    xs = [math.log(parameters) for parameters, _ in sizes]
    ys = [score for _, score in sizes]
    x, mean_x, mean_y = math.log(size), statistics.fmean(xs), statistics.fmean(ys)
    spread_x = math.fsum((xi - mean_x) ** 2 for xi in xs)
    slope = (
        math.fsum((xi - mean_x) * (yi - mean_y) for xi, yi in zip(xs, ys, strict=True)) / spread_x
    )
    value = mean_y + slope * (x - mean_x)
    df = len(sizes) - 2
    if df < 1:
        return Extrapolated(
            value=value,
            interval=None,
            why_no_interval=NO_SCATTER_OF_TWO,
            measured=measured,
        )
    residuals = [yi - mean_y - slope * (xi - mean_x) for xi, yi in zip(xs, ys, strict=True)]
    scatter = math.sqrt(math.fsum(residual**2 for residual in residuals) / df)
    error = max(scatter, known_error) * math.sqrt(1 + 1 / len(sizes) + (x - mean_x) ** 2 / spread_x)
    return Extrapolated(value=value, interval=_interval(value, error, df), measured=measured)


def extrapolated_cost(
    sizes: Sequence[tuple[float, float]], work: float, *, measured: float | None = None
) -> Extrapolated:
    """Of the larger one that takes so much work.

    sizes: (work, cost) of the smaller ones, one or more, all above zero.
    """
    with_fixed_part = _with_fixed_part(sizes, work) if len(sizes) > 1 else None
    found = with_fixed_part or _in_proportion(sizes, work)
    return dataclasses.replace(found, measured=measured)


def _with_fixed_part(sizes: Sequence[tuple[float, float]], work: float) -> Extrapolated | None:
    """None where the fixed part would be below zero, or all sizes take as much work."""
    # Cost = fixed + rate * work; each cost is known as well as others relative to its own size.
    weights = [1 / cost**2 for _, cost in sizes]
    total = math.fsum(weights)
    center = math.fsum(w * done for w, (done, _) in zip(weights, sizes, strict=True)) / total
    mean = math.fsum(w * cost for w, (_, cost) in zip(weights, sizes, strict=True)) / total
    away = [done - center for done, _ in sizes]
    spread = math.fsum(w * each**2 for w, each in zip(weights, away, strict=True))
    if spread <= 0:
        return None
    rate = (
        math.fsum(
            w * each * (cost - mean)
            for w, each, (_, cost) in zip(weights, away, sizes, strict=True)
        )
        / spread
    )
    if mean - rate * center < 0:
        return None
    value, df = mean + rate * (work - center), len(sizes) - 2
    if df < 1:
        return Extrapolated(
            value=value, interval=None, why_no_interval=NO_SCATTER_OF_TWO, form=WITH_FIXED_PART
        )
    residuals = [cost - mean - rate * each for each, (_, cost) in zip(away, sizes, strict=True)]
    scatter = math.fsum(w * each**2 for w, each in zip(weights, residuals, strict=True)) / df
    error = math.sqrt(scatter * (value**2 + 1 / total + (work - center) ** 2 / spread))
    found = _interval(value, error, df)
    return Extrapolated(
        value=value,
        interval=dataclasses.replace(found, low=max(found.low, 0.0)),  # as every cost
        form=WITH_FIXED_PART,
    )


def _in_proportion(sizes: Sequence[tuple[float, float]], work: float) -> Extrapolated:
    logs = [math.log(cost / done) for done, cost in sizes]
    mean, df = statistics.fmean(logs), len(logs) - 1
    value = work * math.exp(mean)
    if df < 1:
        return Extrapolated(
            value=value,
            interval=None,
            why_no_interval="one size has no scatter",
            form=IN_PROPORTION,
        )
    error = statistics.stdev(logs) * math.sqrt(1 + 1 / len(logs))
    found = _interval(mean, error, df)
    return Extrapolated(
        value=value,
        interval=Estimate(
            value=value,
            standard_error=value * error,  # of a logarithm, to first order
            df=df,
            low=work * math.exp(found.low),
            high=work * math.exp(found.high),
        ),
        form=IN_PROPORTION,
    )


def _interval(value: float, error: float, df: float) -> Estimate:
    half = student_t.quantile((1 + CONFIDENCE) / 2, df=df) * error
    return Estimate(value=value, standard_error=error, df=df, low=value - half, high=value + half)
