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

from scalesweep.cost_model.cost import NOTHING, Cost, share_costs, total
from scalesweep.plan.graph import Cell
from scalesweep.records import Outcome, StageKind, StageRef, Usage


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

    total: Cost = NOTHING
    startup: Cost = NOTHING
    """Before the first sample was worked on."""
    lost: Cost = NOTHING
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
        share = lost_of(usages, position, published=published)
        cost += StageCost(
            total=held(usage, seconds=usage.wall_s),
            startup=held(usage, seconds=startup_s),
            lost=held(usage, seconds=work_s * share),
        )
    return cost


def lost_of(usages: Sequence[Usage], position: int, *, published: int | None) -> float:
    """Fraction of one attempt's work (what follows its start-up) that came to nothing."""
    if published is not None and position >= published:
        return float(position > published)  # an orphan's work is read by nobody
    later = usages[position + 1] if position + 1 < len(usages) else None
    return lost_share(usages[position], later)


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
