"""Which cells of a plan a budget has room for, by what is predicted of their stages. Pure.

Cells come one after the other: the cheapest first, where a cell costs what it adds to those that
were admitted before it (a stage they share is paid once), or as the sweep lists them. One that does
not fit is left out, and those behind it are looked at all the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Set
from dataclasses import dataclass

from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.records import StageRef


@dataclass(frozen=True, kw_only=True)
class Amount:
    """What is spent or would be, in whole numbers."""

    micro_usd: int = 0
    """Of nodes and of judges."""
    node_ms: int = 0
    """Allocated devices / devices of a node x milliseconds."""

    @property
    def usd(self) -> float:
        return self.micro_usd / 1e6

    @property
    def node_hours(self) -> float:
        return self.node_ms / 3.6e6

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            micro_usd=self.micro_usd + other.micro_usd, node_ms=self.node_ms + other.node_ms
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            micro_usd=self.micro_usd - other.micro_usd, node_ms=self.node_ms - other.node_ms
        )


NOTHING = Amount()


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Bounds of a study; at least one of them is there."""

    micro_usd: int | None = None
    node_ms: int | None = None
    order: str = "cheapest"

    @classmethod
    def of(
        cls, *, usd: float | None, node_hours: float | None, order: str = "cheapest"
    ) -> Budget | None:
        """As configured; None where nothing is bounded."""
        if usd is None and node_hours is None:
            return None
        return cls(
            micro_usd=None if usd is None else round(usd * 1e6),
            node_ms=None if node_hours is None else round(node_hours * 3.6e6),
            order=order,
        )

    def holds(self, amount: Amount) -> bool:
        """Whether an amount is within all bounds."""
        return (self.micro_usd is None or amount.micro_usd <= self.micro_usd) and (
            self.node_ms is None or amount.node_ms <= self.node_ms
        )

    def is_spent(self, amount: Amount) -> bool:
        """Whether nothing is left of some bound."""
        return (self.micro_usd is not None and amount.micro_usd >= self.micro_usd) or (
            self.node_ms is not None and amount.node_ms >= self.node_ms
        )

    def over(self, amount: Amount) -> Amount:
        """How far an amount is beyond each bound."""
        return Amount(
            micro_usd=0 if self.micro_usd is None else max(0, amount.micro_usd - self.micro_usd),
            node_ms=0 if self.node_ms is None else max(0, amount.node_ms - self.node_ms),
        )

    def left(self, amount: Amount) -> Amount:
        """What is left of each bound; nothing of one that is not there."""
        return Amount(
            micro_usd=0 if self.micro_usd is None else max(0, self.micro_usd - amount.micro_usd),
            node_ms=0 if self.node_ms is None else max(0, self.node_ms - amount.node_ms),
        )

    def measure(self, amount: Amount) -> int:
        """What cells are ordered by: dollars where they are bounded, else node time."""
        return amount.node_ms if self.micro_usd is None else amount.micro_usd

    def __str__(self) -> str:
        bounds = []
        if self.micro_usd is not None:
            bounds.append(f"budget.usd={self.micro_usd / 1e6:.10g}")
        if self.node_ms is not None:
            bounds.append(f"budget.node_hours={self.node_ms / 3.6e6:.10g}")
        return " ".join(bounds)


def study_budget(plan: Plan) -> Budget | None:
    """The budget that a plan's settings name, one for all its cells; None: there is none."""
    found = plan.cells[0].config.get("budget") or {} if plan.cells else {}
    return Budget.of(
        usd=found.get("usd"),
        node_hours=found.get("node_hours"),
        order=found.get("order", "cheapest"),
    )


def still_to_pay(stage: PlannedStage, *, progress: float = 0.0) -> Amount:
    """Of a stage that is not done, to its end; nothing where nothing was predicted.

    progress: fraction of its work that an earlier attempt has left to go on from. Its start-up is
        paid again.
    """
    found = stage.execution.predicted
    if found is None:
        return NOTHING
    work = found.work_s * (1 - min(max(progress, 0.0), 1.0))
    part = (found.startup_s + work) / found.wall_s if found.wall_s else 1.0
    judge_usd = found.judge_usd * (1 - min(max(progress, 0.0), 1.0))
    return Amount(
        micro_usd=round((found.usd * part + judge_usd) * 1e6),
        node_ms=round(found.node_hours * part * 3.6e6),
    )


