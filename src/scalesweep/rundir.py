"""Where things lie in a store, and how files get there whole.

    <store>/stages/<kind>/<key>/
      stage.yaml               what it is
      attempts/0001/           one try; its number is its epoch, and it writes only here
        lease.json             who is at it
        execution.json usage.json measured.json work.json
        metrics.jsonl log checkpoints/ output/
      done.json                published by link when output/ is whole; immutable
    <store>/studies/<name>/    plan.json, report.html, wandb/
    <store>/judge_replies/     what judges replied, for ever (evaluate/judging/store.py)
    <store>/cache/             derived files; safe to delete

Nothing half-written is ever taken for done: a file is written beside, flushed, renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.records import (
    Done,
    Execution,
    Measured,
    OutputFile,
    StageRef,
    StageSpec,
    Usage,
    WorkDone,
)

ABSENT = (FileNotFoundError, NotADirectoryError)
"""A file is not there; the second where something on the way to it is a file."""


def write_atomic(path: Path, text: str) -> None:
    """Replace a file: a reader sees the old or the new text whole, even after a power cut."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    with contextlib.suppress(OSError):  # not every file system can
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a file by readable JSON (which is YAML too)."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: it is not there.
        StoreError: it is there and is not one JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StoreError(f"{path} is damaged: {error}; delete it and run the line again") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} is damaged: expected a JSON object")
    return value


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def output_files(folder: Path) -> dict[str, OutputFile]:
    """Size and hash of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): OutputFile(
            size=path.stat().st_size, sha256=sha256_of(path)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True)
class AttemptDir:
    """One try of a stage. Only the processes of this attempt write below path."""

    path: Path

    @property
    def number(self) -> int:
        return int(self.path.name)

    def following(self) -> AttemptDir:
        """The attempt with the next number, whether there is one or not."""
        return AttemptDir(self.path.with_name(f"{self.number + 1:04d}"))

    @property
    def lease(self) -> Path:
        return self.path / "lease.json"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def usage_file(self) -> Path:
        return self.path / "usage.json"

    @property
    def execution_file(self) -> Path:
        return self.path / "execution.json"

    @property
    def measured_file(self) -> Path:
        return self.path / "measured.json"

    @property
    def work_file(self) -> Path:
        return self.path / "work.json"

    @property
    def time_limit_file(self) -> Path:
        """There when the ranks stopped by themselves before the job's time limit."""
        return self.path / "stopped-for-time-limit"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def output(self) -> Path:
        return self.path / "output"

    def usage(self) -> Usage | None:
        """What it used so far, or None when it never wrote it."""
        with contextlib.suppress(*ABSENT):
            return Usage.from_json(read_json(self.usage_file))
        return None

    def measured(self) -> Measured:
        """How long its steps and saves took; zeros where it left nothing that can be read."""
        with contextlib.suppress(OSError, StoreError, TypeError, ValueError):
            return Measured.from_json(read_json(self.measured_file))
        return Measured()

    def work_done(self) -> WorkDone | None:
        """What it worked through; None where it left nothing that can be read."""
        with contextlib.suppress(OSError, StoreError, TypeError, ValueError):
            return WorkDone.from_json(read_json(self.work_file))
        return None

    def execution(self) -> Execution | None:
        with contextlib.suppress(*ABSENT):
            return Execution.from_json(read_json(self.execution_file))
        return None

    def metric_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of metrics.jsonl; a torn last line (the process was killed) is left out."""
        try:
            text = self.metrics.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):
                with contextlib.suppress(json.JSONDecodeError):
                    yield json.loads(line)


@dataclass(frozen=True)
class StageDir:
    """Directory of one stage."""

    path: Path

    @property
    def stage_file(self) -> Path:
        return self.path / "stage.yaml"

    @property
    def done_file(self) -> Path:
        return self.path / "done.json"

    @property
    def is_done(self) -> bool:
        """Whether its output is published."""
        return self.done_file.exists()

    def spec(self) -> StageSpec:
        return StageSpec.from_json(read_json(self.stage_file))

    def done(self) -> Done | None:
        """The published result, or None. The files it names are not verified here."""
        with contextlib.suppress(*ABSENT):
            return Done.from_json(read_json(self.done_file))
        return None

    def attempts(self) -> list[AttemptDir]:
        """All attempts, oldest first."""
        try:
            entries = list((self.path / "attempts").iterdir())
        except ABSENT:
            return []
        found = [
            AttemptDir(path)
            for path in entries
            if re.fullmatch(r"\d{4,}", path.name) and path.is_dir()
        ]
        return sorted(found, key=lambda attempt: attempt.number)

    def attempt(self, number: int) -> AttemptDir:
        return AttemptDir(self.path / "attempts" / f"{number:04d}")

    def output(self) -> Path:
        """Folder of the published output.

        Raises:
            StoreError: the stage is not done.
        """
        done = self.done()
        if done is None:
            raise StoreError(f"{self.path} is not done: it has no done.json")
        return self.attempt(done.attempt).output


@dataclass(frozen=True)
class Store:
    """Root of everything on disk."""

    root: Path

    def stage(self, ref: StageRef) -> StageDir:
        return StageDir(self.root / "stages" / ref.kind / ref.key)

    def study(self, name: str) -> Path:
        return self.root / "studies" / name

    def study_names(self) -> list[str]:
        """Studies with a plan, the one launched last at the end."""
        plans = (self.root / "studies").glob("*/plan.json")
        return [path.parent.name for path in sorted(plans, key=lambda p: p.stat().st_mtime)]

    @property
    def judge_replies(self) -> Path:
        return self.root / "judge_replies"

    @property
    def cache(self) -> Path:
        return self.root / "cache"
