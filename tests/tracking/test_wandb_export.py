"""Offline runs written by wandb itself, read back and compared with the store's records."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scalesweep.errors import StoreError
from scalesweep.report.command import study_report
from scalesweep.tracking.runs import RunDescription, describe_runs
from scalesweep.tracking.uploaded import read_note, run_directories
from scalesweep.tracking.wandb_export import check_whole
from tests.report.synthetic import SyntheticStudy
from tests.tracking.studies import KILLED_AT, NUM_STEPS, change_plan, study_with_everything

pytest.importorskip("wandb", reason="exports need wandb (pip install 'scalesweep[wandb]')")

HOST = "planted-host"
# As study_run starts it, but on a machine of another name and with a secret among its words.
COMMAND = f"""
import socket, sys
socket.gethostname = lambda: "{HOST}"
from scalesweep.tracking.export_command import main
sys.exit(main(sys.argv[2:]))
"""


def run_export(study: SyntheticStudy, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, in a git repository and in the home directory of somebody with secrets."""
    return subprocess.run(
        [
            *(sys.executable, "-c", COMMAND, "--hf_token=planted-argument"),
            *(str(study.store.root), "quickstart", *words),
        ],
        cwd=home,
        env={
            **os.environ,
            "HOME": str(home),
            "USER": "planted-user",
            "WANDB_API_KEY": "planted-key-0123456789-0123456789-0123456789",
            "WANDB_NOTES": "planted-notes",
            "WANDB_MODE": "disabled",
            "HF_TOKEN": "planted-environment",
        },
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass(frozen=True, kw_only=True)
class ReadBack:
    """A run as `wandb leet inspect` shows it."""

    run: Mapping[str, Any]
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    exit_code: int
    rows: tuple[Mapping[str, float], ...]
    metrics: frozenset[tuple[str, str]]
    """(glob, step metric)"""


def read_back(folder: Path) -> ReadBack:
    file = next(folder.glob("*.wandb"))
    shown = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    records = [json.loads(line) for line in shown.splitlines()]
    run = next(record["run"] for record in records if record["type"] == "run")
    summary: dict[str, Any] = {}
    for record in records:
        if record["type"] == "summary":
            summary |= record["summary"]["update"]
    return ReadBack(
        run=run,
        config={key: v for key, v in run["config"]["update"].items() if key != "_wandb"},
        summary=summary,
        exit_code=records[-1]["exit"].get("exit_code", 0),
        rows=tuple(
            {key: v for key, v in record["history"]["item"].items() if not key.startswith("_")}
            for record in records
            if record["type"] == "history"
        ),
        metrics=frozenset(
            (record["metric"]["glob_name"], record["metric"]["step_metric"])
            for record in records
            if record["type"] == "metric" and "glob_name" in record["metric"]
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Export:
    study: SyntheticStudy
    home: Path
    folder: Path
    said: str
    described: tuple[RunDescription, ...]
    """The run of the study, a resumed cell, a done one, a failed one."""
    read: Mapping[str, ReadBack]
    """By run id."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    home = tmp_path_factory.mktemp("home")
    (home / ".netrc").write_text("machine api.wandb.ai login user password planted-netrc")
    (home / ".git").mkdir()
    study = study_with_everything(home / "planted-store")
    cell = study.plan.cells[0]
    config = {**cell.config, "judge": {"hf_token": "planted-config", "path": f"{home}/judge"}}
    cells = (dataclasses.replace(cell, config=config), *study.plan.cells[1:])
    change_plan(study, dataclasses.replace(study.plan, cells=cells))

    ended = run_export(study, home, "--project", "p", "--entity", "team")

    assert ended.returncode == 0, ended.stderr
    folder = study.store.study("quickstart") / "wandb"
    report = study_report(study.store, "quickstart")
    return Export(
        study=study,
        home=home,
        folder=folder,
        said=ended.stdout,
        described=tuple(describe_runs(report, study.store)),
        read={path.name.rpartition("-")[2]: read_back(path) for path in run_directories(folder)},
    )


def test_each_cell_is_one_run_with_its_id_name_group_and_tags(exported: Export) -> None:
    assert set(exported.read) == {run.id for run in exported.described}
    for described in exported.described:
        run = exported.read[described.id].run
        assert (run["run_id"], run["display_name"]) == (described.id, described.name)
        assert (run["run_group"], run["job_type"]) == ("quickstart", described.job_type)
        assert (run["project"], run["entity"]) == ("p", "team")
        assert run["tags"] == list(described.tags)
        assert run.get("notes", "") == described.notes


def test_rows_are_those_of_the_store_in_order_and_none_twice(exported: Export) -> None:
    for described in exported.described[1:]:
        expected = [
            {f"{section}/{name}": value for name, value in row.items()}
            for section, rows in described.sections.items()
            for row in rows
        ]
        assert list(exported.read[described.id].rows) == expected
    resumed = exported.read[exported.described[1].id]
    steps = [row["tune/step"] for row in resumed.rows if "tune/step" in row]
    assert steps == list(range(1, NUM_STEPS + 1))
    tune = exported.study.store.stage(exported.study.plan.cells[0].stages["tune"])
    later = {row["step"]: row["loss"] for row in tune.attempt(2).metric_rows()}
    assert resumed.rows[20 + KILLED_AT - 1]["tune/loss"] == later[KILLED_AT]


def test_each_section_has_its_own_step(exported: Export) -> None:
    resumed = exported.read[exported.described[1].id]

    assert resumed.metrics == {("align/*", "align/step"), ("tune/*", "tune/step")}


def test_config_and_summary_are_those_described(exported: Export) -> None:
    for described in exported.described:
        read = exported.read[described.id]
        assert without_empty(read.config) == without_empty(described.config)
        shown = {name: read.summary.get(name) for name in described.summary}
        assert shown == described.summary
        assert read.exit_code == (0 if described.is_done else 1)


def without_empty(value: Any) -> Any:
    """W&B keeps no empty mapping."""
    if isinstance(value, Mapping):
        parts = {key: without_empty(part) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part != {}}
    return value


def test_tables_and_page_are_files_of_the_study_run(exported: Export) -> None:
    described = exported.described[0]
    folder = next(path for path in run_directories(exported.folder) if described.id in path.name)
    (row,) = exported.read[described.id].rows

    for name, table in described.tables.items():
        assert row[f"tables/{name}._type"] == "table-file"
        file = folder / "files" / str(row[f"tables/{name}.path"])
        assert json.loads(file.read_text(encoding="utf-8")) == {
            "columns": list(table.columns),
            "data": [list(values) for values in table.rows],
        }
    page = folder / "files" / str(row["report.path"])
    assert page.read_text(encoding="utf-8") == described.page


def test_nothing_private_is_in_any_byte(exported: Export) -> None:
    private = [b"planted", str(exported.home).encode(), str(Path.home()).encode(), b"/home/"]
    if len(socket.gethostname()) > 5:  # a short one may stand anywhere by chance
        private.append(socket.gethostname().encode())

    files = [path for path in exported.folder.rglob("*") if path.is_file()]

    assert len(files) > 10
    for path in files:
        data = path.read_bytes()
        assert [word for word in private if word in data] == [], path
    assert all(read.run.get("host", "") == "" for read in exported.read.values())


def test_nothing_is_left_elsewhere(exported: Export) -> None:
    beside = {path.name for path in exported.folder.parent.iterdir()}

    assert beside == {".wandb-lock", "plan.json", "wandb"}
    assert {path.name for path in exported.home.iterdir()} == {".git", ".netrc", "planted-store"}


def test_the_last_line_says_how_to_upload(exported: Export) -> None:
    assert exported.said.splitlines()[-1] == (
        f"W&B: 4 offline runs below {exported.folder}; upload with: "
        f"python -m scalesweep sync quickstart --store {exported.study.store.root}"
    )


def test_exporting_again_leaves_one_run_per_cell(exported: Export) -> None:
    before = {path.name.rpartition("-")[2]: path for path in run_directories(exported.folder)}

    ended = run_export(exported.study, exported.home, "--project", "p", "--entity", "team")

    after = run_directories(exported.folder)
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name.rpartition("-")[2] for path in after) == sorted(before)
    digests = {note.digest for path in after if (note := read_note(path)) is not None}
    assert digests == {run.digest for run in exported.described}


def test_a_project_that_wandb_refuses_is_one_line(exported: Export) -> None:
    before = run_directories(exported.folder)

    ended = run_export(exported.study, exported.home, "--project", "a/b")

    assert ended.returncode == 2
    assert re.fullmatch(r"W&B: no runs written: .*Invalid project name 'a/b'.*\n", ended.stderr)
    assert run_directories(exported.folder) == before


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99], ids=["empty", "half", "without its end"])
def test_a_file_that_is_not_whole_is_noticed(
    exported: Export, tmp_path: Path, share: float
) -> None:
    described = exported.described[2]
    whole = next(exported.folder.glob(f"*-{described.id}/*.wandb"))
    cut = tmp_path / whole.name
    shutil.copy(whole, cut)
    os.truncate(cut, int(share * whole.stat().st_size))

    check_whole(whole, described)
    with pytest.raises(StoreError, match=r"not whole on disk .*is the disk full"):
        check_whole(cut, described)


def test_a_file_that_was_never_written_is_noticed(exported: Export, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="0 of 170 rows, no end"):
        check_whole(tmp_path / "run-x.wandb", exported.described[2])
