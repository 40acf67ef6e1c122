"""The best setting that one run of can be had under a ceiling, and whether a cheaper one would do.

Not to be confused with a study's budget, which is what all of it may cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scalesweep.errors import ConfigError
from scalesweep.report.cost_unit import CostUnit
from scalesweep.report.distinguishable import Pair
from scalesweep.report.settings import Setting


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What one run of a setting may cost: all its stages, and its judges in dollars."""

    value: float
    unit: CostUnit

    @property
    def text(self) -> str:
        return self.unit.text(self.value)


@dataclass(frozen=True, kw_only=True)
class BestUnder:
    ceiling: Ceiling
    best: Setting | None
    """Scores highest of those that cost no more; None: the ceiling is below them all."""
    alike: tuple[Setting, ...]
    """Cheaper and not told apart from it, or not comparable with it, the cheapest first."""
    affordable: tuple[Setting, ...]
    """By rising cost."""
    cheapest: Setting | None
    """Of all settings, affordable or not."""


def parsed_ceiling(text: str, *, has_prices: bool) -> Ceiling:
    """Of `--under`: "150", "usd=150" or "node_hours=6.5".

    Raises:
        ConfigError: no number above zero, no such unit, or dollars where there are no prices.
    """
    name, equals, number = text.rpartition("=")
    if not equals:
        name = CostUnit.usd
    if name not in set(CostUnit):
        raise ConfigError(f"--under={text}: {name} is no unit; choose {' or '.join(CostUnit)}")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(
            f"--under={text}: takes a number above 0, of dollars (150) or of node-hours "
            "(node_hours=6.5), for one run of a setting"
        )
    unit = CostUnit(name)
    if unit is CostUnit.usd and not has_prices:
        raise ConfigError(
            f"--under={text}: this study was run without prices (cluster.usd_per_node_hour); "
            "say node_hours=..."
        )
    return Ceiling(value=value, unit=unit)


def best_under(
    settings: Sequence[Setting],
    ceiling: Ceiling,
    *,
    score: Callable[[Setting], float],
    pair: Callable[[Setting, Setting], Pair | None],
) -> BestUnder:
    """settings: with a score and a cost that will not grow. Of equals the cheapest wins."""

    def cost(setting: Setting) -> float:
        return ceiling.unit.of(setting.mean_cost("whole"))

    by_cost = sorted(settings, key=cost)
    affordable = tuple(setting for setting in by_cost if cost(setting) <= ceiling.value)
    best = max(affordable, key=score, default=None)  # the first of equals: the cheapest
    alike = tuple(
        setting
        for setting in affordable
        if best is not None
        and cost(setting) < cost(best)
        and ((found := pair(best, setting)) is None or not found.is_told_apart)
    )
    return BestUnder(
        ceiling=ceiling,
        best=best,
        alike=alike,
        affordable=affordable,
        cheapest=by_cost[0] if by_cost else None,
    )
