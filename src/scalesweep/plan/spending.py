"""What a study has spent, by what its attempts wrote down; and how far stages are that go on.

Attempts count for the study whose command began them (Execution.study), whatever became of them.
What was not written down who pays counts for every study that has the stage in its plan. Judge
dollars are those of judging.json, with what may have been paid for replies that did not come.

Accounts of attempts that ended are read once. Of one that runs it is up to two seconds old, as
often as its rank zero writes it (launch/rank.py); clocks are not compared.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scalesweep.errors import StoreError
from scalesweep.plan.admission import NOTHING, Amount
from scalesweep.plan.graph import Plan
from scalesweep.records import Outcome, StageKind, StageRef, Usage
from scalesweep.rundir import ABSENT, AttemptDir, Store, read_json
from scalesweep.tracking import metric_names as names
from scalesweep.tracking.metric_rows import last_row

UNREADABLE = (OSError, StoreError, KeyError, TypeError, ValueError, AttributeError)


def held(usage: Usage) -> Amount:
    """Of the devices that an attempt held."""
    return Amount(micro_usd=round(usage.cost_usd * 1e6), node_ms=round(usage.node_hours * 3.6e6))


@dataclass(kw_only=True)
class Spending:
    """A study's spending, looked at again and again."""

    store: Store
    study: str
    stages: Iterable[StageRef]
    """All that attempts of the study may be at."""
    _closed: dict[StageRef, dict[int, Amount]] = field(default_factory=dict)
    """Attempts that ended, by number; of those that others pay nothing."""
    _settled: set[StageRef] = field(default_factory=set)
    """Stages that are done: nothing follows."""

    def __post_init__(self) -> None:
        self.stages = sorted(set(self.stages))

    def look(self, *, besides: Mapping[StageRef, frozenset[int]] | None = None) -> Amount:
        """All that was spent so far.

        besides: numbers of attempts that the caller counts itself.
        """
        found = NOTHING
        for ref in self.stages:
            closed = self._closed.setdefault(ref, {})
            own = (besides or {}).get(ref, frozenset())
            if ref not in self._settled:
                found += self._newly(ref, closed, own)
            found += sum((amount for n, amount in closed.items() if n not in own), NOTHING)
        return found

    def _newly(self, ref: StageRef, closed: dict[int, Amount], own: frozenset[int]) -> Amount:
        """Read what is not known of a stage; what of it still runs."""
        stage = self.store.stage(ref)
        is_done = stage.done_file.exists()  # first: who ends it publishes, then closes
        running, is_open = NOTHING, False
        for attempt in stage.attempts():
            number = attempt.number
            if number in closed:
                continue
            amount, ended = self._of(ref, attempt)
            if ended:
                closed[number] = amount
            else:
                is_open = True
                running += NOTHING if number in own else amount
        if is_done and not is_open:
            self._settled.add(ref)
        return running

    def _of(self, ref: StageRef, attempt: AttemptDir) -> tuple[Amount, bool]:
        """What an attempt has cost the study, and whether it has ended."""
        usage = None
        with contextlib.suppress(*UNREADABLE):
            usage = attempt.usage()
        if usage is None:
            return NOTHING, False
        ended = usage.outcome is not Outcome.running
        if paid_by(attempt) not in (self.study, ""):
            return NOTHING, True
        amount = held(usage)
        if ref.kind is StageKind.judge:
            amount += Amount(micro_usd=judge_micro_usd(attempt))
        return amount, ended


def paid_by(attempt: AttemptDir) -> str:
    """The study whose command began an attempt; empty where that is not known."""
    with contextlib.suppress(*UNREADABLE):
        return str(read_json(attempt.execution_file).get("study") or "")
    return ""


def judge_micro_usd(attempt: AttemptDir) -> int:
    """What an attempt may have paid to judges; 0 where it asked none, or one without a price."""
    with contextlib.suppress(*UNREADABLE):
        account = read_json(attempt.path / "judging.json")
        return round(((account["usd"] or 0.0) + (account["unsure_usd"] or 0.0)) * 1e6)
    return 0


def paid_stages(store: Store, study: str) -> set[StageRef]:
    """Every stage of a store at which attempts of a study were, in its plan of today or not."""
    found = set()
    for kind in StageKind:
        for key in _names(store.root / "stages" / kind):
            ref = StageRef(kind=kind, key=key)
            if any(paid_by(attempt) == study for attempt in store.stage(ref).attempts()):
                found.add(ref)
    return found


def _names(folder: os.PathLike[str]) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except ABSENT:
        return []


def study_spending(plan: Plan, store: Store) -> Spending:
    """Of a plan's study, whatever it had in its plan before."""
    stages = {stage.ref for stage in plan.stages} | paid_stages(store, plan.study)
    return Spending(store=store, study=plan.study, stages=stages)


def kept_progress(plan: Plan, store: Store) -> dict[StageRef, float]:
    """Fraction of the work of stages that are not done which their next attempt finds done."""
    found = {}
    for stage in plan.stages:
        folder = store.stage(stage.ref)
        if folder.done_file.exists():
            continue
        every = stage.execution.checkpoint_every_steps
        parts = [_kept(attempt, every=every) for attempt in folder.attempts()]
        if best := max(parts, default=0.0):
            found[stage.ref] = best
    return found


def _kept(attempt: AttemptDir, *, every: int) -> float:
    """Of one attempt; of one that did not stop by itself what its last checkpoint must have."""
    with contextlib.suppress(*UNREADABLE):
        row, usage = last_row(attempt.metrics), attempt.usage()
        done, total = int(row[names.PROGRESS_DONE]), int(row[names.PROGRESS_TOTAL])
        if names.STEP in row and (usage is None or usage.outcome is not Outcome.interrupted):
            done -= done % every
        return done / total if total else 0.0
    return 0.0
