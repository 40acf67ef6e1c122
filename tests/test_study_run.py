"""What a command does around the running itself: refuse, report, and say how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from scalesweep import study_command, study_run
from scalesweep.cli import REFUSED
from scalesweep.cli import run as run_line
from scalesweep.errors import PlanError
from scalesweep.launch.local import Scheduler, StudyResult, announce
from scalesweep.plan.graph import Plan
from scalesweep.rundir import Store, read_json
from tests.config.composing import cell
from tests.launch.test_budget import held_to
from tests.plan.test_weights import FROM_HUB
from tests.report.synthetic import QUICKSTART, SyntheticStudy, build_study

CONFIG = cell("model=mini_s", "tracking=none")


@pytest.fixture
def study(tmp_path: Path) -> SyntheticStudy:
    """Two cells of which all is done."""
    return build_study(tmp_path / "store", QUICKSTART[:2], name="quick", num_questions=40)


def test_a_study_of_which_all_is_done_is_reported_without_an_attempt(
    study: SyntheticStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = study_run.run_plan(study.plan, study.store, CONFIG)

    said = capsys.readouterr().out
    # 0.447 and 0.525 of 40 questions, rounded to whole answers
    assert sorted(outcome.scores.values()) == pytest.approx([18 / 40, 21 / 40])
    assert outcome.exit_status == 0
    assert "all 14 stages were done; 0 new attempts" in said
    assert f"report: {study.store.study('quick') / 'report.html'}" in said


def test_a_line_without_a_budget_says_that_it_lifts_the_one_before(
    study: SyntheticStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    study_run.run_plan(held_to(study.plan, usd=5.0), study.store, CONFIG)
    said = capsys.readouterr().out
    assert "budget.usd=5 (cheapest cells first): $" in said
    assert "budget.usd=5: $" in said.splitlines()[-2]

    study_run.run_plan(study.plan, study.store, CONFIG)

    said = capsys.readouterr().out
    assert "budget.usd=5 held before; this line names no budget" in said
    assert not (study.store.study("quick") / "budget.json").exists()


def test_the_report_is_about_the_cells_that_were_run(
    study: SyntheticStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even if another command has run other cells under the study's name meanwhile."""
    half = dataclasses.replace(study.plan, cells=study.plan.cells[:1])
    undisturbed = Scheduler.run

    def disturbed(self: Scheduler) -> StudyResult:
        result = undisturbed(self)
        announce(study.store, half)
        return result

    monkeypatch.setattr(Scheduler, "run", disturbed)
    outcome = study_run.run_plan(study.plan, study.store, CONFIG)

    plan = Plan.from_json(read_json(study.store.study("quick") / "plan.json"))
    assert len(outcome.scores) == 2
    assert plan == study.plan
    assert "mini_s" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_does_not_lose_the_study(
    study: SyntheticStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    (study.store.study("quick") / "report.html").mkdir()

    outcome = study_run.run_plan(study.plan, study.store, CONFIG)

    said = capsys.readouterr()
    assert outcome.exit_status == 0
    assert "no report" in said.err
    assert "0 new attempts" in said.out


def test_missing_packages_are_named_with_how_to_get_them(
    tmp_path: Path, study: SyntheticStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_run, "refuse_impossible", lambda *_, **__: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "peft" in name else name)

    with pytest.raises(PlanError, match=r"peft: not installed.*pip install 'scalesweep\[train\]'"):
        study_run.check_can_run(study.plan, Store(tmp_path / "empty"), CONFIG)
    study_run.check_can_run(study.plan, study.store, CONFIG)  # all is done: nothing is needed


def test_ctrl_c_that_a_library_turned_into_its_own_error_is_still_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            raise ValueError("a flag's cache is not there")  # as OmegaConf does halfway

    monkeypatch.setattr("hydra.main", lambda **_: lambda _: interrupted)

    assert run_line(["model=mini_s"]) == 130
    assert capsys.readouterr().err == "scalesweep: interrupted\n"


def test_ctrl_c_that_a_library_swallowed_stops_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    undisturbed = study_command.planned

    def disturbed(*words: Any) -> Any:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        return undisturbed(*words)

    monkeypatch.setattr(study_command, "planned", disturbed)

    assert run_line(["model=mini_s", f"store={tmp_path / 'store'}"]) == 130
    assert not (tmp_path / "store").exists()


def test_what_slurm_would_not_find_is_refused_before_anything_is_submitted(
    study: SyntheticStudy,
) -> None:
    config = cell("model=mini_s", "cluster=slurm_local", "cluster.preamble=nowhere.sh")

    with pytest.raises(PlanError, match=r"cluster.preamble=/.*/nowhere.sh: no such file"):
        study_run.run_plan(study.plan, study.store, config)

    assert not (study.store.root / "jobs").exists()


def test_weights_that_are_nowhere_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study_run, "ask_hub", lambda ids: {ids[0]: "it is gated"})

    status = run_line([*FROM_HUB, "cluster=local", "store=store"])

    out, err = capfd.readouterr()
    assert (status, out) == (REFUSED, "")
    assert err.splitlines() == [
        "scalesweep: model.weights=hub:some/llama@main: it is gated; or set model.path=DIR",
        "scalesweep: resolution.weights=hub:some/clip@v1: the weights of clip_32px are not here; "
        "`hf download some/clip --revision v1`, or set resolution.path=DIR",
    ]
    assert list(tmp_path.iterdir()) == []
