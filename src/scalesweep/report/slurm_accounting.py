"""What attempts held their devices for, by Slurm's account where there is one. Pure.

A run of a Slurm job is charged what sacct says, to the second. Its attempts lie in it one after the
other; each is charged what its own journal says, and the last one the rest as well: the job's
start before the first attempt, and the moment between the journal's last line and a kill. A run
without an attempt (its stage was done already, or it died before it began) is charged to the stage
too. An attempt of which sacct knows nothing is charged by its journal, and named.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scalesweep.records import Execution, Outcome, SlurmRun, Usage
from scalesweep.slurm_records import JobRow, in_time

CLOCKS_DIFFER_S = 5
"""A node's clock and that of Slurm's controller; less than passes between two runs of a job."""
MOST_CLOCKS_DIFFER_S = 300
"""munge refuses credentials of hosts that differ by more (its default time to live)."""


class Source(enum.StrEnum):
    """Where the seconds that an attempt is charged are from."""

    local = "local"
    """Its own journal; a local command made it and Slurm cannot know it."""
    sacct = "sacct"
    journal = "journal"
    """Its own journal, though a Slurm job made it."""


@dataclass(frozen=True, kw_only=True)
class JournaledAttempt:
    """What an attempt says of itself."""

    number: int
    run: SlurmRun | None
    """None: a local command made it."""
    usage: Usage | None
    """None: it died before it wrote anything."""


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What an attempt is charged."""

    number: int
    run: SlurmRun | None
    source: Source
    usage: Usage | None
    """Its journal with wall_s, startup_s and num_devices by sacct where that knows the run; None
    where neither says anything."""

    def __str__(self) -> str:
        where = f" (job {self.run.element}, restart {self.run.restarts})" if self.run else ""
        return f"attempt {self.number:04d}{where}"


@dataclass(frozen=True, kw_only=True)
class IdleRun:
    """A run of a job in which no attempt was made."""

    job: str
    number: int
    """Counts the runs that sacct knows of the job, from 1."""
    usage: Usage
    """All of it is start-up."""
    execution: Execution
    """How the stage was to be run, and by whose command."""
    is_over: bool = True

    def __str__(self) -> str:
        return f"job {self.job} run {self.number}: no attempt"


@dataclass(frozen=True, kw_only=True)
class StageAccount:
    """Charges of one stage; together they are its rows in sacct, and journals where it has none."""

    charges: tuple[Charge, ...]
    """One for each attempt, oldest first."""
    idle: tuple[IdleRun, ...] = ()
    queued_s: int | None = None
    """Seconds its jobs waited though they could have run; None where sacct knows none of them."""

    @property
    def used_slurm(self) -> bool:
        return bool(self.idle) or any(charge.run is not None for charge in self.charges)


@dataclass(frozen=True, kw_only=True)
class NamedCharge:
    """A charge with the name of its stage, for people."""

    stage: str
    what: str
    seconds: float | None
    """None: nothing is known."""


@dataclass(frozen=True, kw_only=True)
class StudyAccount:
    """Where the figures of a study's Slurm jobs are from."""

    num_by_sacct: int
    """Attempts."""
    num_local: int
    """Attempts of local commands."""
    by_journal: tuple[NamedCharge, ...]
    """Attempts of Slurm jobs of which sacct knows nothing."""
    idle: tuple[NamedCharge, ...]
    """Runs of jobs without an attempt."""
    queued_s: int | None
    problem: str
    """Why sacct did not answer when it was last asked; empty where it did."""


