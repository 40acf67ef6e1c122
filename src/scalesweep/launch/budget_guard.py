"""Holding a study to its budget while it runs, on this machine and on a cluster.

Whoever runs a stage (a scheduler here, a supervisor on a node) sums up for itself what all attempts
of the study have spent, and asks its own stage to stop at a checkpoint when that and its way to the
next checkpoint would be more than budget.json allows. Nobody has to be alive for others: there is
no one who counts for all.

How often they look depends on how soon the budget could be spent if every stage that is open ran at
once: seldom as long as much is left, every LOOK_S at the end.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.launch.budget import StudyBudget, budget_file, read_budget
from scalesweep.launch.failures import Failure
from scalesweep.plan.admission import NOTHING, Amount
from scalesweep.plan.graph import Plan
from scalesweep.plan.show_budget import amount_json, bounds_json, spent_text
from scalesweep.plan.spending import Spending, held_for, judge_micro_usd
from scalesweep.records import Execution, StageKind, StageRef
from scalesweep.rundir import ABSENT, AttemptDir, Store
from scalesweep.tracking import metric_names as names
from scalesweep.tracking.metric_rows import newest_rows

LOOK_S = 2.0
"""Between two looks when the budget is nearly spent; rank zero writes its account as often."""
SELDOM_S = 120.0
LARGEST_SHARE = 0.1
"""Of a supervisor's time for looking."""
PATIENCE_S = 20.0
"""The least time for a stage to stop in; then it is killed and goes on from an older checkpoint."""
NO_BUDGET_S = 60.0
"""Between two looks whether there is a budget meanwhile."""


def to_checkpoint_s(attempt: AttemptDir, execution: Execution) -> float | None:
    """Seconds of work from now to an attempt's next checkpoint, or to its end if that is nearer.

    By the median of its newest steps. 0 for what keeps its work as it goes (answers, replies); None
    before the first sample.
    """
    rows = [row for row in newest_rows(attempt.metrics) if names.PROGRESS_DONE in row]
    if not rows:
        return None
    steps = [float(row[names.STEP_SECONDS]) for row in rows if names.STEP_SECONDS in row]
    if not steps:
        return 0.0
    done, total = int(rows[0][names.PROGRESS_DONE]), int(rows[0][names.PROGRESS_TOTAL])
    every = execution.checkpoint_every_steps
    return statistics.median(steps) * min(every - done % every, max(0, total - done))


@dataclass(frozen=True, kw_only=True)
class Running:
    """An attempt that its caller runs, with what it has cost by the caller's own clock."""

    ref: StageRef
    attempt: AttemptDir
    execution: Execution
    cost: Amount


