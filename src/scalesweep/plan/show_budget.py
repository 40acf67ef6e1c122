"""What a budget has room for and what would be left out, for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from scalesweep.plan.admission import Admission, Amount, Budget, CellPrice, admit, study_budget
from scalesweep.plan.graph import Cell, Plan
from scalesweep.plan.spending import Spending, kept_progress, study_spending
from scalesweep.rundir import Store

MOST_LINES = 20
"""Cells that are named; --json has all."""
ORDERS = {"cheapest": "cheapest cells first", "listed": "cells as listed"}


def study_admission(plan: Plan, store: Store, spending: Spending | None = None) -> Admission | None:
    """What a plan's budget has room for now; None where it has none.

    spending: of the study, where the caller goes on with it.
    """
    budget = study_budget(plan)
    if budget is None:
        return None
    return admit(
        plan,
        budget,
        done={s.ref for s in plan.stages if store.stage(s.ref).is_done},
        spent=(spending or study_spending(plan, store)).look(),
        progress=kept_progress(plan, store),
    )


def usd_text(usd: float) -> str:
    """$12,345.67, and three digits of what is below ten cents."""
    if usd >= 0.1 or usd <= 0:
        return f"${usd:,.2f}"
    return f"${usd:.{2 - math.floor(math.log10(usd))}f}"


def amount_text(budget: Budget, amount: Amount) -> str:
    """In what is bounded."""
    parts = []
    if budget.micro_usd is not None:
        parts.append(usd_text(amount.usd))
    if budget.node_ms is not None:
        parts.append(f"{amount.node_hours:,.3g} node-hours")
    return " and ".join(parts)


def spent_text(budget: Budget, spent: Amount) -> str:
    """How much of a budget is spent, and what is left or too much."""
    over = budget.over(spent)
    rest = f"{amount_text(budget, budget.left(spent))} left"
    if over != Amount():
        rest = f"{amount_text(budget, over)} over"
    return f"{budget}: {amount_text(budget, spent)} spent, {rest}"


def admission_lines(plan: Plan, admission: Admission, label: Callable[[Cell], str]) -> list[str]:
    """What is reserved and what is left out, with what each cell would add.

    label: what a cell is called.
    """
    budget, reserved = admission.budget, admission.reserved

    def text(amount: Amount) -> str:
        return amount_text(budget, amount)

    free = budget.left(admission.spent + reserved)
    lines = [
        f"{budget} ({ORDERS[budget.order]}): {text(admission.spent)} spent before, "
        f"{text(reserved)} reserved for {len(admission.admitted)} of {len(plan.cells)} cells, "
        f"{text(free)} free"
    ]
    if budget.over(admission.spent) != Amount():
        lines.append(f"  {text(budget.over(admission.spent))} more than that was spent already")
    if admission.left_out:
        lines.append(
            f"left out for want of room: {len(admission.left_out)} of {len(plan.cells)} cells; "
            "each would add (stages that admitted cells make are not counted)"
        )
        named = {cell.name: cell for cell in plan.cells}
        for price in admission.left_out[:MOST_LINES]:
            lines.append(f"  {label(named[price.name])}  {text(price.adds)}")
        if len(admission.left_out) > MOST_LINES:
            lines.append(f"  and {len(admission.left_out) - MOST_LINES:,} more cells")
    if admission.unknown:
        lines.append(
            f"{len(admission.unknown)} stages to run have no prediction and are reserved nothing; "
            "the budget holds while they run"
        )
    return lines


def admission_json(admission: Admission) -> dict[str, Any]:
    """{"usd", "node_hours", "order", "spent", "reserved", "admitted", "left_out", ...}."""
    return {
        **bounds_json(admission.budget),
        "spent": amount_json(admission.spent),
        "reserved": amount_json(admission.reserved),
        "admitted": [_price_json(cell) for cell in admission.admitted],
        "left_out": [_price_json(cell) for cell in admission.left_out],
        "stages_left_out": sorted(str(ref) for ref in admission.stages_left_out),
        "stages_without_prediction": len(admission.unknown),
    }


def bounds_json(budget: Budget) -> dict[str, Any]:
    return {
        "usd": None if budget.micro_usd is None else budget.micro_usd / 1e6,
        "node_hours": None if budget.node_ms is None else budget.node_ms / 3.6e6,
        "order": budget.order,
    }


def amount_json(amount: Amount) -> dict[str, float]:
    return {"usd": amount.usd, "node_hours": amount.node_hours}


def _price_json(cell: CellPrice) -> dict[str, Any]:
    return {"cell": cell.name, "adds": amount_json(cell.adds)}