def study_account(
    stages: Iterable[tuple[str, StageAccount]], *, num_local: int, problem: str
) -> StudyAccount | None:
    """Of all stages that Slurm ran, with their labels; None where it ran none.

    num_local: attempts of the other stages.
    """
    stages = list(stages)
    if not stages:
        return None
    charges = [(label, charge) for label, account in stages for charge in account.charges]
    waits = [account.queued_s for _, account in stages if account.queued_s is not None]
    sources = [charge.source for _, charge in charges]
    return StudyAccount(
        num_by_sacct=sources.count(Source.sacct),
        num_local=sources.count(Source.local) + num_local,
        by_journal=tuple(
            NamedCharge(
                stage=label,
                what=str(charge),
                seconds=charge.usage.wall_s if charge.usage is not None else None,
            )
            for label, charge in charges
            if charge.source is Source.journal
        ),
        idle=tuple(
            NamedCharge(stage=label, what=str(run), seconds=run.usage.wall_s)
            for label, account in stages
            for run in account.idle
        ),
        queued_s=sum(waits) if waits else None,
        problem=problem,
    )


Key = tuple[str, int, int]


def _key(run: SlurmRun) -> Key:
    return run.name, run.job_id, run.restarts


def reconcile(
    attempts: Iterable[JournaledAttempt],
    rows: Iterable[JobRow],
    *,
    planned: Execution,
    submitted: Mapping[str, Execution] | None = None,
) -> StageAccount:
    """Charges of a stage from its attempts and sacct's rows of the elements that were to run it.

    planned: how the stage is run, for what has no journal.
    submitted: the same by name of the submission.
    """
    attempts = sorted(attempts, key=lambda attempt: attempt.number)
    started = in_time(_over_or_newest([row for row in rows if row.started]))
    runs: dict[Key, list[JournaledAttempt]] = {}
    for attempt in attempts:
        if attempt.run is not None:
            runs.setdefault(_key(attempt.run), []).append(attempt)
    matched = match(runs, started)
    how = dict(submitted or {})
    charged: dict[int, Usage] = {}
    for key, row in matched.items():
        charged |= _charges(runs[key], row, execution=how.get(row.name, planned))
    used = {id(row) for row in matched.values()}
    idle = []
    numbers: dict[int, int] = {}
    for row in started:
        numbers[row.job_id] = numbers.get(row.job_id, 0) + 1
        if id(row) not in used:
            execution = how.get(row.name, planned)
            seconds = float(row.elapsed_s)
            usage = dataclasses.replace(
                _unwritten(row, execution),
                started_at=float(row.start or 0),
                wall_s=seconds,
                startup_s=seconds,
            )
            idle.append(
                IdleRun(
                    job=row.job,
                    number=numbers[row.job_id],
                    usage=usage,
                    execution=execution,
                    is_over=row.has_ended,
                )
            )
    waits = [row.queued_s for row in started if row.queued_s is not None]
    return StageAccount(
        charges=tuple(
            Charge(
                number=attempt.number,
                run=attempt.run,
                source=(
                    Source.local
                    if attempt.run is None
                    else Source.sacct
                    if attempt.number in charged
                    else Source.journal
                ),
                usage=charged.get(attempt.number, attempt.usage),
            )
            for attempt in attempts
        ),
        idle=tuple(idle),
        queued_s=sum(waits) if waits else None,
    )


def _over_or_newest(rows: Sequence[JobRow]) -> list[JobRow]:
    """Without rows that never ended though their job ran again since.

    A controller that is killed forgets to tell the database that a run is over; the row goes on
    growing for ever, and says nothing.
    """
    newest: dict[int, int] = {}
    for row in rows:
        newest[row.job_id] = max(newest.get(row.job_id, 0), row.start or 0)
    return [row for row in rows if row.has_ended or (row.start or 0) >= newest[row.job_id]]


