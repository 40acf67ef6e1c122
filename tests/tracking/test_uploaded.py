"""What is still to be sent of runs that were uploaded before."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from scalesweep.tracking.runs import RunDescription
from scalesweep.tracking.uploaded import (
    Note,
    is_uploaded,
    read_note,
    read_uploaded,
    write_note,
)

RUN = RunDescription(
    id="abc",
    name="mini_s-32px",
    group="quickstart",
    job_type="cell",
    tags=("killed",),
    notes="",
    config={"seed": 1},
    summary={"state": "killed"},
    is_done=False,
    sections={"tune": tuple({"step": step, "loss": 1 / step} for step in range(1, 31))},
)
RESUMED = dataclasses.replace(
    RUN,
    tags=("done",),
    summary={"state": "done"},
    is_done=True,
    sections={
        "align": ({"step": 1, "loss": 2.0},),
        "tune": tuple({"step": step, "loss": 1 / step} for step in range(1, 41)),
    },
)


def run_directory(root: Path, run: RunDescription, *, project: str = "p") -> Path:
    folder = root / f"offline-run-{len(list(root.iterdir()))}-{run.id}"
    folder.mkdir()
    write_note(
        folder,
        Note(id=run.id, project=project, entity=None, digest=run.digest, last_steps=run.last_steps),
    )
    return folder


def test_wandbs_mark_tells_what_was_uploaded(tmp_path: Path) -> None:
    folder = run_directory(tmp_path, RUN)

    before = is_uploaded(folder)
    (folder / "run-abc.wandb.synced").touch()

    assert (before, is_uploaded(folder)) == (False, True)


def test_a_run_that_has_not_changed_is_not_sent_again(tmp_path: Path) -> None:
    uploaded = read_uploaded([run_directory(tmp_path, RUN)], project="p", entity=None)

    assert uploaded["abc"].unsent(RUN) is None


def test_of_a_run_that_went_on_only_new_rows_are_sent(tmp_path: Path) -> None:
    uploaded = read_uploaded([run_directory(tmp_path, RUN)], project="p", entity=None)

    unsent = uploaded["abc"].unsent(RESUMED)

    assert unsent is not None
    assert [row["step"] for row in unsent.sections["tune"]] == list(range(31, 41))
    assert unsent.sections["align"] == RESUMED.sections["align"]
    assert dataclasses.replace(unsent, sections=RESUMED.sections) == RESUMED


def test_the_latest_of_several_uploads_counts(tmp_path: Path) -> None:
    folders = [run_directory(tmp_path, RUN), run_directory(tmp_path, RESUMED)]

    uploaded = read_uploaded(folders, project="p", entity=None)

    assert uploaded["abc"].last_steps == {"align": 1, "tune": 40}
    assert uploaded["abc"].unsent(RESUMED) is None
    back = uploaded["abc"].unsent(RUN)
    assert back is not None
    assert back.sections == {}


def test_uploads_to_another_project_do_not_count(tmp_path: Path) -> None:
    folders = [run_directory(tmp_path, RUN, project="other")]

    assert read_uploaded(folders, project="p", entity=None) == {}
    assert read_uploaded(folders, project="other", entity="team") == {}


@pytest.mark.parametrize("text", [None, "{", "[]", '{"schema": 1}', '{"schema": 99}'])
def test_a_note_that_cannot_be_read_counts_as_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "scalesweep.json").write_text(text, encoding="utf-8")

    assert read_note(tmp_path) is None
    assert read_uploaded([tmp_path], project="p", entity=None) == {}
