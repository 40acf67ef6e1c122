"""Logs of a cell's stages: what ranks print, and what the supervisors of its jobs print."""

from __future__ import annotations

import contextlib
import difflib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scalesweep.errors import ConfigError, StoreError
from scalesweep.launch.jobs import StageJobs, job_dir, log_file
from scalesweep.plan.graph import Cell, Plan
from scalesweep.records import StageKind
from scalesweep.rundir import StageDir, Store

FOLLOW_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Log:
    """One file, and whose it is."""

    title: str
    path: Path


def find_cell(plan: Plan, word: str, *, verb: str = "logs") -> Cell:
    """A cell by its number in `status`, its name, or a part of the name that only it has.

    A whole part goes before a piece of one: "lora" is not qlora.

    Raises:
        ConfigError: there is none, or there are several.
    """
    if word.isdigit() and 1 <= int(word) <= len(plan.cells):
        return plan.cells[int(word) - 1]
    found = [cell for cell in plan.cells if cell.name == word]
    found = found or [cell for cell in plan.cells if word in cell.name.split("-")]
    found = found or [cell for cell in plan.cells if word in cell.name]
    if len(found) == 1:
        return found[0]
    known = [cell.name for cell in found or plan.cells]
    near = [] if found else difflib.get_close_matches(word, known, n=8, cutoff=0.4)
    names = ", ".join(near or known[:8])
    problem = "several cells have it in their names" if found else "no such cell"
    raise ConfigError(f"{verb} {word}: {problem}; take a number from `status`, or one of {names}")


def cell_logs(plan: Plan, store: Store, cell: Cell, *, kind: str | None) -> list[Log]:
    """Logs of the newest attempts of a cell's stages, in the order in which stages run.

    kind: of stage; None takes all.

    Raises:
        ConfigError: there is no such kind.
    """
    if kind is not None and kind not in set(StageKind):
        raise ConfigError(f"--stage={kind}: choose one of {', '.join(StageKind)}")
    wanted = {ref for ref in cell.stages.values() if kind in (None, str(ref.kind))}
    logs = []
    for stage in plan.stages:
        if stage.spec.ref not in wanted:
            continue
        folder = store.stage(stage.spec.ref)
        logs += _job_logs(store, folder.path, stage.spec.label)
        attempts = folder.attempts()
        if attempts and attempts[-1].log.exists():
            title = f"{stage.spec.label}: attempt {attempts[-1].number}"
            logs.append(Log(title=title, path=attempts[-1].log))
    return logs


def _job_logs(store: Store, stage: Path, label: str) -> list[Log]:
    """What the supervisor of a stage's newest job printed."""
    with contextlib.suppress(StoreError, OSError):
        job = StageJobs(StageDir(stage)).newest()
        if job is not None:
            folder = job_dir(store, job.submission)
            job_id = folder.submission().job_id
            if job_id is None:
                return []
            path = log_file(folder.path, array_job_id=job_id, index=job.index)
            if path.exists():
                return [Log(title=f"{label}: job {job_id}_{job.index}", path=path)]
    return []


def last_lines(path: Path, count: int) -> list[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        return list(deque(file, maxlen=count))


def followed(path: Path, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """What is appended to a file from now on, for ever."""
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(0, 2)
        while True:
            if text := file.read():
                yield text
            else:
                sleep(FOLLOW_EVERY_S)
