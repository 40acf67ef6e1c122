"""Who is at a stage: claimed so that only one can be, and found out when it died.

An attempt is prepared beside with its lease in it and then renamed to its number. A directory that
is not empty cannot be replaced by a rename, so of two claims of one number exactly one succeeds,
and no attempt is ever without a lease (a lease.json of the stage, written after the mkdir of the
attempt, would leave such a moment).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.launch import slurm
from scalesweep.records import SCHEMA, Execution, Outcome, SlurmRun
from scalesweep.rundir import AttemptDir, StageDir, fsync_directory, read_json, write_json
from scalesweep.versions import installed_versions, source_commit


@dataclass(frozen=True, kw_only=True)
class Owner:
    """One process, named so that a later one with the same id is not taken for it."""

    host: str
    boot_id: str
    pid: int
    process_start: int
    """Clock ticks since boot at which it began."""
    slurm: SlurmRun | None = None
    """The run of a job that it is, on a cluster: Slurm knows whether it lives."""

    def to_json(self) -> dict[str, object]:
        return {"schema": SCHEMA, **asdict(self)}


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_start(pid: int) -> int | None:
    """Clock ticks since boot at which a process began; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return None if fields[0] in ("Z", "X") else int(fields[19])


_slurm_run: SlurmRun | None = None


def set_slurm_run(run: SlurmRun) -> None:
    """Say which run of a job this process is the supervisor of; its leases name it."""
    global _slurm_run
    _slurm_run = run


def this_process() -> Owner:
    pid = os.getpid()
    return Owner(
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid=pid,
        process_start=process_start(pid) or 0,
        slurm=_slurm_run,
    )


def is_alive(owner: Owner) -> bool | None:
    """Whether a process lives; None when it cannot be seen from here, which is not dead."""
    if owner.slurm is not None:
        return _job_is_alive(owner, owner.slurm)
    if owner.host != socket.gethostname():
        return None
    if owner.boot_id != _boot_id():
        return False
    return _process_lives(owner)


def _process_lives(owner: Owner) -> bool | None:
    """Whether the very process runs on this machine; None where /proc hides other users'."""
    start = process_start(owner.pid)
    if start is None:
        return None if _is_hidden(owner.pid) else False
    return start == owner.process_start


def _is_hidden(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False


def _job_is_alive(owner: Owner, run: SlurmRun) -> bool | None:
    """By the process where it can be seen, else by what Slurm says of the job.

    A job that runs again under the same id has another restart count: the run before it is over,
    whatever its processes still do.
    """
    own = this_process().slurm
    if own is not None and own.job_id == run.job_id and own.cluster == run.cluster:
        return own.restarts == run.restarts and process_start(owner.pid) == owner.process_start
    if owner.host == socket.gethostname() and owner.boot_id == _boot_id():
        lives = _process_lives(owner)
        if lives is not None:
            return lives
    try:
        if slurm.site().name != run.cluster:
            return None
        rows = slurm.queued([run.name]).get(run.name, [])
        if not any(row.job_id == run.job_id and row.state in RUNS for row in rows):
            return False
        return slurm.job_state(run.element)[1] == run.restarts
    except slurm.SlurmError:
        return None


RUNS = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")
"""States of a job whose processes may live."""


def read_owner(path: Path) -> Owner | None:
    """The owner in a lease file, or None when it is missing or damaged."""
    try:
        return owner_from_json(read_json(path))
    except (OSError, StoreError, KeyError, TypeError):
        return None


def owner_from_json(data: Mapping[str, Any]) -> Owner:
    return Owner(
        host=data["host"],
        boot_id=data["boot_id"],
        pid=data["pid"],
        process_start=data["process_start"],
        slurm=SlurmRun.from_json(data["slurm"]) if data.get("slurm") else None,
    )


def is_open(attempt: AttemptDir) -> bool:
    """Whether an attempt has not been closed: it runs, or whoever ran it died."""
    usage = None
    with contextlib.suppress(StoreError, KeyError, TypeError, ValueError):  # damaged: not closed
        usage = attempt.usage()
    return usage is None or usage.outcome is Outcome.running


def holder(stage: StageDir) -> Owner | None:
    """Who is at a stage now, as far as can be seen; None when nobody is."""
    attempts = stage.attempts()
    if not attempts or not is_open(attempts[-1]):
        return None
    owner = read_owner(attempts[-1].lease)
    if owner is None or is_alive(owner) is False:
        return None
    return owner


def newest_number(stage: StageDir) -> int:
    """Number of a stage's newest attempt; 0 when there is none."""
    attempts = stage.attempts()
    return attempts[-1].number if attempts else 0


def claim(stage: StageDir, execution: Execution, *, after: int) -> AttemptDir | None:
    """The attempt that follows number `after`, ours alone; None when another process was faster.

    after: the newest number before the caller looked whether the stage is done. Whoever did all
    of the stage since then has taken the next number, so nothing is done twice.
    """
    attempts = stage.path / "attempts"
    attempts.mkdir(parents=True, exist_ok=True)
    _sweep(attempts)
    prepared = attempts / f".claim-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    (prepared / "output").mkdir(parents=True)
    write_json(prepared / "lease.json", this_process().to_json())
    made_with = {"versions": installed_versions(), "commit": source_commit()}
    write_json(prepared / "execution.json", {**execution.to_json(), **made_with})
    claimed = stage.attempt(after + 1)
    try:
        prepared.rename(claimed.path)
    except OSError:
        shutil.rmtree(prepared, ignore_errors=True)
        if claimed.path.exists():
            return None
        raise
    fsync_directory(attempts)
    return claimed


def _sweep(attempts: Path) -> None:
    """Remove claims that processes of this machine prepared and did not live to make."""
    for leftover in attempts.glob(".claim-*"):
        owner = read_owner(leftover / "lease.json")
        if owner is not None and is_alive(owner) is False:
            shutil.rmtree(leftover, ignore_errors=True)
