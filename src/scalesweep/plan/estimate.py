"""What a plan is expected to cost: its cells, what they share, and how long it all takes.

Made of what was predicted of each stage (Execution.predicted); a stage that is done costs nothing
more.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from scalesweep.cost_model.cost import Cost, share_costs, total
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.records import StageRef


@dataclass(frozen=True, kw_only=True)
class CellEstimate:
    """Costs of one cell, with the meaning they have in reports (report/costs.py)."""

    tune: Cost
    standalone: Cost
    """All its stages, whole, also those that are done."""
    share: Cost
    """Its part of the study's stages, those that are done included."""
    to_run: Cost
    """Of its stages that are not done, whole."""
    judge_micro_usd: int
    """Of judges, besides all of these."""


@dataclass(frozen=True, kw_only=True)
class PlanEstimate:
    cells: Mapping[str, CellEstimate]
    total: Cost
    """Of all stages, each once."""
    to_run: Cost
    """Of those that are not done."""
    unshared: Cost
    """As if every cell made all its stages itself."""
    judge_micro_usd: int
    """Of judge stages that are not done."""
    unknown: tuple[StageRef, ...]
    """Stages of which nothing could be predicted; they count as nothing in all of this."""

    @property
    def saved_by_sharing(self) -> float:
        """Fraction of the unshared node-hours."""
        whole = self.unshared.node_ms
        return 1 - self.total.node_ms / whole if whole else 0.0


def stage_estimate(stage: PlannedStage) -> Cost:
    """Of one run of a stage, in whole numbers; nothing where nothing was predicted."""
    found = stage.execution.predicted
    if found is None:
        return Cost()
    return Cost(
        device_ms=round(found.wall_s * stage.execution.num_held_devices * 1e3),
        node_ms=round(found.node_hours * 3.6e6),
        micro_usd=round(found.usd * 1e6),
    )


def plan_estimate(plan: Plan, done: Set[StageRef]) -> PlanEstimate:
    """Sums over a plan whose stages carry predictions."""
    stages = {stage.ref: stage_estimate(stage) for stage in plan.stages}
    judges = {
        stage.ref: round(found.judge_usd * 1e6) if (found := stage.execution.predicted) else 0
        for stage in plan.stages
    }
    needs = {cell.name: sorted(set(cell.stages.values())) for cell in plan.cells}
    shares = share_costs(needs, stages)
    cells = {}
    for cell in plan.cells:
        refs = needs[cell.name]
        tune = cell.stages.get("tune")
        cells[cell.name] = CellEstimate(
            tune=stages[tune] if tune else Cost(),
            standalone=total(stages[ref] for ref in refs),
            share=shares[cell.name],
            to_run=total(stages[ref] for ref in refs if ref not in done),
            judge_micro_usd=sum(judges[ref] for ref in refs),
        )
    return PlanEstimate(
        cells=cells,
        total=total(stages.values()),
        to_run=total(cost for ref, cost in stages.items() if ref not in done),
        unshared=total(cell.standalone for cell in cells.values()),
        judge_micro_usd=sum(usd for ref, usd in judges.items() if ref not in done),
        unknown=tuple(s.ref for s in plan.stages if s.execution.predicted is None),
    )
