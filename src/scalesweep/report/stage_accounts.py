"""Accounts of a plan's stages, from what is kept beside their submissions and attempts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from scalesweep.plan.graph import PlannedStage
from scalesweep.report.slurm_accounting import JournaledAttempt, StageAccount, reconcile
from scalesweep.rundir import Store
from scalesweep.slurm_records import JobRow, kept_accounting, stage_elements


@dataclass
class StageAccounts:
    """Reads what is kept of each submission once, for all stages that it ran."""

    store: Store
    _rows: dict[str, dict[int, list[JobRow]]] = field(default_factory=dict)
    """Submission -> array index -> its runs."""
    _problems: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._has_jobs = (self.store.root / "jobs").is_dir()

    def of(
        self, planned: PlannedStage, attempts: Iterable[JournaledAttempt]
    ) -> StageAccount | None:
        """A stage's account; None where Slurm never ran it."""
        if not self._has_jobs:
            return None
        elements = stage_elements(self.store.stage(planned.spec.ref))
        account = reconcile(
            attempts,
            (row for e in elements for row in self._rows_of(e.submission).get(e.index, [])),
            planned=planned.execution,
            submitted={e.submission: e.execution for e in elements if e.execution is not None},
        )
        return account if account.used_slurm else None

    def _rows_of(self, submission: str) -> dict[int, list[JobRow]]:
        if submission not in self._rows:
            kept = kept_accounting(self.store, submission)
            rows: dict[int, list[JobRow]] = {}
            for row in kept.rows if kept is not None else ():
                if row.started:  # then it is of one element
                    rows.setdefault(int(row.job.partition("_")[2] or 0), []).append(row)
            self._rows[submission] = rows
            self._problems[submission] = (
                kept.problem if kept is not None else "sacct was not asked yet"
            )
        return self._rows[submission]

    @property
    def problem(self) -> str:
        """Why sacct did not answer for some of the submissions read so far; empty where it did."""
        return next((problem for problem in self._problems.values() if problem), "")
