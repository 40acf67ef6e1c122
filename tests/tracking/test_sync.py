"""Studies brought to a server on loopback by the command line, with outages in between."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesweep.report.command import study_report
from scalesweep.tracking.runs import RunDescription, cell_run_id, describe_runs, study_run_id
from tests.fakes.wandb_server import KEY, WandbServer
from tests.report.synthetic import SyntheticStudy, build_study
from tests.tracking.studies import FULL, LORA, NUM_STEPS, change_plan, resume

pytest.importorskip("wandb", reason="uploads need wandb (pip install 'scalesweep[wandb]')")


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server


def planted_study(home: Path) -> SyntheticStudy:
    """In the home of somebody with secrets, some of them in the study's settings."""
    study = build_study(home / "planted-store", [FULL, LORA], num_questions=40)
    planted = {
        "judge": {"api_key": "planted-judge-key", "path": f"{home}/planted-weights/judge"},
        "tracking": {"wandb": True, "project": "p", "entity": None},
    }
    cells = (dataclasses.replace(c, config={**c.config, **planted}) for c in study.plan.cells)
    change_plan(study, dataclasses.replace(study.plan, cells=tuple(cells)))
    return study


def run_sync(
    study: SyntheticStudy, server: WandbServer, *words: str
) -> subprocess.CompletedProcess[str]:
    store = ("--store", str(study.store.root))
    return run(study, server, "scalesweep", "sync", "quickstart", *store, *words)


def run_round(study: SyntheticStudy, server: WandbServer) -> subprocess.CompletedProcess[str]:
    """As `sync` does it, with less patience."""
    words = (str(study.store.root), "quickstart", "--project", "scalesweep", "--lag", "0.5")
    return run(study, server, "scalesweep.tracking.sync_command", *words)


def run(
    study: SyntheticStudy, server: WandbServer, *words: str
) -> subprocess.CompletedProcess[str]:
    home = study.store.root.parent
    (home / ".netrc").write_text("machine example.invalid login user password planted-netrc")
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=home,
        env={
            **os.environ,
            **server.environment,
            "HOME": str(home),
            "USER": "planted-user",
            "HF_TOKEN": "planted-environment",
            "OPENAI_API_KEY": "planted-openai",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def described(study: SyntheticStudy) -> list[RunDescription]:
    return describe_runs(study_report(study.store, "quickstart"), study.store)


def check_whole(study: SyntheticStudy, server: WandbServer) -> None:
    """The server has each run of the study, each step once and in order."""
    runs = described(study)
    assert set(server.runs) == {run.id for run in runs}
    for run in runs:
        got = server.runs[run.id]
        assert {key: got.summary.get(key) for key in run.summary} == dict(run.summary)
        assert (got.fields["displayName"], got.fields["groupName"]) == (run.name, "quickstart")
        assert got.config == json.loads(json.dumps(run.config))
        for section, rows in run.sections.items():
            there = server.rows_of(run.id, section)
            assert [step for step, _ in there] == [row["step"] for row in rows]
            for (_, row), wanted in zip(there, rows, strict=True):
                assert {f"{section}/{k}": v for k, v in wanted.items()}.items() <= row.items()
        steps = sum(len(rows) for rows in run.sections.values())
        assert sum(1 for row in got.rows if any(key.endswith("/step") for key in row)) == steps


@pytest.mark.slow
def test_a_study_arrives_whole_and_nothing_private_with_it(
    tmp_path: Path, server: WandbServer
) -> None:
    study = planted_study(tmp_path)

    ended = run_sync(study, server)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == f"W&B: 3 runs uploaded: {server.url}/team/p"
    check_whole(study, server)
    assert server.unknown == []
    run = described(study)[0]
    files = server.runs[run.id].files
    assert any(name.startswith("media/html/report") for name in files)
    for name, table in run.tables.items():
        [data] = [f for n, f in files.items() if n.startswith(f"media/table/tables/{name}_")]
        assert json.loads(data)["columns"] == list(table.columns)
        assert json.loads(data)["data"] == json.loads(json.dumps(table.rows))
    received = server.everything()
    assert b"mini_vqa" in received
    for private in ("planted", str(tmp_path), str(Path.home()), socket.gethostname(), KEY):
        assert private.encode() not in received, private

    assert not (tmp_path / "wandb").exists()  # wandb leaves logs where it is started
    num_requests = len(server.raw)
    again = run_sync(study, server)

    assert (again.returncode, again.stdout) == (0, "W&B: has everything; nothing was sent\n")
    assert len(server.raw) == num_requests


@pytest.mark.slow
def test_after_an_outage_half_way_each_row_arrives_once(
    tmp_path: Path, server: WandbServer
) -> None:
    study = build_study(tmp_path, [FULL, LORA], num_questions=40)
    server.rows_until_fault = 1

    broken = run_sync(study, server, "--limit", "4")

    assert broken.returncode == 1
    assert "All is kept on disk; the same sync goes on from there" in broken.stderr
    taken = sum(len(run.rows) for run in server.runs.values())
    assert 1 <= taken < 2 * NUM_STEPS

    still_down = run_sync(study, server, "--limit", "4")
    resume(study, study.plan.cells[0].stages["tune"], FULL)  # and the study goes on meanwhile
    server.fault = ""
    ended = run_sync(study, server)

    assert still_down.returncode == 1
    assert "the W&B server does not answer" in still_down.stderr
    assert (ended.returncode, ended.stderr) == (0, "")
    check_steps_once(study, server)
    assert server.runs[study_run_id("quickstart")].summary["state"] == "done"


def check_steps_once(study: SyntheticStudy, server: WandbServer) -> None:
    """Rows that W&B took before they were done again stay as they were."""
    for cell in study.plan.cells:
        steps = [step for step, _ in server.rows_of(cell_run_id("quickstart", cell), "tune")]
        assert steps == list(range(1, NUM_STEPS + 1))


@pytest.mark.slow
def test_rows_that_the_server_refused_are_missed_and_sent_later(
    tmp_path: Path, server: WandbServer
) -> None:
    study = build_study(tmp_path, [FULL, LORA], num_questions=40)
    server.fault, server.fault_paths = "404", ("file_stream",)  # wandb takes the runs for synced

    broken = run_round(study, server)
    server.fault = ""
    ended = run_sync(study, server)

    assert broken.returncode == 1
    assert "does not say that it has all rows" in broken.stderr
    assert (ended.returncode, ended.stderr) == (0, "")
    check_whole(study, server)


def test_a_login_that_the_server_refuses_is_one_line(tmp_path: Path, server: WandbServer) -> None:
    study = build_study(tmp_path, [FULL], num_questions=40)
    server.fault = "401"

    ended = run_sync(study, server)

    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith("scalesweep: sync: W&B: the server refused the login: ")
    assert "wandb login" in line
