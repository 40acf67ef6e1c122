"""The t distribution against values of scipy.stats.t and scipy.special.betainc (1.17.1)."""

from __future__ import annotations

import math

import pytest

from scalesweep.report import student_t


@pytest.mark.parametrize(
    ("df", "expected"),
    [
        (1, 12.706204736174694),
        (2, 4.302652729749462),
        (3.5, 2.9400886379827282),
        (10, 2.228138851986274),
        (22, 2.0738730679040254),
        (37.4, 2.0254612332283064),
        (1499, 1.9615478106169344),
        (math.inf, 1.959963984540054),
    ],
)
def test_quantile_of_the_95_percent_interval(df: float, expected: float) -> None:
    assert student_t.quantile(0.975, df=df) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("t", "df", "expected"),
    [
        (1.0, 1, 0.75),  # arctan(1) / pi + 1/2
        (-2.0, 4, 0.05805826175840778),
        (0.3, 7.7, 0.6139420918116524),
        (2.5, 1e6, 0.9937902552489184),
        (0.0, 3, 0.5),
    ],
)
def test_cdf(t: float, df: float, expected: float) -> None:
    assert student_t.cdf(t, df=df) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("a", "b", "x", "expected"),
    [
        (2.0, 3.0, 0.4, 0.5248),
        (0.5, 0.5, 0.2, 0.2951672353008665),
        (11.0, 0.5, 0.99, 0.6419932296067885),
        (3.0, 2.0, 0.0, 0.0),
        (3.0, 2.0, 1.0, 1.0),
    ],
)
def test_incomplete_beta(a: float, b: float, x: float, expected: float) -> None:
    assert student_t.incomplete_beta(a, b, x) == pytest.approx(expected, rel=1e-10, abs=0)


@pytest.mark.parametrize("p", [0.001, 0.2, 0.5, 0.9, 0.9995])
@pytest.mark.parametrize("df", [1.0, 2.7, 30.0, 4000.0])
def test_quantile_undoes_cdf(p: float, df: float) -> None:
    assert student_t.cdf(student_t.quantile(p, df=df), df=df) == pytest.approx(p, rel=1e-9)
