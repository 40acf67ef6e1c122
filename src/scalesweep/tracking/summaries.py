"""A cell's costs and scores as flat names and numbers, as a run's summary takes them.

Costs are named as in the report's JSON, the tune stage's under the bare names as in the paper's
table 4. Predictions stand beside under the same names.
"""

from __future__ import annotations

from typing import Any

from scalesweep.cost_model.cost import Cost
from scalesweep.plan.estimate import plan_estimate
from scalesweep.plan.graph import Cell, Plan
from scalesweep.report.collect import CellResult
from scalesweep.report.costs import JudgePay
from scalesweep.report.scores import BenchmarkResult, CategoryResult

_OTHER_COSTS = ("standalone", "share", "startup", "lost", "evaluation")
"""Costs besides the tune stage's."""


def measured_costs(cell: CellResult) -> dict[str, Any]:
    """What a cell cost, counted from every attempt."""
    costs = cost("cost/", cell.costs.tune)
    for name in _OTHER_COSTS:
        costs |= cost(f"cost/{name}_", getattr(cell.costs, name))
    return {
        **costs,
        **judge_cost("cost/", cell.costs.judge),
        "cost/is_whole": cell.costs_are_whole,
    }


def predicted_costs(plan: Plan, cell: Cell) -> dict[str, float]:
    """What the plan expected of a cell; nothing where a stage of it has no prediction."""
    refs = set(cell.stages.values())
    found = [plan.stage(ref).execution.predicted for ref in refs]
    if not found or any(predicted is None for predicted in found):
        return {}
    expected = plan_estimate(plan, set()).cells[cell.name]
    return {
        **cost("predicted/", expected.tune),
        **cost("predicted/standalone_", expected.standalone),
        "predicted/judge_usd": expected.judge_micro_usd / 1e6,
    }


def cost(prefix: str, of: Cost) -> dict[str, float]:
    return {
        f"{prefix}node_hours": of.node_hours,
        f"{prefix}usd": of.usd,
        f"{prefix}device_seconds": of.device_seconds,
    }


def judge_cost(prefix: str, pay: JudgePay | None) -> dict[str, float]:
    """Nothing where no judge was asked, or a part of what it was paid is not known."""
    if pay is None or not pay.num_asked or pay.usd is None:
        return {}
    return {f"{prefix}judge_usd": pay.usd}


def scores(cell: CellResult) -> dict[str, Any]:
    """Of every benchmark and kind of question, after tuning and before."""
    found: dict[str, Any] = {}
    for benchmark, result in cell.scores.items():
        found |= _score(benchmark, result)
        found[f"missing/{benchmark}"] = result.num_missing
        for category, part in result.categories.items():
            found |= _score(f"{benchmark}/{category}", part)
    for benchmark, result in cell.before.items():
        found[f"score_before/{benchmark}"] = result.score
        if result.standard_error is not None:
            found[f"standard_error_before/{benchmark}"] = result.standard_error
    return found


def _score(name: str, result: BenchmarkResult | CategoryResult) -> dict[str, float]:
    said = {
        f"score/{name}": result.score,
        f"standard_error/{name}": result.standard_error,
        f"official/{name}": result.official,
    }
    return {key: value for key, value in said.items() if value is not None}
