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
from collections.abc import Collection
from dataclasses import dataclass, field

from scalesweep.errors import StoreError
from scalesweep.plan.admission import NOTHING, Amount
from scalesweep.plan.graph import Plan
from scalesweep.records import Execution, Outcome, StageKind, StageRef, Usage
from scalesweep.rundir import ABSENT, AttemptDir, Store, read_json
from scalesweep.tracking import metric_names as names
from scalesweep.tracking.metric_rows import last_row

UNREADABLE = (OSError, StoreError, KeyError, TypeError, ValueError, AttributeError)


def held(usage: Usage) -> Amount:
    """Of the devices that an attempt held."""
    return Amount(micro_usd=round(usage.cost_usd * 1e6), node_ms=round(usage.node_hours * 3.6e6))


def held_for(execution: Execution, seconds: float) -> Amount:
    """Of the devices of an attempt for so long."""
    nodes = execution.num_held_devices / execution.node_devices
    return Amount(
        micro_usd=round(nodes * seconds / 3600 * execution.usd_per_node_hour * 1e6),
        node_ms=round(nodes * seconds * 1e3),
    )


@dataclass(kw_only=True)
class Spending:
    """A study's spending, looked at again and again."""

    store: Store
    study: str
    stages: Collection[StageRef]
    """All that attempts of the study may be at, but those that base is about."""
    base: Amount = NOTHING
    """Of stages of which all is known: nothing follows."""
    _ended: dict[StageRef, dict[int, Amount]] = field(default_factory=dict)
    """Attempts that ended, by number; those that others paid cost nothing."""
    _running: dict[StageRef, dict[int, Amount]] = field(default_factory=dict)
    _open: list[StageRef] = field(init=False)
    """Stages at which something may follow."""

    def __post_init__(self) -> None:
        self._open = sorted(set(self.stages))

    def look(self) -> Amount:
        """All that was spent so far."""
        for ref in list(self._open):
            self.look_at(ref)
        return self.total()

    def look_at(self, ref: StageRef, *, counted: int | None = None) -> None:
        """Read what is not known of one stage.

        counted: of a stage that begins again though nothing was to follow (its output was damaged),
            the last attempt that base holds.
        """
        if counted is not None and ref not in self._open:
            self._open.append(ref)
            self._ended[ref] = dict.fromkeys(range(counted + 1), NOTHING)
        stage = self.store.stage(ref)
        is_done = stage.is_done  # first: who ends it publishes, then closes
        ended = self._ended.setdefault(ref, {})
        running: dict[int, Amount] = {}
        for attempt in stage.attempts():
            if attempt.number not in ended:
                amount, has_ended = self._of(ref, attempt)
                (ended if has_ended else running)[attempt.number] = amount
        self._running[ref] = running
        if is_done and not running and ref in self._open:
            self._open.remove(ref)
            self.base += sum(ended.values(), NOTHING)
            del self._ended[ref], self._running[ref]

    def total(self, *, besides: Collection[tuple[StageRef, int]] = ()) -> Amount:
        """As of the last looks.

        besides: running attempts, by stage and number, that the caller counts itself.
        """
        found = self.base
        for ref in self._open:
            found += sum(self._ended.get(ref, {}).values(), NOTHING)
            for number, amount in self._running.get(ref, {}).items():
                found += NOTHING if (ref, number) in besides else amount
        return found

    @property
    def num_running(self) -> int:
        """Stages whose newest attempt had not ended at the last look; older ones are dead."""
        return sum(
            bool(attempts) and max(attempts) > max(self._ended.get(ref, ()), default=-1)
            for ref, attempts in self._running.items()
        )

    @property
    def open_stages(self) -> tuple[StageRef, ...]:
        return tuple(self._open)

    def _of(self, ref: StageRef, attempt: AttemptDir) -> tuple[Amount, bool]:
        """What an attempt has cost the study, and whether it has ended."""
        usage = None
        with contextlib.suppress(*UNREADABLE):
            usage = attempt.usage()
        if usage is None:
            return NOTHING, False
        has_ended = usage.outcome is not Outcome.running
        if paid_by(attempt) not in (self.study, ""):
            return NOTHING, has_ended
        amount = held(usage)
        if ref.kind is StageKind.judge:
            amount += Amount(micro_usd=judge_micro_usd(attempt))
        return amount, has_ended


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


def study_spending(plan: Plan, store: Store, *, besides: Collection[StageRef] = ()) -> Spending:
    """Of a plan's study, whatever it had in its plan before.

    besides: what another command may yet begin for the study.
    """
    stages = {stage.ref for stage in plan.stages} | paid_stages(store, plan.study)
    return Spending(store=store, study=plan.study, stages=stages | set(besides))


def kept_progress(plan: Plan, store: Store) -> dict[StageRef, float]:
    """Fraction of the work of stages that are not done which their next attempt finds done."""
    found = {}
    for stage in plan.stages:
        folder = store.stage(stage.ref)
        if folder.is_done:
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
