"""Publishing a stage's output once, whole, and knowing whether what is published still holds."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from scalesweep.errors import StageError, StoreError
from scalesweep.records import Done, StageSpec
from scalesweep.rundir import (
    AttemptDir,
    StageDir,
    Store,
    fsync_directory,
    output_files,
    write_json,
)


def publish(stage: StageDir, attempt: AttemptDir, *, inputs: Mapping[str, str]) -> bool:
    """Write done.json for an attempt's output; False when the stage was published before.

    inputs: role -> digest of the parent's output that was read.
    Linking fails where the file exists, so two attempts cannot both publish.

    Raises:
        StageError: a later attempt has been claimed: this one is no longer in charge, or the
            output is empty.
    """
    files = output_files(attempt.output)
    if not files:
        raise StageError("the stage ended without writing any output")
    for name in files:
        with (attempt.output / name).open("rb") as file:
            os.fsync(file.fileno())
    for folder in {(attempt.output / name).parent for name in files}:
        fsync_directory(folder)
    if stage.attempts()[-1].number != attempt.number:
        raise StageError(f"attempt {attempt.number} was overtaken by a later one")
    done = Done(attempt=attempt.number, files=files, inputs=inputs)
    beside = stage.path / f".done-{uuid.uuid4().hex[:8]}"
    write_json(beside, done.to_json())
    try:
        os.link(beside, stage.done_file)
    except FileExistsError:
        return False
    finally:
        beside.unlink(missing_ok=True)
    fsync_directory(stage.path)
    return True


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a published stage can be used as it is."""

    done: Done | None
    problem: str = ""
    """Why a done.json that exists cannot be used: damaged or stale."""


def verdict(store: Store, spec: StageSpec, *, parents: Mapping[str, str] | None) -> Verdict:
    """Look at a stage's published output: names and sizes of its files, digests of its inputs.

    parents: role -> digest of the parent's present output; None leaves staleness out.
    """
    stage = store.stage(spec.ref)
    try:
        done = stage.done()
    except (StoreError, KeyError, TypeError) as error:
        return Verdict(done=None, problem=f"done.json is damaged ({error})")
    if done is None:
        return Verdict(done=None)
    output = stage.attempt(done.attempt).output
    for name, file in done.files.items():
        try:
            size = (output / name).stat().st_size
        except OSError:
            return Verdict(done=None, problem=f"output/{name} is missing")
        if size != file.size:
            return Verdict(done=None, problem=f"output/{name} has {size} bytes, not {file.size}")
    if parents is not None and dict(done.inputs) != dict(parents):
        changed = sorted(r for r in parents if done.inputs.get(r) != parents[r])
        return Verdict(done=None, problem=f"stale: {', '.join(changed)} changed since")
    return Verdict(done=done)


def set_aside(stage: StageDir) -> None:
    """Take a done.json that cannot be used out of the way; nothing is deleted."""
    for number in range(1, 10_000):
        aside = stage.path / f"done.json.aside-{number}"
        if not aside.exists():
            with contextlib.suppress(FileNotFoundError):
                stage.done_file.rename(aside)
            return


def prepare(stage: StageDir, spec: StageSpec) -> None:
    """Write stage.yaml if it is not there; JSON is YAML."""
    if not stage.stage_file.exists():
        stage.path.mkdir(parents=True, exist_ok=True)
        write_json(stage.stage_file, spec.to_json())