@dataclass(frozen=True, kw_only=True)
class CellPrice:
    """What a cell adds to those that were admitted before it; of one left out, to all of them."""

    name: str
    adds: Amount


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What a budget has room for."""

    budget: Budget
    spent: Amount
    """By the study, before."""
    admitted: tuple[CellPrice, ...]
    """In the order in which they were admitted."""
    left_out: tuple[CellPrice, ...]
    """As the sweep lists them."""
    stages: frozenset[StageRef]
    """That admitted cells still need."""
    stages_left_out: frozenset[StageRef]
    """That only cells need which are left out."""
    unknown: tuple[StageRef, ...]
    """To run, and nothing is predicted of them: they count as nothing here."""

    @property
    def reserved(self) -> Amount:
        return sum((cell.adds for cell in self.admitted), NOTHING)


def admit(
    plan: Plan,
    budget: Budget,
    *,
    done: Set[StageRef],
    spent: Amount = NOTHING,
    progress: Mapping[StageRef, float] | None = None,
) -> Admission:
    """The cells that a budget has room for, given what was spent.

    done: stages that cost nothing any more.
    progress: fraction of a stage's work that is kept of earlier attempts.
    """
    prices = {
        stage.ref: still_to_pay(stage, progress=(progress or {}).get(stage.ref, 0.0))
        for stage in plan.stages
        if stage.ref not in done
    }
    cells = _Cells(plan, prices, budget)
    admitted: list[CellPrice] = []
    left_out: list[int] = []
    reserved = NOTHING
    while (number := cells.next()) is not None:
        adds = cells.adds[number]
        fits = not budget.is_spent(spent) and budget.holds(spent + reserved + adds)
        if fits or cells.is_free(number):
            reserved += adds
            admitted.append(CellPrice(name=plan.cells[number].name, adds=adds))
            cells.take(number)
        else:
            left_out.append(number)
    return Admission(
        budget=budget,
        spent=spent,
        admitted=tuple(admitted),
        left_out=tuple(
            CellPrice(name=plan.cells[n].name, adds=cells.adds[n]) for n in sorted(left_out)
        ),
        stages=frozenset(cells.taken),
        stages_left_out=frozenset(prices.keys() - cells.taken),
        unknown=tuple(
            s.ref for s in plan.stages if s.ref in prices and s.execution.predicted is None
        ),
    )


class _Cells:
    """A plan's cells in the order of a budget, and what each would add to those taken so far."""

    def __init__(self, plan: Plan, prices: Mapping[StageRef, Amount], budget: Budget) -> None:
        self.taken: set[StageRef] = set()
        self.needs = [
            sorted(ref for ref in plan.needed_by(cell) if ref in prices) for cell in plan.cells
        ]
        self.adds = [sum((prices[ref] for ref in refs), NOTHING) for refs in self.needs]
        self._prices, self._budget = prices, budget
        self._users: dict[StageRef, list[int]] = {}
        for number, refs in enumerate(self.needs):
            for ref in refs:
                self._users.setdefault(ref, []).append(number)
        self._waiting = set(range(len(self.needs)))
        self._heap = [(self._rank(number), number) for number in self._waiting]
        heapq.heapify(self._heap)

    def next(self) -> int | None:
        """The next cell that was not looked at; None when all were."""
        while self._heap:
            rank, number = heapq.heappop(self._heap)
            # What became cheaper meanwhile stands in the heap again.
            if number in self._waiting and rank == self._rank(number):
                self._waiting.remove(number)
                return number
        return None

    def is_free(self, number: int) -> bool:
        """Whether nothing has to be begun for it."""
        return all(ref in self.taken for ref in self.needs[number])

    def take(self, number: int) -> None:
        for ref in self.needs[number]:
            if ref in self.taken:
                continue
            self.taken.add(ref)
            for other in self._users[ref]:
                self.adds[other] -= self._prices[ref]
                if other in self._waiting:
                    heapq.heappush(self._heap, (self._rank(other), other))

    def _rank(self, number: int) -> int:
        """Cells of equal rank come as they are listed."""
        return self._budget.measure(self.adds[number]) if self._budget.order == "cheapest" else 0