@dataclass(kw_only=True)
class Guard:
    """What one scheduler or supervisor knows of a study's budget and spending."""

    store: Store
    study: str
    tick_s: float = 0.0
    """How often the caller asks whether to stop."""
    account_age_s: float = 0.0
    """How old what others wrote of what runs may be."""
    held_to: StudyBudget | None = field(init=False, default=None)
    _spending: Spending | None = field(init=False, default=None)
    _seen: object = None
    _look_took_s: float = 0.0
    _judges: dict[StageRef, int] = field(default_factory=dict)

    def look(self, running: Collection[Running] = ()) -> Amount:
        """Read the bound, which may have been raised meanwhile, and what was spent.

        running: what the caller runs itself.
        """
        began = time.monotonic()
        self._read()
        if self._spending is None:
            return NOTHING
        self._spending.look()
        self._look_took_s = time.monotonic() - began
        return self.spent(running, anew=True)

    def has_changed(self) -> bool:
        """Whether the bound is another than at the last look; one call of stat."""
        with contextlib.suppress(OSError):
            return _mark(budget_file(self.store, self.study)) != self._seen
        return False

    def look_at(self, ref: StageRef, *, counted: int | None = None) -> None:
        """Read what one stage has spent, of which an attempt has just begun or ended.

        counted: as for Spending.look_at.
        """
        if self._spending is not None:
            self._spending.look_at(ref, counted=counted)

    def spent(self, running: Collection[Running] = (), *, anew: bool = False) -> Amount:
        """By the last looks, and to this moment for what the caller runs itself."""
        if self._spending is None:
            return NOTHING
        found = self._spending.total(besides={(one.ref, one.attempt.number) for one in running})
        for one in running:
            found += one.cost
            if one.ref.kind is StageKind.judge:
                if anew or one.ref not in self._judges:
                    self._judges[one.ref] = judge_micro_usd(one.attempt)
                found += Amount(micro_usd=self._judges[one.ref])
        return found

    def next_look_s(self, spent: Amount) -> float:
        """Seconds after which the budget could be spent, at least the least between two looks."""
        if self.held_to is None:
            return NO_BUDGET_S
        left, rate = self.held_to.budget.left(spent), self.held_to.per_hour
        waits = [SELDOM_S]
        if self.held_to.budget.micro_usd is not None and rate.micro_usd:
            waits.append(left.micro_usd / rate.micro_usd * 3600)
        if self.held_to.budget.node_ms is not None and rate.node_ms:
            waits.append(left.node_ms / rate.node_ms * 3600)
        # Not all at the same moment.
        return max(self._least_wait_s, min(waits) * random.uniform(0.8, 1.0))

    @property
    def _least_wait_s(self) -> float:
        """A slow file system is not kept busy with it."""
        return max(LOOK_S, self._look_took_s / LARGEST_SHARE)

    def refuses(self, ref: StageRef, execution: Execution, spent: Amount) -> str:
        """Why a stage must not begin now; empty where it may."""
        if self.held_to is None:
            return ""
        budget = self.held_to.budget
        if ref in self.held_to.left_out:
            return f"{budget} has no room for it"
        predicted = execution.predicted
        start = held_for(execution, predicted.startup_s if predicted is not None else 0.0)
        if budget.is_spent(spent) or not budget.holds(spent + start):
            return f"{budget} is spent"
        return ""

    def must_stop(self, one: Running, spent: Amount) -> bool:
        """Whether its way to the next checkpoint would be more than is allowed."""
        if self.held_to is None:
            return False
        budget = self.held_to.budget
        seconds = to_checkpoint_s(one.attempt, one.execution) or 0.0
        wait_s = self.tick_s
        if self.account_age_s:  # the caller asks only when it has looked
            wait_s = max(wait_s, self._least_wait_s)
        # All that runs goes on until then; what others run is known by its number only.
        others = max(0, self._spending.num_running - 1 if self._spending is not None else 0)
        seconds += wait_s + others * (wait_s + self.account_age_s)
        return budget.is_spent(spent) or not budget.holds(spent + held_for(one.execution, seconds))

    def has_begun(self, one: Running) -> bool:
        """Whether there is work of it that a checkpoint could keep."""
        if one.ref.kind is StageKind.judge:  # calls that are under way are paid
            return True
        return to_checkpoint_s(one.attempt, one.execution) is not None

    def patience_s(self, one: Running) -> float:
        """How long it may take to stop."""
        seconds = to_checkpoint_s(one.attempt, one.execution) or 0.0
        return max(PATIENCE_S, seconds + one.attempt.measured().lead_s)

    def text(self, spent: Amount) -> str:
        """What was spent of how much; empty where nothing bounds it."""
        return "" if self.held_to is None else spent_text(self.held_to.budget, spent)

    def cause(self, one: Running) -> str:
        """Why an attempt was stopped, for people."""
        assert self.held_to is not None
        where = "at a checkpoint" if self.has_begun(one) else "before it had done anything"
        return (
            f"{self.held_to.budget} would be overrun: stopped {where}; it goes on when the "
            "line is typed again with more"
        )

    def _read(self) -> None:
        mark = _mark(budget_file(self.store, self.study))
        if mark == self._seen:
            return
        self.held_to = read_budget(self.store, self.study)
        self._seen = mark  # only now: what cannot be read is read at the next look
        self._spending = None
        if self.held_to is not None:
            self._spending = Spending(
                store=self.store,
                study=self.study,
                stages=self.held_to.stages,
                base=self.held_to.base,
            )


def _mark(file: Path) -> tuple[int, int, int] | None:
    """Changes when the file is replaced."""
    with contextlib.suppress(*ABSENT):
        stat = os.stat(file)  # noqa: PTH116
        return stat.st_ino, stat.st_size, stat.st_mtime_ns
    return None


def budget_lines(plan: Plan, store: Store) -> list[str]:
    """How much of its budget a study has spent, and what to do for what was left; for people."""
    guard = Guard(store=store, study=plan.study)
    spent = guard.look()
    if guard.held_to is None:
        return []
    lines = [guard.text(spent)]
    waits = [stage.ref for stage in plan.stages if not store.stage(stage.ref).is_done]
    if waits and (
        guard.held_to.budget.is_spent(spent)
        or any(ref in guard.held_to.left_out or _was_stopped(store, ref) for ref in waits)
    ):
        lines.append("raise it and type the line again for what was stopped or left out")
    return lines


def _was_stopped(store: Store, ref: StageRef) -> bool:
    """Whether the newest attempt of a stage ended for the budget."""
    attempts = store.stage(ref).attempts()
    usage = None
    with contextlib.suppress(StoreError, KeyError, TypeError, ValueError):
        usage = attempts[-1].usage() if attempts else None
    return usage is not None and usage.failure == Failure.budget


def budget_json(plan: Plan, store: Store) -> dict[str, Any]:
    """{"usd", "node_hours", "order", "spent", "left", "over", "cells_left_out"}; empty without."""
    guard = Guard(store=store, study=plan.study)
    spent = guard.look()
    if (held_to := guard.held_to) is None:
        return {}
    budget = held_to.budget
    return {
        **bounds_json(budget),
        "spent": amount_json(spent),
        "left": amount_json(budget.left(spent)),
        "over": amount_json(budget.over(spent)),
        "cells_left_out": list(held_to.cells_left_out),
    }
