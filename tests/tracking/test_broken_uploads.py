"""Where a run goes on after an upload that broke off, by what the server says it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalesweep.errors import StoreError
from scalesweep.tracking import broken_uploads
from scalesweep.tracking.broken_uploads import begun, expected_rows, settle
from scalesweep.tracking.one_at_a_time import alone
from scalesweep.tracking.uploaded import (
    Note,
    has_begun,
    is_uploaded,
    mark_begun,
    mark_uploaded,
    read_uploaded,
    run_directories,
    unmark_uploaded,
    write_note,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run "abc": steps 1 to 5 uploaded, the upload of 6 to 15 broke off. Files hold their steps."""

    def read_back(path: Path) -> tuple[list[dict[str, int]], int]:
        return [{"tune": int(step)} for step in path.read_text("utf-8").split()], 0

    monkeypatch.setattr(broken_uploads, "read_back", read_back)
    mark_uploaded(run_directory(tmp_path, "1", range(1, 6)))
    mark_begun(run_directory(tmp_path, "2", range(6, 16)))
    return tmp_path


def run_directory(root: Path, time: str, steps: range) -> Path:
    path = root / f"offline-run-{time}-abc"
    path.mkdir()
    text = " ".join(map(str, steps))
    (path / "run-abc.wandb").write_text(text, encoding="utf-8")
    note = Note(id="abc", project="p", entity=None, digest=time, last_steps={"tune": steps[-1]})
    write_note(path, note)
    return path


@pytest.mark.parametrize(
    ("on_server", "last_step"),
    [(5, 5), (8, 8), (15, 15), (99, 15), (2, 5)],
    ids=["nothing of it", "a part", "all but its end", "more than was sent", "less than before"],
)
def test_a_run_goes_on_behind_what_the_server_has(
    folder: Path, on_server: int, last_step: int
) -> None:
    settle(folder, {"abc": on_server}, project="p", entity=None)

    left = run_directories(folder)
    known = read_uploaded(left, project="p", entity=None)["abc"]
    assert all(map(is_uploaded, left))
    assert known.last_steps == {"tune": last_step}
    assert len(left) == (1 if last_step == 5 else 2)
    # else config, summary and tables, of which the server counts nothing, might never be sent
    assert known.digest == ("1" if last_step == 5 else "")
    assert expected_rows(folder, project="p", entity=None) == {"abc": last_step}


def test_what_the_server_does_not_tell_stays_open(folder: Path) -> None:
    settle(folder, {"abc": None}, project="p", entity=None)

    assert [path.name for path in begun(folder, project="p", entity=None)] == ["offline-run-2-abc"]


def test_uploads_to_another_project_are_not_settled(folder: Path) -> None:
    settle(folder, {"abc": 15}, project="other", entity=None)

    assert begun(folder, project="other", entity=None) == []
    assert len(begun(folder, project="p", entity=None)) == 1


def test_an_upload_begun_by_hand_is_seen_by_wandbs_own_mark(folder: Path) -> None:
    path = run_directory(folder, "3", range(16, 18))
    (path / "run-abc.wandb.syncstate").touch()

    assert has_begun(path)
    mark_uploaded(path)
    assert not has_begun(path)
    unmark_uploaded(path)
    assert has_begun(path)


def test_two_processes_do_not_work_on_the_same_runs(folder: Path) -> None:
    runs = folder / "wandb"

    with (
        alone(runs),
        pytest.raises(StoreError, match="another process works on"),
        alone(runs, patience_s=0.0),
    ):
        pass
    with alone(runs, patience_s=0.0):  # and it ends
        pass
