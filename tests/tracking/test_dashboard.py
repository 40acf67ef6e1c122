"""What a study's dashboard shows, from its records; and its specification, sent to a server."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scalesweep.cli import run
from scalesweep.errors import ConfigError
from scalesweep.records import Predicted
from scalesweep.report.command import study_report
from scalesweep.tracking import wandb_server, workspaces
from scalesweep.tracking.dashboard import (
    Curves,
    Dashboard,
    Markdown,
    Panels,
    Paragraph,
    ParallelCoordinates,
    Scatter,
    StoredTable,
    dashboard,
)
from tests.fakes.wandb_server import WandbServer
from tests.report.synthetic import SyntheticStudy, build_study
from tests.tracking.studies import FAILED, FULL, LORA, change_plan


def with_points(study: SyntheticStudy) -> SyntheticStudy:
    """Its cells, swept over a method and a learning rate that spans a decade."""
    points = [("full", 0.003), ("lora", 0.003), ("full", 0.03)]
    cells = [
        dataclasses.replace(cell, point={"tuning": method, "optim.lr": lr, "model": "mini_s"})
        for cell, (method, lr) in zip(study.plan.cells, points, strict=True)
    ]
    change_plan(study, dataclasses.replace(study.plan, cells=tuple(cells)))
    return study


@pytest.fixture
def study(tmp_path: Path) -> SyntheticStudy:
    made = build_study(tmp_path / "planted-store", [FULL, LORA, FAILED], num_questions=40)
    return with_points(made)


def shown(study: SyntheticStudy) -> Dashboard:
    return dashboard(study_report(study.store, "quickstart"))


def panels_of(board: Dashboard, title: str) -> tuple[Any, ...]:
    return next(section.panels for section in board.sections if section.title == title)


def test_the_first_chart_is_the_cost_of_whole_cells_against_the_score(
    study: SyntheticStudy,
) -> None:
    chart = panels_of(shown(study), "Cost and score")[0]

    assert isinstance(chart, Scatter)
    assert (chart.x.name, chart.y.name) == ("cost/standalone_usd", "score/mini_vqa")


def test_parallel_coordinates_have_an_axis_per_setting_that_differs(study: SyntheticStudy) -> None:
    [chart] = [
        panel
        for panel in panels_of(shown(study), "Cost and score")
        if isinstance(panel, ParallelCoordinates)
    ]

    assert [(axis.key.name, axis.log) for axis in chart.axes] == [
        ("swept.tuning", False),
        ("swept.optim_lr", True),  # 0.003 to 0.03
        ("cost/standalone_usd", True),
        ("score/mini_vqa", False),
    ]


def test_curves_stand_over_their_own_step(study: SyntheticStudy) -> None:
    curves = [p for p in panels_of(shown(study), "Curves") if isinstance(p, Curves)]

    assert ("tune/step", "tune/loss") in {(curve.x, curve.y) for curve in curves}
    assert ("align/step", "align/loss") in {(curve.x, curve.y) for curve in curves}


def test_predictions_have_charts_only_where_there_are_some(study: SyntheticStudy) -> None:
    without = shown(study)
    expected = Predicted(
        startup_s=1.0, work_s=9.0, flops=1e9, device_bytes=0.0, host_bytes=1e9,
        node_hours=0.01, usd=0.5,
    )  # fmt: skip
    stages = tuple(
        dataclasses.replace(s, execution=dataclasses.replace(s.execution, predicted=expected))
        for s in study.plan.stages
    )
    change_plan(study, dataclasses.replace(study.plan, stages=stages))

    chart = panels_of(shown(study), "Predicted and measured")[0]

    assert "Predicted and measured" not in {section.title for section in without.sections}
    assert (chart.x.name, chart.y.name) == ("predicted/standalone_usd", "cost/standalone_usd")


def test_the_report_has_question_answer_and_every_table(study: SyntheticStudy) -> None:
    board = shown(study)

    texts = [block.text for block in board.report if isinstance(block, Paragraph)]
    tables = [block.text for block in board.report if isinstance(block, Markdown)]
    assert texts[0] == "What do size, resolution and tuning buy?"
    assert any("scores highest" in text for text in texts)
    assert any("0.600 ± " in table for table in tables)  # LORA's score in the table of costs
    stored = {p.name for p in panels_of(board, "Tables") if isinstance(p, StoredTable)}
    assert {"cells", "ledger", "cost"} <= stored


def test_a_long_table_is_shown_as_it_is_stored(
    study: SyntheticStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesweep.tracking.dashboard.MOST_ROWS", 2)

    report = shown(study).report

    assert StoredTable(name="cost") in [
        panel for block in report if isinstance(block, Panels) for panel in block.panels
    ]


@pytest.mark.parametrize("words", [[], ["--dry-run", "--push"]])
def test_it_is_either_printed_or_pushed(
    study: SyntheticStudy, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(["dashboard", "quickstart", *words, "--store", str(study.store.root)])

    assert status == 2
    assert "say --dry-run (print what would be sent) or --push" in capsys.readouterr().err


def test_without_the_library_one_line_says_how_to_get_it(
    study: SyntheticStudy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)

    status = run(["dashboard", "quickstart", "--dry-run", "--store", str(study.store.root)])

    assert status == 2
    assert capsys.readouterr().err == (
        "scalesweep: dashboard: wandb_workspaces is not installed; "
        "pip install 'scalesweep[dashboard]'\n"
    )


# ---------------------------------------------------------------- on a server


@pytest.fixture
def server() -> Iterator[WandbServer]:
    pytest.importorskip("wandb_workspaces", reason="pip install 'scalesweep[dashboard]'")
    with WandbServer() as server:
        yield server


def run_dashboard(
    study: SyntheticStudy, environment: Mapping[str, str], *words: str
) -> subprocess.CompletedProcess[str]:
    home = study.store.root.parent
    store = ("--store", str(study.store.root))
    return subprocess.run(
        [sys.executable, "-m", "scalesweep", "dashboard", "quickstart", *words, *store],
        cwd=home,
        env={**os.environ, "HOME": str(home), "HF_TOKEN": "planted-token", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def spec_of(server: WandbServer, kind: str) -> Any:
    [view] = [view for view in server.views.values() if view["type"] == kind]
    return json.loads(view["spec"])


def test_a_dry_run_asks_no_server_and_needs_no_login(
    study: SyntheticStudy, server: WandbServer
) -> None:
    ended = run_dashboard(study, {"WANDB_BASE_URL": server.url}, "--dry-run", "--project", "p")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert server.raw == []
    said = json.loads(ended.stdout)
    sections = said["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    assert sections[0]["panels"][0]["viewType"] == "Scatter Plot"
    assert sections[0]["panels"][0]["config"]["xAxis"] == "summary:cost/standalone_usd"
    assert sections[0]["panels"][2]["viewType"] == "Parallel Coordinates Plot"
    assert said["report"]["spec"]["blocks"][1]["children"][0]["text"].startswith("What do size")
    for private in ("planted", str(study.store.root.parent), str(Path.home())):
        assert private not in ended.stdout


@pytest.mark.slow
def test_pushing_again_brings_the_same_workspace_and_report_up_to_date(
    study: SyntheticStudy, server: WandbServer
) -> None:
    too_early = run_dashboard(study, server.environment, "--push", "--project", "p")
    server.projects.add("p")

    first = run_dashboard(study, server.environment, "--push", "--project", "p")
    specs = {view["type"]: view["spec"] for view in server.views.values()}
    note = study.store.study("quickstart") / "dashboard.json"
    note.unlink()  # from another machine: they are found by their names
    again = run_dashboard(study, server.environment, "--push", "--project", "p")
    for view in server.views.values():
        view["name"] = "renamed"  # should the server not take our names: by their ids
    third = run_dashboard(study, server.environment, "--push", "--project", "p")

    assert too_early.returncode == 2
    assert "W&B has no project p of team that you can see; `sync` makes it" in too_early.stderr
    assert [line.split(":")[0] for line in first.stdout.splitlines()] == [
        "workspace made",
        "report made",
    ]
    for ended in (again, third):
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout == first.stdout.replace(" made:", " brought up to date:")
    assert f"{server.url}/team/p?nw=" in first.stdout
    assert f"{server.url}/team/p/reports/Study-quickstart--" in first.stdout
    assert {view["type"]: view["spec"] for view in server.views.values()} == specs
    runs = spec_of(server, "project-view")["section"]["runSets"][0]
    assert runs["filters"]["filters"][0]["value"] == "quickstart"
    grids = [b for b in spec_of(server, "runs")["blocks"] if b["type"] == "panel-grid"]
    assert {grid["metadata"]["runSets"][0]["project"]["name"] for grid in grids} == {"p"}
    assert server.unknown == []
    received = server.everything()
    for private in ("planted", str(study.store.root.parent), str(Path.home())):
        assert private.encode() not in received


def test_another_version_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb_workspaces")
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.5.1")

    with pytest.raises(workspaces.ConfigError, match=r"wandb-workspaces 0\.5\.1 was not tried"):
        workspaces.check_installed()


def test_a_login_without_a_team_of_its_own_does_where_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wandb = pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setattr(wandb, "Api", lambda **_: SimpleNamespace(default_entity=None))
    monkeypatch.setattr(wandb_server, "os", SimpleNamespace(environ={}))

    with pytest.raises(ConfigError, match="--entity TEAM"):
        wandb_server.connect(None)
    assert wandb_server.connect("team").entity == "team"
