"""What stages and cells cost, counted from every attempt, also those that failed or were killed.

Sums are made of whole numbers (thousandths of a second, millionths of a dollar), so that parts add
up to their total exactly.

Each cell has three costs:
    tune        its tune stage: what the paper's table 4 shows
    standalone  all its stages, whole, as if it were alone; unchanged when cells are added
    share       shared stages divided equally over this study's cells that need them; the shares of
                all cells add up to what the study's stages cost
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from scalesweep.plan.graph import Cell
from scalesweep.records import Outcome, StageKind, StageRef, Usage


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


def total(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())


def held(usage: Usage, *, seconds: float) -> Cost:
    """Cost of holding an attempt's devices for some seconds."""
    nodes = usage.num_devices / usage.node_devices if usage.num_devices else 0.0
    return Cost(
        device_ms=round(seconds * usage.num_devices * 1e3),
        node_ms=round(seconds * nodes * 1e3),
        micro_usd=round(seconds * nodes / 3600 * usage.usd_per_node_hour * 1e6),
    )


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """Cost of all attempts of a stage; the other fields are parts of the total."""

    total: Cost = Cost()
    startup: Cost = Cost()
    """Before the first sample was worked on."""
    lost: Cost = Cost()
    """Work that a later attempt did again, or that ended in an error."""

    def __add__(self, other: StageCost) -> StageCost:
        return StageCost(
            total=self.total + other.total,
            startup=self.startup + other.startup,
            lost=self.lost + other.lost,
        )


def stage_cost(
    usages: Sequence[Usage], *, published: int | None, idle: Iterable[Usage] = ()
) -> StageCost:
    """Cost of a stage from the usage of its attempts, oldest first.

    published: position of the attempt whose output was published, or None.
    idle: what was held besides without an attempt; it counts as start-up.
    """
    cost = StageCost()
    for usage in idle:
        held_idle = held(usage, seconds=usage.wall_s)
        cost += StageCost(total=held_idle, startup=held_idle)
    for position, usage in enumerate(usages):
        startup_s = min(usage.startup_s, usage.wall_s)
        work_s = usage.wall_s - startup_s
        later = usages[position + 1] if position + 1 < len(usages) else None
        if published is not None and position >= published:
            share = float(position > published)  # an orphan's work is read by nobody
        else:
            share = lost_share(usage, later)
        cost += StageCost(
            total=held(usage, seconds=usage.wall_s),
            startup=held(usage, seconds=startup_s),
            lost=held(usage, seconds=work_s * share),
        )
    return cost


def lost_share(usage: Usage, later: Usage | None) -> float:
    """Fraction of an attempt's work that came to nothing, by what the next attempt resumed from.

    Of the last attempt: nothing is known to be lost yet, unless it failed.
    """
    if later is None:
        return 1.0 if usage.outcome is Outcome.failed else 0.0
    if usage.steps == 0:
        return 1.0
    done_again = usage.first_step + usage.steps - later.first_step
    return min(max(done_again / usage.steps, 0.0), 1.0)


@dataclass(frozen=True, kw_only=True)
class CellCosts:
    tune: Cost
    standalone: Cost
    share: Cost
    startup: Cost
    """Part of standalone, as are the next two."""
    lost: Cost
    evaluation: Cost
    """Of the stages generate and judge."""


def cell_costs(cells: Sequence[Cell], stages: Mapping[StageRef, StageCost]) -> dict[str, CellCosts]:
    """Costs of every cell, by its name. stages: every stage that a cell needs."""
    needs = {cell.name: sorted(set(cell.stages.values())) for cell in cells}
    shares = share_costs(needs, {ref: cost.total for ref, cost in stages.items()})
    costs = {}
    for cell in cells:
        own = [stages[ref] for ref in needs[cell.name]]
        tune = cell.stages.get("tune")
        costs[cell.name] = CellCosts(
            tune=stages[tune].total if tune else Cost(),
            standalone=total(cost.total for cost in own),
            share=shares[cell.name],
            startup=total(cost.startup for cost in own),
            lost=total(cost.lost for cost in own),
            evaluation=total(
                stages[ref].total
                for ref in needs[cell.name]
                if ref.kind in (StageKind.generate, StageKind.judge)
            ),
        )
    return costs


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
