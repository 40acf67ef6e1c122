"""What Slurm accounted for a study's jobs, as kept beside each submission in the store.

    <store>/jobs/<name>/accounting.json          rows of sacct, one for each run of each element
    <store>/stages/<kind>/<key>/jobs/0001.json   which submission is to run a stage, and how

Slurm forgets, is out of reach where a report is made, or never keeps account; the rows stay.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.records import SCHEMA, Execution, SlurmRun, check_schema, known_fields
from scalesweep.rundir import ABSENT, AttemptDir, StageDir, Store, read_json

FINAL_STATES = (
    "COMPLETED",
    "FAILED",
    "TIMEOUT",
    "CANCELLED",
    "OUT_OF_MEMORY",
    "DEADLINE",
    "BOOT_FAIL",
)
"""A job does not run again by itself after these. It may after NODE_FAIL, PREEMPTED, REQUEUED."""


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """One row of `sacct -D`: one run of one element, or its wait for one. Times: s since 1970."""

    job: str
    """As sacct names it: 12_3; 12_[0-4,7] stands for elements that never ran."""
    job_id: int
    """Unique among elements of arrays too (JobIDRaw)."""
    name: str
    cluster: str
    state: str
    """One word: COMPLETED, FAILED, REQUEUED, PENDING, ..."""
    elapsed_s: int
    """Seconds the resources were held; grows while it runs."""
    gpus: int
    """Of all its nodes; 0 also where the site does not account for GPUs."""
    nodes: int
    cpus: int
    submit: int | None
    """Of the job; of a later run, when it was put back into the queue."""
    eligible: int | None
    """When nothing but room was missing any more: no dependency, no delay."""
    start: int | None
    end: int | None
    exit_code: str
    started: bool
    """It was given nodes. Otherwise it waits, or was cancelled before."""

    @property
    def has_ended(self) -> bool:
        return self.end is not None and self.state not in ("PENDING", "RUNNING", "SUSPENDED")

    @property
    def queued_s(self) -> int | None:
        """Seconds between when it could have run and when it did."""
        since = self.submit if self.eligible is None else self.eligible
        if not self.started or self.start is None or since is None:
            return None
        return max(self.start - since, 0)

    def is_of(self, index: int) -> bool:
        """Whether it is, or stands for, an element of its array."""
        _, _, of = self.job.partition("_")
        if of.isdigit():
            return int(of) == index
        for part in re.findall(r"\d+(?:-\d+)?(?::\d+)?", of.partition("%")[0]):
            ends, _, step = part.partition(":")
            first, _, last = ends.partition("-")
            if index in range(int(first), int(last or first) + 1, int(step or 1)):
                return True
        return False

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JobRow:
        return cls(**known_fields(cls, data))


def in_time(rows: Iterable[JobRow]) -> list[JobRow]:
    """Rows in the order of their runs; what waits comes last."""
    return sorted(
        rows,
        key=lambda row: (row.start is None, row.start or 0, row.submit or 0, row.name, row.job_id),
    )


@dataclass(frozen=True, kw_only=True)
class Accounting:
    """What is kept of a submission."""

    rows: tuple[JobRow, ...] = ()
    problem: str = ""
    """Why sacct did not answer when it was last asked; empty where it did."""

    def to_json(self) -> dict[str, Any]:
        rows = [row.to_json() for row in self.rows]
        return {"schema": SCHEMA, "problem": self.problem, "rows": rows}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Accounting:
        check_schema(data, "accounting.json")
        rows = tuple(JobRow.from_json(row) for row in data["rows"])
        return cls(rows=rows, problem=data["problem"])


def accounting_file(store: Store, submission: str) -> Path:
    return store.root / "jobs" / submission / "accounting.json"


def kept_accounting(store: Store, submission: str) -> Accounting | None:
    """What is kept of a submission; None where nothing is, or it is damaged: sacct is asked again.

    Rows of another job are left out: job ids start again where a cluster's state was wiped.
    """
    try:
        kept = Accounting.from_json(read_json(accounting_file(store, submission)))
    except (OSError, StoreError, KeyError, TypeError, ValueError):
        return None
    return dataclasses.replace(kept, rows=tuple(r for r in kept.rows if r.name == submission))


@dataclass(frozen=True, kw_only=True)
class StageElement:
    """One element of a submission that is to run a stage."""

    submission: str
    """Its name, which is the Slurm job's."""
    index: int
    """In the job array."""
    execution: Execution | None = None
    """How it was submitted; None where the record is lost."""


def stage_elements(stage: StageDir) -> list[StageElement]:
    """Elements of all submissions that were to run a stage, by their records and its attempts."""
    found: dict[str, StageElement] = {}
    for attempt in stage.attempts():
        if (run := slurm_run(attempt)) is not None:
            found[run.name] = StageElement(submission=run.name, index=run.array_index)
    for path in sorted((stage.path / "jobs").glob("[0-9]*.json")):
        with contextlib.suppress(*ABSENT, StoreError, KeyError, TypeError):
            data = read_json(path)
            element = StageElement(
                submission=str(data["submission"]),
                index=int(data["index"]),
                execution=Execution.from_json(data["execution"]),
            )
            found[element.submission] = element
    return list(found.values())


def slurm_run(attempt: AttemptDir) -> SlurmRun | None:
    """The run of a Slurm job that an attempt was made by; None for one made by a local command."""
    with contextlib.suppress(OSError, StoreError, TypeError):
        data = read_json(attempt.lease).get("slurm")
        return SlurmRun.from_json(data) if data else None
    return None
