"""What is written about submissions, so that any later command finds every job again.

    <store>/jobs/<name>/            one submission: one job array; its name is the Slurm job name
        submission.json             who, when, and which stage each array index runs
        job.sh  *_log.out           the batch script, and what supervisors print
        job.json                    the job id, once sbatch has answered
        refused                     sbatch said no
        cancelled-3                 somebody asked to stop element 3: it is not requeued any more
        left-out-3                  element 3 did not begin its stage: why the budget forbids it
    <store>/stages/<kind>/<key>/jobs/0001.json      which submission is to run the stage, and how

All but job.json is written before sbatch is called. A submitter that dies between sbatch's answer
and job.json leaves a job with a unique name, by which the next command finds it. A stage's file is
made by link, which fails where it exists: of two commands that want the same stage one submits it
and the other waits for that job.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.launch import leases
from scalesweep.records import SCHEMA, Execution, StageRef, check_schema
from scalesweep.rundir import (
    ABSENT,
    StageDir,
    Store,
    fsync_directory,
    read_json,
    write_json,
)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One job array, before and after it is one."""

    name: str
    study: str
    user: str
    host: str
    cluster: str
    """Slurm's ClusterName."""
    submitted_at: float
    """Seconds since 1970 by the submitter's clock; for people."""
    elements: Mapping[int, StageRef]
    """Array index -> stage."""
    max_tries: int = 3
    parents_wait_s: int = 90
    storage_wait_min: int = 30
    silent_s: int = 120
    job_id: int | None = None
    """Of the array; None until sbatch has answered."""

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "name": self.name,
            "study": self.study,
            "user": self.user,
            "host": self.host,
            "cluster": self.cluster,
            "submitted_at": self.submitted_at,
            "max_tries": self.max_tries,
            "parents_wait_s": self.parents_wait_s,
            "storage_wait_min": self.storage_wait_min,
            "silent_s": self.silent_s,
            "elements": {str(index): str(ref) for index, ref in self.elements.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Submission:
        check_schema(data, "submission.json")
        fields = {k: v for k, v in data.items() if k not in ("schema", "elements")}
        elements = {int(i): StageRef.parse(text) for i, text in data["elements"].items()}
        return cls(**fields, elements=elements)


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """That a submission is to run a stage: the stage's lease while it waits in the queue."""

    submission: str
    index: int
    execution: Execution
    submitter: leases.Owner
    """Alive and without a job id: it is about to call sbatch."""
    number: int = 0
    """Counts the submissions of the stage, from 1."""

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "submission": self.submission,
            "index": self.index,
            "submitter": self.submitter.to_json(),
            "execution": self.execution.to_json(),
        }


@dataclass(frozen=True)
class JobDir:
    """Folder of one submission."""

    path: Path

    def cancelled(self, index: int) -> Path:
        """There when somebody asked to stop an element."""
        return self.path / f"cancelled-{index}"

    def left_out(self, index: int) -> Path:
        """There when an element did not begin its stage because of the budget; says why."""
        return self.path / f"left-out-{index}"

    @property
    def refused(self) -> Path:
        """There when sbatch said no: there is no job of it, and will be none."""
        return self.path / "refused"

    @property
    def job_file(self) -> Path:
        return self.path / "job.json"

    def submission(self) -> Submission:
        """What was submitted, with its job id where that is known.

        Raises:
            FileNotFoundError: there is no such submission.
            StoreError: its record is damaged.
        """
        try:
            found = Submission.from_json(read_json(self.path / "submission.json"))
            with contextlib.suppress(*ABSENT):
                return replace(found, job_id=int(read_json(self.job_file)["job_id"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(
                f"{self.path} is damaged ({error}); delete the folder and type the line again"
            ) from error
        return found

    def write_job_id(self, job_id: int, cluster: str) -> None:
        write_json(self.job_file, {"schema": SCHEMA, "job_id": job_id, "cluster": cluster})


def job_dir(store: Store, name: str) -> JobDir:
    return JobDir(store.root / "jobs" / name)


def log_file(folder: Path, *, array_job_id: int, index: int) -> Path:
    """What a batch script and its supervisor print, as submitit names it."""
    return folder / f"{array_job_id}_{index}_0_log.out"


def job_dirs(store: Store) -> list[JobDir]:
    """Folders of all submissions of a store, of all studies."""
    try:
        return [JobDir(path) for path in sorted((store.root / "jobs").iterdir()) if path.is_dir()]
    except ABSENT:
        return []


def new_name(study: str, kind: str) -> str:
    """A name for a job that no other job has or will have."""
    return f"{study[:24]}-{kind}-{uuid.uuid4().hex[:10]}"


def this_user() -> str:
    with contextlib.suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.getuid())


def this_host() -> str:
    return socket.gethostname()


@dataclass
class StageJobs:
    """Files of a stage that say which submissions were to run it."""

    stage: StageDir
    _folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self._folder = self.stage.path / "jobs"

    def newest(self) -> StageJob | None:
        """The newest; None when it was never submitted."""
        number = self.newest_number()
        return self._read(number) if number else None

    def newest_number(self) -> int:
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 (a thousand of these are one command)
        except ABSENT:
            return 0
        return max((int(n[:-5]) for n in names if re.fullmatch(r"\d{4,}\.json", n)), default=0)

    def all(self) -> Iterator[StageJob]:
        """Oldest first."""
        for number in range(1, self.newest_number() + 1):
            with contextlib.suppress(*ABSENT):
                yield self._read(number)

    def _read(self, number: int) -> StageJob:
        path = self._folder / f"{number:04d}.json"
        data = read_json(path)
        try:
            submitter = leases.owner_from_json(data["submitter"])
            return StageJob(
                submission=data["submission"],
                index=data["index"],
                execution=Execution.from_json(data["execution"]),
                submitter=submitter,
                number=number,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(
                f"{path} is damaged ({error}); delete it and type the line again"
            ) from error

    def claim(self, job: StageJob, *, after: int) -> bool:
        """Whether the stage is ours to submit: ours is number after + 1, and nobody else's.

        It is on disk then, so that sbatch may be called.

        after: newest number when the caller found that no job of it waits or runs.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        beside = self._folder / f".{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            with beside.open("w", encoding="utf-8") as file:
                file.write(json.dumps(job.to_json(), indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(beside, self._folder / f"{after + 1:04d}.json")
        except FileExistsError:
            return False
        finally:
            beside.unlink(missing_ok=True)
        for folder in (self._folder, self.stage.path):
            fsync_directory(folder)
        return True


def write_submission(store: Store, submission: Submission) -> JobDir:
    """Make the folder of a submission; before sbatch is called."""
    folder = job_dir(store, submission.name)
    folder.path.mkdir(parents=True)
    write_json(folder.path / "submission.json", submission.to_json())
    fsync_directory(folder.path.parent)
    return folder
