"""What cost is counted in: dollars, or node-hours where there are no prices."""

from __future__ import annotations

import enum

from scalesweep.cost_model.cost import Cost
from scalesweep.report import formatting as fmt


class CostUnit(enum.StrEnum):
    usd = "usd"
    node_hours = "node_hours"

    def of(self, cost: Cost) -> float:
        return cost.usd if self is CostUnit.usd else cost.node_hours

    def text(self, value: float, *, decimals: int | None = None) -> str:
        """ "$1.20" | "0.25 node-hours"; decimals: None gives it two digits at least."""
        if decimals is None:
            decimals = fmt.decimals_for([value], most=9)
        if self is CostUnit.usd:
            return fmt.usd(value, decimals=decimals)
        return f"{fmt.number(value, decimals=decimals)} node-hours"

    def texts(self, *values: float) -> list[str]:
        """With as many decimals each, so that they can be compared."""
        decimals = fmt.decimals_for(values, most=9)
        return [self.text(value, decimals=decimals) for value in values]
