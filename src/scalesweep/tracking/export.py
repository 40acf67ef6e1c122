"""A study's W&B runs below <store>/studies/<name>/wandb, made anew from the records each time.

All runs are written into a folder beside, checked, and then take the place of the old ones by two
renames. An export that is killed leaves the old runs, or, between the renames, none until the next
export puts them back; never some of each.

What happens when runs were uploaded before, for `wandb sync` and the ids are stable but uploading
is not idempotent: syncing a second directory of the same id appends its rows to the run on the
server, it replaces none.

- A directory that wandb has marked as synced is kept, with its mark, so `wandb sync` passes it by.
- When its run has not changed since, nothing more is written for it.
- When it has (the study went on), a further directory of the same id is written beside it, with the
  whole config and summary and only the rows after the last uploaded step. Synced, it continues the
  same run, and no row stands twice. Rows that were done again after the upload stay as they were
  uploaded: a resumed stage repeats them alike, but for the order of floating-point sums.
- This works as long as the synced directories stay here: after `wandb clean` nothing tells what
  W&B has, all rows are written, and syncing appends them again; so does `wandb sync` when told not
  to skip what it synced. Deleting the run on the server first does not help: W&B does not take the
  id of a deleted run again (wandb issue 4948); another project does.
- Marks count for the project and entity they were exported for, whatever `wandb sync -p -e` said.
- The id of a run is made from study, cell and trained stages, nothing of the store: the same study
  of two stores, uploaded into one W&B project, meets in the same runs. Give one another project.
- Of a directory whose upload began and did not end, W&B may have a part. It is left alone, and
  nothing more is written of its run, until `scalesweep sync` has asked the server
  (broken_uploads.py). The same `wandb sync` typed again would send its rows twice.

Tried with `wandb sync` of wandb 0.31.0 against a stand-in server, not on wandb.ai.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scalesweep.report.command import study_report
from scalesweep.rundir import Store, fsync_directory
from scalesweep.tracking.broken_uploads import begun
from scalesweep.tracking.one_at_a_time import alone
from scalesweep.tracking.runs import RunDescription, describe_runs
from scalesweep.tracking.uploaded import (
    Note,
    Uploaded,
    is_uploaded,
    read_uploaded,
    run_directories,
    run_id_of,
    write_note,
)
from scalesweep.tracking.wandb_export import write_runs


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export left on disk."""

    folder: Path
    num_runs: int
    num_to_upload: int
    """Runs that W&B does not have, or not all of."""


def export(store: Store, study: str, *, project: str, entity: str | None = None) -> Exported:
    """Replaces the study's offline runs by what its records say now.

    Raises:
        ConfigError: no such study.
        StoreError: the plan cannot be read, or a run was not written whole; the old runs remain.
    """
    report = study_report(store, study)
    runs = describe_runs(report, store)
    folder = runs_folder(store, report.results.plan.study)
    with alone(folder):
        return _export(folder, runs, project=project, entity=entity)


def runs_folder(store: Store, study: str) -> Path:
    """Where a study's W&B runs lie."""
    return store.study(study) / "wandb"


def _export(
    folder: Path, runs: Sequence[RunDescription], *, project: str, entity: str | None
) -> Exported:
    _put_back(folder)
    synced = [path for path in run_directories(folder) if is_uploaded(path)]
    open_ = begun(folder, project=project, entity=entity)
    uploaded = read_uploaded(synced, project=project, entity=entity)
    unsent = _unsent(runs, uploaded)
    waiting = {run_id_of(path) for path in open_}
    with _beside(folder) as root:
        fresh = root / "wandb"
        fresh.mkdir()
        for path in (*synced, *open_):
            shutil.copytree(path, fresh / path.name)
        todo = [run for run in runs if run.id in unsent and run.id not in waiting]
        written = write_runs(
            [unsent[run.id] for run in todo], root=root, project=project, entity=entity
        )
        for run, path in zip(todo, written, strict=True):
            write_note(path, _note(run, project=project, entity=entity))
        _leave_only_runs(fresh)
        _swap(fresh, folder)
    num_waiting = len(waiting & {run.id for run in runs})
    return Exported(folder=folder, num_runs=len(runs), num_to_upload=len(todo) + num_waiting)


def _unsent(
    runs: Sequence[RunDescription], uploaded: Mapping[str, Uploaded]
) -> dict[str, RunDescription]:
    """Run id -> what W&B does not have of it; runs that it has whole are left out."""
    parts = ((run, uploaded.get(run.id)) for run in runs)
    found = {run.id: run if known is None else known.unsent(run) for run, known in parts}
    return {id_: part for id_, part in found.items() if part is not None}


def _note(run: RunDescription, *, project: str, entity: str | None) -> Note:
    return Note(
        id=run.id, project=project, entity=entity, digest=run.digest, last_steps=run.last_steps
    )


def _leave_only_runs(folder: Path) -> None:
    """Without wandb's links to the latest run and its logs, which would dangle."""
    for path in folder.iterdir():
        if path.is_symlink() or not path.is_dir():
            path.unlink()


_OLD = ".wandb-old"
_NEW = ".wandb-new-"


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder of this process beside the runs, gone afterwards."""
    here = f"@{socket.gethostname()}"
    for path in folder.parent.glob(f"{_NEW}*{here}"):  # of exports that were killed on this machine
        if not _is_alive(int(path.name.removeprefix(_NEW).partition("-")[0])):
            shutil.rmtree(path, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=f"{_NEW}{os.getpid()}-", suffix=here, dir=folder.parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _swap(fresh: Path, folder: Path) -> None:
    """The fresh runs take the place of the old ones."""
    old = folder.with_name(_OLD)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    fsync_directory(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """Undoes a swap that was killed half-way; sweeps up after one that was killed behind it."""
    old = folder.with_name(_OLD)
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
