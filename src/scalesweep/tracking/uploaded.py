"""What W&B already has of a run, told by the run directories that `wandb sync` has marked.

Each run directory holds, beside wandb's own files, a note of what was written into it. wandb puts
an empty file `*.wandb.synced` there after uploading it. An upload that broke off is settled by
asking the server (broken_uploads.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scalesweep.errors import StoreError
from scalesweep.records import SCHEMA, check_schema, known_fields
from scalesweep.rundir import read_json, write_json
from scalesweep.tracking import metric_names
from scalesweep.tracking.runs import RunDescription

_NOTE = "scalesweep.json"
_BEGUN = "scalesweep.uploading"


@dataclass(frozen=True, kw_only=True)
class Note:
    """What one run directory holds, and for which W&B project it was written."""

    id: str
    project: str
    entity: str | None
    digest: str
    """Of the whole description, also where only its new rows were written."""
    last_steps: Mapping[str, int] = field(default_factory=dict)
    """Section -> last step that W&B has once this directory is uploaded."""
    num_rows: int | None = None
    """Rows that W&B took of this directory where its upload broke off; None: all of them."""


def write_note(folder: Path, note: Note) -> None:
    write_json(folder / _NOTE, {"schema": SCHEMA, **dataclasses.asdict(note)})


def read_note(folder: Path) -> Note | None:
    """None where there is none that can be read."""
    with contextlib.suppress(OSError, StoreError, TypeError):
        data = read_json(folder / _NOTE)
        check_schema(data, _NOTE)
        return Note(**known_fields(Note, data))
    return None


def is_uploaded(folder: Path) -> bool:
    """wandb sync has finished with this run directory."""
    return any(folder.glob("*.wandb.synced"))


def has_begun(folder: Path) -> bool:
    """An upload of this run directory began and has not ended: W&B may have a part of it.

    wandb leaves its own mark when it begins; ours does not depend on its version.
    """
    marks = (_BEGUN, "*.wandb.syncstate")
    return not is_uploaded(folder) and any(any(folder.glob(mark)) for mark in marks)


def mark_begun(folder: Path) -> None:
    (folder / _BEGUN).touch()


def mark_uploaded(folder: Path) -> None:
    """For what W&B has of it, `wandb sync` passes this directory by."""
    run = next(folder.glob("run-*.wandb"))
    run.with_name(f"{run.name}.synced").touch()


def unmark_uploaded(folder: Path) -> None:
    """wandb took it for uploaded and the server has not all of it: an upload that broke off."""
    mark_begun(folder)
    for mark in folder.glob("*.wandb.synced"):
        mark.unlink()


def run_id_of(folder: Path) -> str:
    """offline-run-<time>-<id>"""
    return folder.name.rpartition("-")[2]


def run_directories(folder: Path) -> list[Path]:
    """Directories of offline runs, the oldest first."""
    return sorted(path for path in folder.glob("offline-run-*") if path.is_dir())


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """What W&B has of one run."""

    last_steps: Mapping[str, int]
    digest: str
    """Of the description that was uploaded last."""

    def unsent(self, run: RunDescription) -> RunDescription | None:
        """The run with only the rows that W&B does not have; None when it has all of the run."""
        if run.digest == self.digest:
            return None
        sections = {}
        for name, rows in run.sections.items():
            last = self.last_steps.get(name, 0)
            sections[name] = tuple(row for row in rows if row[metric_names.STEP] > last)
        return dataclasses.replace(
            run, sections={name: rows for name, rows in sections.items() if rows}
        )


def read_uploaded(
    folders: Iterable[Path], *, project: str, entity: str | None
) -> dict[str, Uploaded]:
    """Run id -> what this W&B project has of it. folders: uploaded ones, oldest first."""
    found: dict[str, Uploaded] = {}
    for folder in folders:
        note = read_note(folder)
        if note is None or (note.project, note.entity) != (project, entity):
            continue
        before = found.get(note.id)
        last_steps = dict(before.last_steps) if before is not None else {}
        for section, step in note.last_steps.items():
            last_steps[section] = max(step, last_steps.get(section, 0))
        found[note.id] = Uploaded(last_steps=last_steps, digest=note.digest)
    return found
