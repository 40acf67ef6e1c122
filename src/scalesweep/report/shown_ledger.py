"""A ledger in the digits it is shown in: every row, column and total of it adds up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from scalesweep.cost_model.cost import Cost, in_units
from scalesweep.cost_model.rounding import Row, rounded
from scalesweep.report import formatting as fmt
from scalesweep.report.ledger import LedgerRow, Part

MS_PER_HOUR = 3_600_000


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What amounts are shown in."""

    per_one: int
    """Smallest units (millionths of a dollar, thousandths of a second) in one dollar, or hour."""
    decimals: int

    @property
    def unit(self) -> int:
        """Smallest units in the last digit that is shown."""
        return self.per_one // int(10**self.decimals)

    def text(self, units: int) -> str:
        return fmt.number(units / 10**self.decimals, decimals=self.decimals)


def measure_of(total: int, *, per_one: int, most: int) -> Measure:
    """With four digits of the total or two decimals, whatever is more; most: decimals."""
    ones = total / per_one
    wanted = 3 - math.floor(math.log10(ones)) if ones > 0 else 2
    return Measure(per_one=per_one, decimals=min(max(wanted, 2), most))


@dataclass(frozen=True, kw_only=True)
class ShownLedger:
    """Amounts by what was paid for are dollars, or node-hours where there are no prices."""

    rows: tuple[LedgerRow, ...]
    has_prices: bool

    @property
    def parts(self) -> tuple[Part, ...]:
        """Those that have a column: judges are paid in dollars alone, and not by every study."""
        has_judges = self.has_prices and any(row.judges.num_asked for row in self.rows)
        return tuple(part for part in Part if part is not Part.judges or has_judges)

    @cached_property
    def measure(self) -> Measure:
        total = sum(map(self.exact, self.rows))
        if self.has_prices:
            return measure_of(total, per_one=1_000_000, most=6)
        return measure_of(total, per_one=MS_PER_HOUR, most=5)

    def exact(self, row: LedgerRow) -> int:
        """All that was paid, in the smallest unit."""
        return sum(self.amount(row.parts[part]) for part in self.parts)

    def amount(self, cost: Cost) -> int:
        """In the smallest unit."""
        return cost.micro_usd if self.has_prices else cost.node_ms

    @cached_property
    def amounts(self) -> list[dict[Part, int]]:
        """Of each row, in units of the last digit that is shown."""
        rows = [
            Row(
                group=row.payer,
                amounts={str(part): self.amount(row.parts[part]) for part in self.parts},
            )
            for row in self.rows
        ]
        return [
            {Part(name): value for name, value in row.items()}
            for row in rounded(rows, unit=self.measure.unit)
        ]

    @cached_property
    def by_payer(self) -> dict[str, dict[Part, int]]:
        """Sums of amounts, in the order of first payment."""
        found: dict[str, dict[Part, int]] = {}
        for row, amounts in zip(self.rows, self.amounts, strict=True):
            paid = found.setdefault(row.payer, dict.fromkeys(self.parts, 0))
            for part, value in amounts.items():
                paid[part] += value
        return found

    @property
    def total(self) -> dict[Part, int]:
        return {part: sum(paid[part] for paid in self.by_payer.values()) for part in self.parts}

    @cached_property
    def device_hours(self) -> list[str]:
        """Of each row, and of all."""
        return hours([row.cost.total.device_ms for row in self.rows])

    @cached_property
    def node_hours(self) -> list[str]:
        """Of each row, and of all."""
        return hours([row.cost.total.node_ms for row in self.rows])


def hours(milliseconds: Sequence[int]) -> list[str]:
    """As texts that add up to the last one, their total."""
    measure = measure_of(sum(milliseconds), per_one=MS_PER_HOUR, most=5)
    shown = in_units(milliseconds, measure.unit)
    return [measure.text(value) for value in (*shown, sum(shown))]
