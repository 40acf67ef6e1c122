"""What the next point of score costs: steps from one setting to a dearer one. A point is 0.01.

The gain of a step is compared in pairs, question by question, and the interval of the price is that
of the gain. Costs count as measured: their own error is not in it. Where the two settings are not
told apart there is no price: it could be any number, infinity among them. All that is known then is
what a point costs at the least, by the upper end of the gain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from scalesweep.report.distinguishable import Pair
from scalesweep.report.settings import Setting
from scalesweep.report.statistics import Estimate

POINT = 0.01
"""Of a score that is a fraction of 1."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """Cost of a point of score with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """From a setting to a dearer one."""

    before: Setting
    after: Setting
    extra_cost: float
    """In the unit of the report; above 0."""
    pair: Pair | None
    """Seen from the dearer one; None: not comparable."""

    @property
    def gain(self) -> Estimate | None:
        """Of score, 95 %."""
        return self.pair.difference if self.pair is not None else None

    @property
    def per_point(self) -> Price | None:
        """Extra cost of each point gained; None where the two are not told apart."""
        if self.pair is None or not self.pair.is_told_apart or self.pair.difference.low <= 0:
            return None
        cost, gain = self.extra_cost * POINT, self.pair.difference
        return Price(value=cost / gain.value, low=cost / gain.high, high=cost / gain.low)

    @property
    def at_least(self) -> float | None:
        """Lower end of the price's interval; None where no gain at all is in that of the gain."""
        if self.gain is None or self.gain.high <= 0:
            return None
        return self.extra_cost * POINT / self.gain.high


def neighbour_steps(
    front: Sequence[Setting],
    *,
    cost: Callable[[Setting], float],
    pair: Callable[[Setting, Setting], Pair | None],
) -> tuple[Step, ...]:
    """From each setting of the front to the next dearer one; one fewer than settings."""
    return tuple(
        Step(
            before=before,
            after=after,
            extra_cost=cost(after) - cost(before),
            pair=pair(after, before),
        )
        for before, after in pairwise(front)
    )


def shown_steps(
    front: Sequence[Setting],
    *,
    cost: Callable[[Setting], float],
    pair: Callable[[Setting, Setting], Pair | None],
) -> tuple[Step, ...]:
    """Steps worth naming: from the cheapest to the cheapest that is told apart, and so on.

    Settings of the front in between are left out: what they gain may be luck.
    """
    steps: list[Step] = []
    for setting in front[1:]:
        before = steps[-1].after if steps else front[0]
        (step,) = neighbour_steps((before, setting), cost=cost, pair=pair)
        if step.per_point is not None:
            steps.append(step)
    return tuple(steps)
