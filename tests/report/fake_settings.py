"""Settings that are nothing but a score and a cost, and pairs that are told apart or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scalesweep.cost_model.cost import Cost
from scalesweep.report.distinguishable import Pair
from scalesweep.report.settings import Setting
from scalesweep.report.statistics import Estimate


@dataclass(frozen=True, kw_only=True)
class FakeSetting(Setting):
    value: float
    usd: float

    def mean_cost(self, name: str) -> Cost:  # noqa: ARG002 - all costs are the same
        return Cost(micro_usd=round(self.usd * 1e6), node_ms=round(self.usd * 3.6e5))


def fake(label: str, value: float, usd: float) -> FakeSetting:
    """A node-hour costs 10 dollars."""
    return FakeSetting(label=label, cells=(), value=value, usd=usd)


def value_of(setting: Setting) -> float:
    assert isinstance(setting, FakeSetting)
    return setting.value


def usd_of(setting: Setting) -> float:
    assert isinstance(setting, FakeSetting)
    return setting.usd


def pairs_with(margin: float, *, told_apart_from: float) -> Callable[[Setting, Setting], Pair]:
    """A pair's interval is its difference ± margin; one that is large enough is told apart."""

    def pair(one: Setting, other: Setting) -> Pair:
        value = value_of(one) - value_of(other)
        p = 0.01 if abs(value) >= told_apart_from else 0.5
        return Pair(
            one=one,
            other=other,
            difference=Estimate(
                value=value,
                standard_error=margin / 2,
                df=100.0,
                low=value - margin,
                high=value + margin,
            ),
            p=p,
            corrected_p=p,
        )

    return pair
