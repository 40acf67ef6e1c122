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

    @property
    def kept(self) -> Cost:
        """Work that stands, or whose fate is open."""
        return self.total - self.startup - self.lost

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
    costs = [*map(idle_cost, idle), *attempt_costs(usages, published=published)]
    return sum(costs, StageCost())


def idle_cost(usage: Usage) -> StageCost:
    """Of what was held without an attempt."""
    whole = held(usage, seconds=usage.wall_s)
    return StageCost(total=whole, startup=whole)


def attempt_costs(usages: Sequence[Usage], *, published: int | None) -> list[StageCost]:
    """Cost of each attempt of a stage, oldest first; for published see stage_cost."""
    costs = []
    for position, usage in enumerate(usages):
        startup_s = min(usage.startup_s, usage.wall_s)
        work_s = usage.wall_s - startup_s
        share = lost_of(usages, position, published=published)
        startup = held(usage, seconds=startup_s)
        # By difference, so that the parts never exceed the whole by a rounding.
        spoilt = held(usage, seconds=min(startup_s + work_s * share, usage.wall_s))
        costs.append(
            StageCost(
                total=held(usage, seconds=usage.wall_s), startup=startup, lost=spoilt - startup
            )
        )
    return costs


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
class JudgePay:
    """What judges were paid by all attempts of a judge stage; in no node-hour and no Cost."""

    micro_usd: int = 0
    """Metered by the tokens of all replies, where the model has a price."""
    unsure_micro_usd: int = 0
    """Of calls whose reply did not come: paid or not, nobody says. Not in micro_usd."""
    num_replies: int = 0
    num_asked: int = 0
    """Attempts that asked a judge."""
    num_unpriced: int = 0
    """Of these, with a model that has no price: what they paid is not known, and not counted."""

    @property
    def usd(self) -> float | None:
        """None where a part of it is not known."""
        return None if self.num_unpriced else self.micro_usd / 1e6

    @property
    def unsure_usd(self) -> float | None:
        """None where a part of it is not known."""
        return None if self.num_unpriced else self.unsure_micro_usd / 1e6

    def __add__(self, other: JudgePay) -> JudgePay:
        return JudgePay(
            micro_usd=self.micro_usd + other.micro_usd,
            unsure_micro_usd=self.unsure_micro_usd + other.unsure_micro_usd,
            num_replies=self.num_replies + other.num_replies,
            num_asked=self.num_asked + other.num_asked,
            num_unpriced=self.num_unpriced + other.num_unpriced,
        )


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
    judge: JudgePay = JudgePay()
    """Of all its judge stages, whole; beside standalone, not part of it."""
    judge_share: Cost = NOTHING
    """Its part of the known judge dollars when shared judge stages are divided equally; all cells'
    parts add up to what the study paid."""

    @property
    def judging(self) -> Cost:
        """What is known of the judge dollars."""
        return Cost(micro_usd=self.judge.micro_usd)

    @property
    def whole(self) -> Cost:
        """Standalone and judging: what Pareto fronts are made of."""
        return self.standalone + self.judging


def cell_costs(
    cells: Sequence[Cell],
    stages: Mapping[StageRef, StageCost],
    judges: Mapping[StageRef, JudgePay] | None = None,
) -> dict[str, CellCosts]:
    """Costs of every cell, by its name.

    stages: every stage that a cell needs.
    judges: the judge stages that paid.
    """
    judges = judges or {}
    paid = {ref: Cost(micro_usd=judges.get(ref, JudgePay()).micro_usd) for ref in stages}
    needs = {cell.name: sorted(set(cell.stages.values())) for cell in cells}
    shares = share_costs(needs, {ref: cost.total for ref, cost in stages.items()})
    judge_shares = share_costs(needs, paid)
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
            judge=sum((judges[ref] for ref in needs[cell.name] if ref in judges), JudgePay()),
            judge_share=judge_shares[cell.name],
        )
    return costs
