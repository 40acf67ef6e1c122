"""What W&B took of uploads that broke off, so that the next one goes on behind it.

`wandb sync` appends: tried again on a directory that was sent in part, it sends all its rows a
second time (seen with wandb 0.31.0: 3000 rows became 6000). But rows are taken in order, and the
server says how many it has of a run. So a directory that was sent in part is kept as uploaded up to
there; its run then goes on in a further directory with the rows behind.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from scalesweep.tracking.uploaded import (
    Note,
    has_begun,
    is_uploaded,
    mark_uploaded,
    read_note,
    run_directories,
    run_id_of,
    write_note,
)
from scalesweep.tracking.wandb_export import last_steps, read_back


def begun(folder: Path, *, project: str, entity: str | None) -> list[Path]:
    """Directories of a W&B project whose upload broke off."""
    return [path for path, _ in _of_project(folder, project, entity) if has_begun(path)]


def settle(
    folder: Path, num_rows: Mapping[str, int | None], *, project: str, entity: str | None
) -> None:
    """Writes down what W&B has of uploads that broke off.

    num_rows: run id -> rows that the server has of it; None leaves its directories as they are.
    """
    before: dict[str, int] = {}
    for path, note in _of_project(folder, project, entity):
        id_ = run_id_of(path)
        if is_uploaded(path):
            before[id_] = before.get(id_, 0) + rows_sent(path, note)
            continue
        if not has_begun(path):
            continue
        there = num_rows.get(id_)
        if there is None:
            continue
        rows, _ = read_back(next(path.glob("run-*.wandb")))
        taken = min(max(there - before.get(id_, 0), 0), len(rows))
        if not taken:  # nothing arrived, so all is to be sent
            shutil.rmtree(path)
            continue
        # The digest of nothing: summary, config and tables are sent again in any case.
        part = dataclasses.replace(
            note, digest="", last_steps=last_steps(rows[:taken]), num_rows=taken
        )
        write_note(path, part)
        mark_uploaded(path)
        before[id_] = before.get(id_, 0) + taken


def expected_rows(folder: Path, *, project: str, entity: str | None) -> dict[str, int]:
    """Run id -> rows that W&B must have of it by the directories that are marked as uploaded."""
    found: dict[str, int] = {}
    for path, note in _of_project(folder, project, entity):
        if is_uploaded(path):
            id_ = run_id_of(path)
            found[id_] = found.get(id_, 0) + rows_sent(path, note)
    return found


def rows_sent(path: Path, note: Note) -> int:
    """Of a directory that is uploaded, or was in part."""
    if note.num_rows is not None:
        return note.num_rows
    return len(read_back(next(path.glob("run-*.wandb")))[0])


def _of_project(folder: Path, project: str, entity: str | None) -> Sequence[tuple[Path, Note]]:
    notes = ((path, read_note(path)) for path in run_directories(folder))
    return [
        (path, note)
        for path, note in notes
        if note is not None and (note.project, note.entity) == (project, entity)
    ]
