"""How much a study may spend (conf/budget/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import positive


@dataclass(kw_only=True)
class BudgetConfig:
    """No new stage starts once the study has spent as much; what runs is finished."""

    usd: float | None = None
    """Dollars; null: no bound."""
    node_hours: float | None = None
    """Node-hours; null: no bound."""

    def __post_init__(self) -> None:
        positive("budget.usd", self.usd)
        positive("budget.node_hours", self.node_hours)
