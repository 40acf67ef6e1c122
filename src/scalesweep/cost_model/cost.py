"""Amounts of cost in whole numbers, so that parts add up to their total exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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
    device_ms = node_ms = micro_usd = 0
    for cost in costs:
        device_ms += cost.device_ms
        node_ms += cost.node_ms
        micro_usd += cost.micro_usd
    return Cost(device_ms=device_ms, node_ms=node_ms, micro_usd=micro_usd)


def share_costs(
    needs: Mapping[str, Sequence[StageRef]], stages: Mapping[StageRef, Cost]
) -> dict[str, Cost]:
    """Each cell's part of all stages; a stage is divided equally over the cells that need it."""
    needed_by: dict[StageRef, int] = {}
    for refs in needs.values():
        for ref in refs:
            needed_by[ref] = needed_by.get(ref, 0) + 1
    # In parts of a unit that divide by every number of cells, so that all is whole numbers.
    parts = math.lcm(*needed_by.values())
    weights = {ref: parts // count for ref, count in needed_by.items()}
    units = []
    for unit in ("device_ms", "node_ms", "micro_usd"):
        amounts = {ref: getattr(stages[ref], unit) * weights[ref] for ref in needed_by}
        exact = [sum(amounts[ref] for ref in refs) for refs in needs.values()]
        units.append(in_units(exact, parts))
    return {
        name: Cost(device_ms=device_ms, node_ms=node_ms, micro_usd=micro_usd)
        for name, device_ms, node_ms, micro_usd in zip(needs, *units, strict=True)
    }


def in_units(exact: Sequence[int], parts: int) -> list[int]:
    """Whole units next to amounts that are counted in so many parts of one, by largest remainder:
    their sum is the nearest to that of the amounts."""
    whole = [amount // parts for amount in exact]
    missing = (2 * sum(exact) + parts) // (2 * parts) - sum(whole)
    by_remainder = sorted(range(len(exact)), key=lambda i: (whole[i] * parts - exact[i], i))
    for i in by_remainder[:missing]:
        whole[i] += 1
    return whole