def match(
    runs: Mapping[Key, Sequence[JournaledAttempt]], rows: Sequence[JobRow]
) -> dict[Key, JobRow]:
    """The row of each run that has one. No row is of two runs.

    Rows may be lost and runs may be without an attempt, so counting them is not enough: a run's
    first attempt began between start and end of its row. rows: in the order of time.
    """
    found: dict[Key, JobRow] = {}
    for name, job_id in sorted({key[:2] for key in runs}):
        keys = sorted(key for key in runs if key[:2] == (name, job_id))
        own = [row for row in rows if (row.name, row.job_id) == (name, job_id)]
        pairs = sorted(
            (distance, key, i)
            for key in keys
            for i, row in enumerate(own)
            if (distance := _distance(runs[key], row)) is not None and distance <= CLOCKS_DIFFER_S
        )
        taken: set[int] = set()
        for _, key, i in pairs:
            if key not in found and i not in taken:
                found[key] = own[i]
                taken.add(i)
        # Those left: a clock that is far off, or an attempt that wrote no time.
        left = [key for key in keys if key not in found]
        free = [row for i, row in enumerate(own) if i not in taken]
        if len(left) == len(free) and all(
            _may_be(runs[key], row) for key, row in zip(left, free, strict=True)
        ):
            found.update(zip(left, free, strict=True))
    return found


def _began(attempts: Sequence[JournaledAttempt]) -> float | None:
    """When its first attempt began, by the node's clock."""
    times = [a.usage.started_at for a in attempts if a.usage is not None and a.usage.started_at]
    return min(times, default=None)


def _distance(attempts: Sequence[JournaledAttempt], row: JobRow) -> float | None:
    """Seconds by which the beginning of a run's first attempt lies outside of a row."""
    began = _began(attempts)
    if began is None or row.start is None:
        return None
    before = row.start - began
    after = began - row.end if row.end is not None else 0.0
    return max(before, after, 0.0)


def _may_be(attempts: Sequence[JournaledAttempt], row: JobRow) -> bool:
    """Whether a run may be a row's, going by length and by clocks that are far apart."""
    distance = _distance(attempts, row)
    journal_s = sum(_journal_ms(attempt) for attempt in attempts) / 1000
    return (distance is None or distance <= MOST_CLOCKS_DIFFER_S) and (
        not row.has_ended or journal_s <= row.elapsed_s + CLOCKS_DIFFER_S
    )


def _journal_ms(attempt: JournaledAttempt) -> int:
    return round(attempt.usage.wall_s * 1000) if attempt.usage is not None else 0


def _is_open(attempt: JournaledAttempt) -> bool:
    return attempt.usage is None or attempt.usage.outcome is Outcome.running


def _charges(
    attempts: Sequence[JournaledAttempt], row: JobRow, *, execution: Execution
) -> dict[int, Usage]:
    """Number -> what each attempt of one run is charged; together exactly its row."""
    held_ms = [_journal_ms(attempt) for attempt in attempts]
    rest_ms = row.elapsed_s * 1000 - sum(held_ms)
    if not row.has_ended:  # it was asked for a while ago and goes on, or its end was forgotten
        rest_ms = max(rest_ms, 0) if any(map(_is_open, attempts)) else 0
    held_ms[-1] += rest_ms
    for i in reversed(range(1, len(held_ms))):  # it outlived its row
        if held_ms[i] < 0:
            held_ms[i - 1] += held_ms[i]
            held_ms[i] = 0
    began = _began(attempts)
    before_s = began - row.start if began is not None and row.start is not None else 0.0
    launch_s = min(max(before_s, 0.0), max(rest_ms, 0) / 1000)
    charged = {}
    for attempt, ms in zip(attempts, held_ms, strict=True):
        usage = attempt.usage or _unwritten(row, execution)
        is_last = attempt is attempts[-1]
        charged[attempt.number] = dataclasses.replace(
            usage,
            wall_s=ms / 1000,
            startup_s=min(usage.startup_s + (launch_s if is_last else 0.0), ms / 1000),
            num_devices=row.gpus or usage.num_devices,
        )
    return charged


def _unwritten(row: JobRow, execution: Execution) -> Usage:
    """The journal of what left none, without its seconds."""
    return Usage(
        outcome=Outcome.killed,
        cause="it left no record",
        num_devices=row.gpus or execution.num_held_devices,
        node_devices=execution.node_devices,
        usd_per_node_hour=execution.usd_per_node_hour,
    )
