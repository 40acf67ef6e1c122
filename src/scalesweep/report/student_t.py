"""Student's t distribution in plain Python: reports are made where no SciPy is.

Source: Press et al., Numerical Recipes (3rd ed.), section 6.4: the regularised incomplete beta
function as a continued fraction, summed by the modified Lentz method.
"""

from __future__ import annotations

import math
from statistics import NormalDist

_TINY = 1e-300
_RELATIVE_ERROR = 1e-15
_MOST_TERMS = 10_000
_MOST_STEPS = 100


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b), for a, b > 0 and 0 <= x <= 1."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1.0) / (a + b + 2.0):  # where the fraction converges fast
        return math.exp(log_front) * _fraction(a, b, x) / a
    return 1.0 - math.exp(log_front) * _fraction(b, a, 1.0 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of I_x(a, b), by the modified Lentz method."""
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        change = 1.0
        for term in (even, odd):
            d = 1.0 + term * d
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = 1.0 + term / c
            c = c if abs(c) > _TINY else _TINY
            change = c * d
            value *= change
        if abs(change - 1.0) < _RELATIVE_ERROR:
            break
    return value


def cdf(t: float, *, df: float) -> float:
    """P(T <= t) with df > 0 degrees of freedom (not necessarily whole; inf is the normal)."""
    if math.isinf(df):
        return NormalDist().cdf(t)
    tail = incomplete_beta(df / 2.0, 0.5, df / (df + t * t)) / 2.0
    return 1.0 - tail if t > 0 else tail


def quantile(p: float, *, df: float) -> float:
    """The t with P(T <= t) = p, for 0 < p < 1."""
    if math.isinf(df):
        return NormalDist().inv_cdf(p)
    if p == 0.5:
        return 0.0
    if p < 0.5:
        return -quantile(1.0 - p, df=df)
    # Newton's method from the normal's, which is nearer to 0: on that side the distribution is
    # concave, so that every step stays below the answer.
    t = NormalDist().inv_cdf(p)
    for _ in range(_MOST_STEPS):
        step = (p - cdf(t, df=df)) / _density(t, df=df)
        t += step
        if abs(step) <= 1e-14 * t:
            break
    return t


def _density(t: float, *, df: float) -> float:
    log_front = math.lgamma((df + 1.0) / 2.0) - math.lgamma(df / 2.0)
    power = -(df + 1.0) / 2.0 * math.log1p(t * t / df)
    return math.exp(log_front + power) / math.sqrt(df * math.pi)
