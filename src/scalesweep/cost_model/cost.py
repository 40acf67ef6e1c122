"""Amounts of cost in whole numbers, so that parts add up to their total exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from scalesweep.records import StageRef


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Devices held, the same in nodes, and its price."""

    device_ms: int = 0
    """Devices x milliseconds held."""
    node_ms: int = 0
    """Allocated devices / devices of a node x milliseconds."""
    micro_usd: int = 0

    @property
    def device_seconds(self) -> float:
        return self.device_ms / 1e3

    @property
    def node_hours(self) -> float:
        """The paper's "GPU hours per node"."""
        return self.node_ms / 3.6e6

    @property
    def usd(self) -> float:
        return self.micro_usd / 1e6

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            device_ms=self.device_ms + other.device_ms,
            node_ms=self.node_ms + other.node_ms,
            micro_usd=self.micro_usd + other.micro_usd,
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            device_ms=self.device_ms - other.device_ms,
            node_ms=self.node_ms - other.node_ms,
            micro_usd=self.micro_usd - other.micro_usd,
        )


NOTHING = Cost()


def total(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())


def share_costs(
    needs: Mapping[str, Sequence[StageRef]], stages: Mapping[StageRef, Cost]
) -> dict[str, Cost]:
    """Each cell's part of all stages; a stage is divided equally over the cells that need it."""
    needed_by: dict[StageRef, int] = {}
    for refs in needs.values():
        for ref in refs:
            needed_by[ref] = needed_by.get(ref, 0) + 1
    parts: dict[str, dict[str, int]] = {name: {} for name in needs}
    for unit in ("device_ms", "node_ms", "micro_usd"):
        exact = [
            sum((Fraction(getattr(stages[ref], unit), needed_by[ref]) for ref in refs), Fraction())
            for refs in needs.values()
        ]
        for name, whole in zip(needs, largest_remainder(exact), strict=True):
            parts[name][unit] = whole
    return {name: Cost(**part) for name, part in parts.items()}


def largest_remainder(exact: Sequence[Fraction]) -> list[int]:
    """Whole numbers next to the exact ones, with the same sum (which must be whole)."""
    whole = [value.numerator // value.denominator for value in exact]
    missing = sum(exact, Fraction()) - sum(whole)
    by_remainder = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[: int(missing)]:
        whole[i] += 1
    return whole
