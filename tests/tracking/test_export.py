"""Runs on disk are replaced whole or stay; written here by a stand-in for wandb."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from scalesweep.errors import ConfigError, StoreError
from scalesweep.tracking import export as module
from scalesweep.tracking.export import export
from scalesweep.tracking.export_command import line_about
from scalesweep.tracking.runs import RunDescription, cell_run_id, study_run_id
from scalesweep.tracking.uploaded import run_directories
from tests.report.synthetic import SyntheticStudy, build_study
from tests.tracking.studies import FULL, LORA, resume

DEAD = 4_190_000
"""Near the highest process id that Linux gives."""


class FakeWandb:
    """Stands in for write_runs: a run directory with the number of rows in it."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.fails_after: int | None = None

    def __call__(
        self, runs: Sequence[RunDescription], *, root: Path, project: str, entity: str | None
    ) -> list[Path]:
        assert (project, entity) == ("p", None)
        self.num_calls += 1
        (root / "wandb" / "latest-run").symlink_to("nowhere")
        folders = []
        for number, run in enumerate(runs):
            if number == self.fails_after:
                raise StoreError("the disk is full")
            folder = root / "wandb" / f"offline-run-{self.num_calls}-{run.id}"
            folder.mkdir()
            num_rows = sum(len(rows) for rows in run.sections.values())
            (folder / f"run-{run.id}.wandb").write_text(str(num_rows), encoding="utf-8")
            folders.append(folder)
        return folders


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setattr(module, "write_runs", fake)
    return fake


@pytest.fixture
def study(tmp_path: Path) -> SyntheticStudy:
    return build_study(tmp_path, [FULL, LORA], num_questions=40)


def folder_of(study: SyntheticStudy) -> Path:
    return study.store.study("quickstart") / "wandb"


def names_beside(study: SyntheticStudy) -> list[str]:
    return sorted(path.name for path in folder_of(study).parent.iterdir())


def num_rows(folder: Path) -> int:
    return int(next(folder.glob("*.wandb")).read_text(encoding="utf-8"))


def upload(folder: Path) -> None:
    """What `wandb sync` leaves behind."""
    for path in run_directories(folder):
        (path / f"{next(path.glob('*.wandb')).name}.synced").touch()


@pytest.mark.usefixtures("wandb")
def test_an_export_leaves_run_directories_and_nothing_else(study: SyntheticStudy) -> None:
    made = export(study.store, "quickstart", project="p")

    assert (made.num_runs, made.num_to_upload) == (3, 3)
    assert len(run_directories(made.folder)) == 3
    assert len(list(made.folder.iterdir())) == 3
    assert names_beside(study) == [".wandb-lock", "plan.json", "wandb"]


@pytest.mark.usefixtures("wandb")
def test_exporting_again_replaces_runs_that_were_not_uploaded(study: SyntheticStudy) -> None:
    first = export(study.store, "quickstart", project="p")
    ids = {path.name.rpartition("-")[2] for path in run_directories(first.folder)}

    export(study.store, "quickstart", project="p")

    assert {path.name for path in run_directories(first.folder)} == {
        f"offline-run-2-{id_}" for id_ in ids
    }


def test_an_export_that_fails_leaves_the_old_runs(study: SyntheticStudy, wandb: FakeWandb) -> None:
    folder = export(study.store, "quickstart", project="p").folder
    before = run_directories(folder)
    wandb.fails_after = 1

    with pytest.raises(StoreError, match="the disk is full"):
        export(study.store, "quickstart", project="p")

    assert run_directories(folder) == before
    assert names_beside(study) == [".wandb-lock", "plan.json", "wandb"]


@pytest.mark.usefixtures("wandb")
def test_a_swap_that_was_killed_is_undone(study: SyntheticStudy) -> None:
    folder = export(study.store, "quickstart", project="p").folder
    upload(folder)
    folder.rename(folder.with_name(".wandb-old"))

    made = export(study.store, "quickstart", project="p")

    assert made.num_to_upload == 0  # so the marks were found again
    assert names_beside(study) == [".wandb-lock", "plan.json", "wandb"]


@pytest.mark.usefixtures("wandb")
def test_litter_of_killed_exports_is_swept_up(study: SyntheticStudy) -> None:
    folder = export(study.store, "quickstart", project="p").folder
    dead, alive = (f".wandb-new-{pid}-x@{socket.gethostname()}" for pid in (DEAD, os.getppid()))
    elsewhere = f".wandb-new-{DEAD}-x@other"
    for name in (dead, alive, elsewhere, ".wandb-old"):
        (folder.with_name(name) / "wandb").mkdir(parents=True)

    export(study.store, "quickstart", project="p")

    assert set(names_beside(study)) == {alive, elsewhere, ".wandb-lock", "plan.json", "wandb"}


@pytest.mark.usefixtures("wandb")
def test_uploaded_runs_that_did_not_change_are_kept_as_they_are(study: SyntheticStudy) -> None:
    folder = export(study.store, "quickstart", project="p").folder
    upload(folder)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))

    made = export(study.store, "quickstart", project="p")

    assert (made.num_runs, made.num_to_upload) == (3, 0)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    assert "all were uploaded and have not changed since" in line_about(
        made, store=study.store, study="quickstart"
    )


@pytest.mark.usefixtures("wandb")
def test_an_uploaded_run_that_went_on_is_continued(study: SyntheticStudy) -> None:
    folder = export(study.store, "quickstart", project="p").folder
    upload(folder)
    cell = study.plan.cells[0]
    resume(study, cell.stages["tune"], FULL)
    more = study.store.stage(cell.stages["tune"]).attempt(2)
    with more.metrics.open("a", encoding="utf-8") as file:
        file.write('{"step": 151, "loss": 1.0}\n{"step": 152, "loss": 1.0}\n')

    made = export(study.store, "quickstart", project="p")

    old, new = [
        [path for path in run_directories(folder) if path.name.startswith(prefix)]
        for prefix in ("offline-run-1-", "offline-run-2-")
    ]
    assert (len(old), len(new), made.num_to_upload) == (3, 2, 2)
    assert {path.name.rpartition("-")[2]: num_rows(path) for path in new} == {
        study_run_id("quickstart"): 0,  # its tables changed
        cell_run_id("quickstart", cell): 2,
    }
    assert "upload 2 (the others" in line_about(made, store=study.store, study="quickstart")


@pytest.mark.usefixtures("wandb")
def test_the_line_says_where_runs_are_and_how_to_upload_them(study: SyntheticStudy) -> None:
    made = export(study.store, "quickstart", project="p")

    folder = folder_of(study)
    assert line_about(made, store=study.store, study="quickstart") == (
        f"W&B: 3 offline runs below {folder}; upload with: "
        f"python -m scalesweep sync quickstart --store {study.store.root}"
    )


def test_a_study_that_is_not_there_is_named(study: SyntheticStudy, wandb: FakeWandb) -> None:
    with pytest.raises(ConfigError, match="study=nope: not in the store"):
        export(study.store, "nope", project="p")

    assert wandb.num_calls == 0
