"""Keeps Slurm's account of a study's jobs in the store, beside each submission."""

from __future__ import annotations

import contextlib
import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scalesweep.errors import StoreError
from scalesweep.launch import sacct, slurm
from scalesweep.launch.jobs import Submission, job_dir
from scalesweep.plan.graph import Plan
from scalesweep.records import SlurmRun
from scalesweep.rundir import Store, write_json
from scalesweep.slurm_records import (
    FINAL_STATES,
    Accounting,
    JobRow,
    accounting_file,
    in_time,
    kept_accounting,
    slurm_run,
    stage_elements,
)


class Source(enum.StrEnum):
    """Where the figures of a study's Slurm jobs are from."""

    sacct = "sacct"
    """It was asked just now."""
    kept = "kept rows"
    """It answered earlier."""
    journal = "journal only"
    """It never answered: what attempts wrote down themselves."""


@dataclass(frozen=True, kw_only=True)
class AccountingState:
    source: Source
    reason: str
    """One line."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A submission, what is kept of it, and which runs of it attempts know."""

    submission: Submission
    kept: Accounting | None
    runs: frozenset[SlurmRun]

    @property
    def name(self) -> str:
        return self.submission.name

    @property
    def job_id(self) -> int | None:
        """Of the array. A submitter that died before it wrote it down may have attempts."""
        if self.submission.job_id is not None:
            return self.submission.job_id
        return next((run.array_job_id for run in self.runs), None)

    @property
    def rows(self) -> tuple[JobRow, ...]:
        return self.kept.rows if self.kept is not None else ()

    @property
    def is_settled(self) -> bool:
        """sacct has nothing to add: every element ended for good, every known run has a row."""
        last = {row.job: row for row in in_time(self.rows)}
        arrays = [row for job, row in last.items() if not job.rpartition("_")[2].isdigit()]
        for index in self.submission.elements:
            own = last.get(f"{self.job_id}_{index}") or next(
                (row for row in arrays if row.is_of(index)), None
            )
            if own is None or not own.has_ended or own.state not in FINAL_STATES:
                return False
        started = Counter(row.job_id for row in self.rows if row.started)
        return all(started[run.job_id] > run.restarts for run in self.runs)


def refresh(store: Store, plan: Plan) -> AccountingState:
    """Asks sacct, once, for all jobs of a study that it may have news of, and keeps the answer.

    Never raises for a Slurm that is not there, does not answer or keeps no account: the report
    then says so and takes what is kept, or the attempts' own journals.
    """
    jobs = _jobs(store, plan)
    if not jobs:
        return AccountingState(source=Source.journal, reason="no stage was run by Slurm")
    open_jobs = [job for job in jobs if not job.is_settled and job.job_id is not None]
    if not open_jobs:
        return AccountingState(source=Source.kept, reason="all jobs have ended")
    here = _cluster_here()
    near = [job for job in open_jobs if here in (None, job.submission.cluster)]
    for job in open_jobs:
        if job not in near:
            _keep(
                store, job, job.rows, problem=f"{job.submission.cluster} is not reached from here"
            )
    problem = "" if near else f"this is {here}, and the jobs are on other clusters"
    answered: dict[str, list[JobRow]] = {}
    if near:
        try:
            answered = _asked(near)
        except sacct.AccountingUnavailable as error:
            problem = str(error)
    for job in near:
        news = answered.get(job.name, [])
        _keep(store, job, job.rows if problem else merged(job.rows, news), problem=problem)
    if not problem:
        said = f"asked for {len(near)} of {len(jobs)} submissions"
        return AccountingState(source=Source.sacct, reason=said)
    source = Source.kept if any(job.rows for job in jobs) else Source.journal
    return AccountingState(source=source, reason=problem)


def _jobs(store: Store, plan: Plan) -> list[_Job]:
    """Submissions that stages of a plan belong to, as far as their records can be read."""
    runs: dict[str, set[SlurmRun]] = {}
    for planned in plan.stages:
        stage = store.stage(planned.spec.ref)
        for element in stage_elements(stage):
            runs.setdefault(element.submission, set())
        for attempt in stage.attempts():
            if (run := slurm_run(attempt)) is not None:
                runs.setdefault(run.name, set()).add(run)
    found = []
    for name in sorted(runs):
        with contextlib.suppress(OSError, StoreError, KeyError, TypeError, ValueError):
            found.append(
                _Job(
                    submission=job_dir(store, name).submission(),
                    kept=kept_accounting(store, name),
                    runs=frozenset(runs[name]),
                )
            )
    return found


def _cluster_here() -> str | None:
    """ClusterName, or None where slurmctld does not answer; sacct still may."""
    try:
        return slurm.site().name
    except slurm.SlurmError:
        return None


def _asked(jobs: Sequence[_Job]) -> dict[str, list[JobRow]]:
    """Submission -> its rows, by one call of sacct."""
    rows = sacct.query(
        (job.job_id for job in jobs if job.job_id is not None),
        names={job.name for job in jobs},
        since=min(job.submission.submitted_at for job in jobs),
    )
    clusters = {job.name: job.submission.cluster for job in jobs}
    found: dict[str, list[JobRow]] = {}
    for row in rows:
        if row.cluster == clusters[row.name]:
            found.setdefault(row.name, []).append(row)
    return found


def merged(kept: Iterable[JobRow], news: Sequence[JobRow]) -> list[JobRow]:
    """Kept rows, replaced and extended by newer ones.

    A run that ended is never lost again, though Slurm forgets it. What waited or ran when the kept
    row was written stands in the news under its new form, where they know the job at all.
    """
    known = {row.job_id for row in news}
    rows = {_key(row): row for row in kept if row.has_ended or row.job_id not in known}
    rows.update((_key(row), row) for row in news)
    return in_time(rows.values())


def _key(row: JobRow) -> tuple[int, int | None, str]:
    """What names one run of one job, or its wait for one."""
    return row.job_id, row.start, "" if row.started else row.job


def _keep(store: Store, job: _Job, rows: Iterable[JobRow], *, problem: str) -> None:
    kept = Accounting(rows=tuple(rows), problem=problem)
    if kept == job.kept:
        return
    with contextlib.suppress(OSError):  # somebody else's store: the report does without
        write_json(accounting_file(store, job.name), kept.to_json())
