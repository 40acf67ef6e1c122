"""What Slurm is asked, always for all jobs in one call. What it cannot answer is an error."""

from __future__ import annotations

import functools
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from scalesweep.errors import ScaleSweepError
from scalesweep.launch.rank import die_with_parent

TIMEOUT_S = 60
MOST_NAMES = 200
"""Above this many job names squeue is asked for all jobs of the cluster instead."""
RETRY_EVERY_S = 3.0
HELD_AFTER_FAILED_LAUNCH = "launch failed requeued held"
NEVER = ("DependencyNeverSatisfied",)

T = TypeVar("T")


class SlurmError(ScaleSweepError):
    """Slurm does not answer, or refuses. Nothing is known about jobs: that is not "dead"."""


class SlurmAway(SlurmError):
    """The controller did not answer: it may later. What it was asked may have been done."""


AWAY = re.compile(
    r"Unable to contact|timed out|connect failure|Connection refused|Zero Bytes|"
    r"Communication connection failure|temporarily unavailable",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Queued:
    """One element of a job array that waits or runs."""

    array_job_id: int
    array_index: int
    job_id: int
    state: str
    """PENDING, RUNNING, COMPLETING, REQUEUED, ..."""
    reason: str
    """Why it waits: Priority, Dependency, BeginTime, JobHeldUser, ..."""
    name: str
    user: str
    run_time: str
    """H:MM:SS of the present run."""

    @property
    def element(self) -> str:
        return f"{self.array_job_id}_{self.array_index}"

    @property
    def is_held_after_failed_launch(self) -> bool:
        return self.state == "PENDING" and HELD_AFTER_FAILED_LAUNCH in self.reason.lower()

    @property
    def never_runs(self) -> bool:
        """It waits for an element that failed."""
        return self.state == "PENDING" and self.reason in NEVER


SQUEUE_FORMAT = "%F|%K|%A|%T|%j|%u|%M|%r"


def parse_squeue(text: str) -> list[Queued]:
    """Rows of squeue -h -r -o SQUEUE_FORMAT; jobs that are no array elements are left out."""
    found = []
    for line in text.splitlines():
        array_job, index, job, state, name, user, run_time, reason = line.split("|", 7)
        if not index.isdigit():
            continue
        found.append(
            Queued(
                array_job_id=int(array_job),
                array_index=int(index),
                job_id=int(job),
                state=state,
                reason=reason.strip("()"),
                name=name,
                user=user,
                run_time=run_time,
            )
        )
    return found


def queued(names: Iterable[str]) -> dict[str, list[Queued]]:
    """Job name -> its elements that wait or run now, in one call. Absent: none does.

    Raises:
        SlurmError: squeue does not answer.
    """
    wanted = sorted(set(names))
    if not wanted:
        return {}
    words = ["squeue", "-h", "-r", "-a", "-o", SQUEUE_FORMAT]
    if len(wanted) <= MOST_NAMES:
        words += ["-n", ",".join(wanted)]
    found: dict[str, list[Queued]] = {}
    for row in parse_squeue(asked(words)):
        found.setdefault(row.name, []).append(row)
    return {name: found[name] for name in wanted if name in found}


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a cluster allows."""

    name: str
    """ClusterName."""
    max_array_size: int
    """One more than the highest index."""
    kill_wait_s: int
    max_array_tasks: int
    """Most elements of one array."""


@functools.cache
def site() -> Site:
    """The cluster that commands of this machine reach.

    Raises:
        SlurmError: slurmctld does not answer.
    """
    values = {}
    for line in asked(["scontrol", "show", "config"]).splitlines():
        key, equals, value = line.partition("=")
        if equals:
            values[key.strip()] = value.strip()
    max_array_size = int(values.get("MaxArraySize", "1001"))
    tasks = re.search(r"max_array_tasks=(\d+)", values.get("SchedulerParameters", ""))
    return Site(
        name=values.get("ClusterName", "cluster"),
        max_array_size=max_array_size,
        max_array_tasks=min(max_array_size, int(tasks.group(1)) if tasks else max_array_size),
        kill_wait_s=int(values.get("KillWait", "30 sec").split()[0]),
    )


def asked(
    words: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
    dies_with_us: bool = False,
) -> str:
    """Standard output of one of Slurm's commands.

    Raises:
        SlurmAway: it does not end in time, or does not reach the controller.
        SlurmError: it is not installed, or ends with another error.
    """
    try:
        ended = subprocess.run(
            list(words),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=None if env is None else dict(env),
            preexec_fn=die_with_parent if dies_with_us else None,
        )
    except FileNotFoundError as error:
        raise SlurmError(f"{words[0]}: not installed here; type this on a login node") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmAway(f"{words[0]}: no answer from Slurm in {timeout_s:.0f} s") from error
    if ended.returncode:
        said = " ".join((ended.stderr or ended.stdout).split())
        kind = SlurmAway if AWAY.search(said) else SlurmError
        raise kind(f"{words[0]}: {said or f'ended with status {ended.returncode}'}")
    return ended.stdout


def persistently(action: Callable[[], T], *, for_s: float, every_s: float = RETRY_EVERY_S) -> T:
    """Do something again until Slurm answers: its controller may be away for a while.

    Raises:
        SlurmAway: it did not in for_s seconds.
        SlurmError: it refuses, which waiting would not change.
    """
    end = time.monotonic() + for_s
    while True:
        try:
            return action()
        except SlurmAway:
            if time.monotonic() >= end:
                raise
            time.sleep(every_s)


def requeue(element: str) -> None:
    """Put a running job back into the queue, under the same id."""
    asked(["scontrol", "requeue", element])


def release(element: str) -> None:
    """Let a held job wait for its turn again."""
    asked(["scontrol", "release", element])


def cancel(elements: Sequence[str]) -> None:
    """End jobs, waiting or running."""
    if elements:
        asked(["scancel", *elements])


def warn(elements: Sequence[str]) -> None:
    """What Slurm sends before a time limit: the supervisors write checkpoints and stop."""
    if elements:
        asked(["scancel", "--batch", "--signal=USR2", *elements])


def job_state(element: str, *, timeout_s: float = TIMEOUT_S) -> tuple[str, int]:
    """State and restarts of an element of an array that is still known ("RUNNING", 2).

    Raises:
        SlurmError: slurmctld does not answer, or has forgotten it.
    """
    fields: dict[str, str] = {}
    for word in asked(["scontrol", "show", "job", "-o", element], timeout_s=timeout_s).split():
        key, equals, value = word.partition("=")
        if equals:
            fields.setdefault(key, value)
    return fields.get("JobState", ""), int(fields.get("Restarts", 0))
