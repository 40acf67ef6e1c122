"""What the store says about each stage of a plan: its state, its attempts and what they cost."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.records import Done, Outcome, StageKind, StageRef, Usage
from scalesweep.report.costs import StageCost, stage_cost
from scalesweep.report.slurm_accounting import JournaledAttempt, StageAccount
from scalesweep.report.stage_accounts import StageAccounts
from scalesweep.rundir import AttemptDir, StageDir, Store, read_json
from scalesweep.slurm_records import slurm_run
from scalesweep.tracking import metric_names


class StageState(enum.StrEnum):
    done = "done"
    stale = "stale"
    """Done, from an input that has other bytes by now."""
    running = "running"
    failed = "failed"
    interrupted = "interrupted"
    killed = "killed"
    missing = "missing"
    """Never started."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try, as far as it recorded itself."""

    number: int
    usage: Usage | None
    """None: it died before it wrote anything."""
    charged: Usage | None
    """The same with the seconds that it is charged: by Slurm's account where that has them."""
    published: bool
    execution: Mapping[str, Any]
    """execution.json as it stands."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    ref: StageRef
    label: str
    kind: StageKind
    state: StageState
    cause: str
    """One line when it did not end well."""
    attempts: tuple[Attempt, ...]
    num_cells: int
    """Cells of this study that need it."""
    cost: StageCost
    output: Path | None
    """Folder of the published output."""
    account: StageAccount | None = None
    """None where Slurm never ran it."""

    @property
    def queued_s(self) -> int | None:
        """Seconds its jobs waited for room; None where Slurm's account does not say."""
        return self.account.queued_s if self.account is not None else None

    @property
    def is_done(self) -> bool:
        return self.state in (StageState.done, StageState.stale)


@dataclass(frozen=True, kw_only=True)
class LossPoint:
    step: int
    loss: float


def read_stages(store: Store, plan: Plan, accounts: StageAccounts) -> dict[StageRef, StageResult]:
    """State, attempts and cost of every stage of a plan."""
    done = {stage.spec.ref: _done(store.stage(stage.spec.ref)) for stage in plan.stages}
    return {
        stage.spec.ref: _stage_result(
            store, stage, done, accounts, num_cells=len(plan.cells_of(stage.spec.ref))
        )
        for stage in plan.stages
    }


def _done(stage: StageDir) -> Done | None:
    """The published result, or None; a damaged record counts as not done and costs remain."""
    with contextlib.suppress(StoreError, KeyError, TypeError):
        return stage.done()
    return None


def _stage_result(
    store: Store,
    planned: PlannedStage,
    done: Mapping[StageRef, Done | None],
    accounts: StageAccounts,
    *,
    num_cells: int,
) -> StageResult:
    spec = planned.spec
    folder = store.stage(spec.ref)
    published = done[spec.ref]
    folders = folder.attempts()
    journal = [
        JournaledAttempt(number=a.number, run=slurm_run(a), usage=_usage(a)) for a in folders
    ]
    account = accounts.of(planned, journal)
    charged = {charge.number: charge.usage for charge in account.charges} if account else {}
    attempts = tuple(
        Attempt(
            number=attempt.number,
            usage=said.usage,
            charged=charged.get(attempt.number, said.usage),
            published=published is not None and attempt.number == published.attempt,
            execution=_execution(attempt),
        )
        for attempt, said in zip(folders, journal, strict=True)
    )
    state, cause = _state(attempts, published)
    if published is not None and _is_stale(published, spec.inputs, done):
        state, cause = StageState.stale, "an input was made again with other bytes"
    return StageResult(
        ref=spec.ref,
        label=spec.label,
        kind=spec.kind,
        state=state,
        cause=cause,
        attempts=attempts,
        num_cells=num_cells,
        cost=cost_of(attempts, account),
        output=folder.attempt(published.attempt).output if published is not None else None,
        account=account,
    )


def cost_of(attempts: Iterable[Attempt], account: StageAccount | None) -> StageCost:
    """Of all attempts of a stage, oldest first, and of its jobs' runs without one."""
    known = [(a.charged, a.published) for a in attempts if a.charged is not None]
    return stage_cost(
        [charged for charged, _ in known],
        published=next((i for i, (_, is_published) in enumerate(known) if is_published), None),
        idle=[run.usage for run in account.idle] if account else (),
    )


def _usage(attempt: AttemptDir) -> Usage | None:
    with contextlib.suppress(StoreError, KeyError, ValueError):
        return attempt.usage()
    return None


def _execution(attempt: AttemptDir) -> dict[str, Any]:
    with contextlib.suppress(StoreError, FileNotFoundError):
        return read_json(attempt.execution_file)
    return {}


def _state(attempts: tuple[Attempt, ...], done: Done | None) -> tuple[StageState, str]:
    if done is not None:
        return StageState.done, ""
    if not attempts:
        return StageState.missing, "not started"
    usage = attempts[-1].usage
    if usage is None:
        return StageState.killed, "its last attempt left no record"
    if usage.outcome is Outcome.done:  # between the last write and the publication
        return StageState.running, "being published"
    return StageState(str(usage.outcome)), usage.cause or str(usage.outcome)


def _is_stale(
    published: Done, inputs: Mapping[str, StageRef], done: Mapping[StageRef, Done | None]
) -> bool:
    for role, ref in inputs.items():
        parent = done.get(ref)
        if parent is not None and published.inputs.get(role, parent.digest) != parent.digest:
            return True
    return False


def metric_rows(stage: StageDir, *, published: int | None) -> list[dict[str, Any]]:
    """One row per optimizer step over all attempts: where two did a step, the later one's.

    published: number of the published attempt; later ones (orphans) are left out.
    """
    rows: dict[int, dict[str, Any]] = {}
    for attempt in stage.attempts():
        if published is not None and attempt.number > published:
            continue
        for row in attempt.metric_rows():
            if isinstance(step := row.get(metric_names.STEP), int):
                rows[step] = row
    return [rows[step] for step in sorted(rows)]


def loss_curve(rows: Iterable[Mapping[str, Any]]) -> tuple[LossPoint, ...]:
    return tuple(
        LossPoint(step=row[metric_names.STEP], loss=float(row[metric_names.LOSS]))
        for row in rows
        if isinstance(row.get(metric_names.LOSS), int | float)
    )
