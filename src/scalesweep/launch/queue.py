"""What Slurm says about the stages of a plan: one call of squeue, at most one of sacct."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from scalesweep.errors import StoreError
from scalesweep.launch import sacct, slurm
from scalesweep.launch.jobs import StageJob, StageJobs, Submission, job_dir
from scalesweep.plan.graph import Plan
from scalesweep.records import StageRef
from scalesweep.rundir import Store


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where Slurm has one stage."""

    job: StageJob
    submission: Submission | None
    row: slurm.Queued | None = None
    """Its element, if it waits or runs."""
    cluster: str = ""
    """Name of the cluster that it went to, where that is another than the one seen from here."""
    ended: str = ""
    """State in which its last run ended, by sacct ("CANCELLED", "NODE_FAIL"); "" where unknown."""

    @property
    def element(self) -> str:
        if self.row is not None:
            return self.row.element
        job_id = self.submission.job_id if self.submission else None
        return f"{job_id}_{self.job.index}" if job_id else self.job.submission


@dataclass(frozen=True, kw_only=True)
class QueueView:
    """Places of all stages that were ever submitted."""

    places: Mapping[StageRef, Place] = field(default_factory=dict)
    problem: str = ""
    """Why Slurm was not seen; rows are missing then, which says nothing about jobs."""

    def __bool__(self) -> bool:
        return bool(self.places)


def look(plan: Plan, store: Store, *, with_ended: bool = False) -> QueueView:
    """What the queue says of a plan's stages; asks nothing where none was ever submitted.

    with_ended: also ask sacct how runs ended of stages that are not done.
    """
    jobs: dict[StageRef, StageJob] = {}
    for stage in plan.stages:
        with contextlib.suppress(StoreError):
            if (job := StageJobs(store.stage(stage.ref)).newest()) is not None:
                jobs[stage.ref] = job
    if not jobs:
        return QueueView()
    submissions = _submissions(store, {job.submission for job in jobs.values()})
    open_jobs = {ref: job for ref, job in jobs.items() if not store.stage(ref).is_done}
    problem, rows, here = "", {}, ""
    try:
        if open_jobs:
            here = slurm.site().name
            # Of done stages too: one may be held, and what waits for it in the queue with it.
            names = {job.submission for job in jobs.values()}
            away = {n for n in names if (s := submissions.get(n)) and s.cluster != here}
            rows = slurm.queued(names - away)
    except slurm.SlurmError as error:
        problem = str(error)
    places = {}
    for ref, job in jobs.items():
        elements = rows.get(job.submission, [])
        submission = submissions.get(job.submission)
        elsewhere = submission is not None and bool(here) and submission.cluster != here
        places[ref] = Place(
            job=job,
            submission=submission,
            row=next((r for r in elements if r.array_index == job.index), None),
            cluster=submission.cluster if elsewhere and submission is not None else "",
        )
    if with_ended and not problem:
        places.update(_ended({ref: places[ref] for ref in open_jobs}))
    return QueueView(places=places, problem=problem)


def _submissions(store: Store, names: set[str]) -> dict[str, Submission]:
    found = {}
    for name in names:
        with contextlib.suppress(OSError, StoreError, KeyError, TypeError):
            found[name] = job_dir(store, name).submission()
    return found


def _ended(places: Mapping[StageRef, Place]) -> dict[StageRef, Place]:
    known = {
        ref: place
        for ref, place in places.items()
        if place.submission is not None and place.submission.job_id is not None
    }
    if not known:
        return {}
    submissions = [place.submission for place in known.values() if place.submission]
    try:
        rows = sacct.query(
            {s.job_id for s in submissions if s.job_id is not None},
            names={s.name for s in submissions},
            since=min(s.submitted_at for s in submissions),
        )
    except sacct.AccountingUnavailable:
        return {}
    last = {(row.name, row.job): row.state for row in rows if row.has_ended}
    return {
        ref: replace(place, ended=last.get((place.job.submission, place.element), ""))
        for ref, place in known.items()
    }
