"""How much a study may spend (conf/budget/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import one_of, positive

ORDERS = ("cheapest", "listed")


@dataclass(kw_only=True)
class BudgetConfig:
    """What is predicted not to fit is not begun; what runs stops at a checkpoint at the bound.

    Both bounds may be set. What attempts of the study have spent counts, whichever command began
    them and however they ended.
    """

    usd: float | None = None
    """Dollars, of nodes and of judges; null: no bound."""
    node_hours: float | None = None
    """Node-hours; null: no bound."""
    order: str = "cheapest"
    """Which cells come first: cheapest (by what a cell adds to those before) | listed."""

    def __post_init__(self) -> None:
        positive("budget.usd", self.usd)
        positive("budget.node_hours", self.node_hours)
        one_of("budget.order", self.order, ORDERS)
