"""Running plans of fake stages in this process."""

from __future__ import annotations

from typing import Any

from scalesweep.launch.local import Scheduler, State, StudyResult
from scalesweep.launch.workers import Workers
from scalesweep.plan.graph import Plan
from scalesweep.rundir import Store
from tests.fakes.plans import RUNNER
from tests.fakes.progress import MemoryProgress

WORKERS = Workers(preload=())
"""One server for all tests of a process: it starts once."""


def scheduler(plan: Plan, store: Store, **settings: Any) -> Scheduler:
    settings = {"num_workers": 2, "progress": MemoryProgress(), **settings}
    return Scheduler(plan=plan, store=store, workers=WORKERS, runner=RUNNER, **settings)


def run(plan: Plan, store: Store, **settings: Any) -> StudyResult:
    return scheduler(plan, store, **settings).run()


def states(result: StudyResult) -> dict[str, State]:
    return {run.label: run.state for run in result.runs.values()}
