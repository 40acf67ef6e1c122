"""From a study's records to descriptions of W&B runs."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from scalesweep.records import Predicted, StageKind, StageRef
from scalesweep.report.command import study_report
from scalesweep.tracking.runs import (
    RunDescription,
    cell_run_id,
    describe_runs,
    study_run_id,
)
from tests.report.synthetic import SyntheticStudy
from tests.tracking.studies import (
    FULL,
    KILLED_AT,
    NUM_STEPS,
    RESUMED_FROM,
    change_plan,
    study_with_everything,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SyntheticStudy:
    return study_with_everything(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def runs(study: SyntheticStudy) -> list[RunDescription]:
    return described(study)


def described(study: SyntheticStudy) -> list[RunDescription]:
    return describe_runs(study_report(study.store, study.plan.study), study.store)


def test_there_is_one_run_of_the_study_and_one_per_cell(
    study: SyntheticStudy, runs: list[RunDescription]
) -> None:
    assert [(run.job_type, run.name) for run in runs] == [
        ("study", "study quickstart"),
        *(("cell", cell.name) for cell in study.plan.cells),
    ]
    assert {run.group for run in runs} == {"quickstart"}


def test_ids_are_stable_distinct_and_fit_for_wandb(
    study: SyntheticStudy, runs: list[RunDescription]
) -> None:
    again = described(study)

    assert [run.id for run in again] == [run.id for run in runs]
    assert len({run.id for run in runs}) == len(runs)
    assert all(re.fullmatch(r"[a-z0-9]{1,32}", run.id) for run in runs)


def test_ids_depend_on_study_cell_and_what_is_trained(study: SyntheticStudy) -> None:
    cell = study.plan.cells[0]
    other_tune = {**cell.stages, "tune": StageRef(kind=StageKind.tune, key="0" * 16)}
    other_judge = {**cell.stages, "judge": StageRef(kind=StageKind.judge, key="0" * 16)}

    ids = {
        cell_run_id("quickstart", cell),
        cell_run_id("other", cell),
        cell_run_id("quickstart", dataclasses.replace(cell, name="renamed")),
        cell_run_id("quickstart", dataclasses.replace(cell, stages=other_tune)),
        study_run_id("quickstart"),
        study_run_id("other"),
    }

    assert len(ids) == 6
    assert cell_run_id("quickstart", dataclasses.replace(cell, stages=other_judge)) in ids


def test_a_step_done_twice_stands_once_and_the_later_attempt_wins(
    study: SyntheticStudy, runs: list[RunDescription]
) -> None:
    stage = study.store.stage(study.plan.cells[0].stages["tune"])
    first, second = (list(stage.attempt(number).metric_rows()) for number in (1, 2))

    rows = runs[1].sections["tune"]

    assert first[KILLED_AT - 1]["loss"] != second[KILLED_AT - 1 - RESUMED_FROM]["loss"]
    assert [row["step"] for row in rows] == list(range(1, NUM_STEPS + 1))
    assert list(rows[:RESUMED_FROM]) == first[:RESUMED_FROM]
    assert list(rows[RESUMED_FROM:]) == second


def test_a_shared_stage_is_repeated_in_each_cell_and_marked(runs: list[RunDescription]) -> None:
    full, lora, failed = runs[1:]

    assert full.sections["align"] == lora.sections["align"]
    assert len(full.sections["align"]) == 20
    for run in (full, lora):
        assert run.config["scalesweep"]["shared_by"] == {"align": 2}
        assert "shared align" in run.tags
    assert failed.config["scalesweep"]["shared_by"] == {}


def test_curves_hold_metrics_and_neither_progress_nor_clock(tmp_path: Path) -> None:
    study = study_with_everything(tmp_path)
    align = study.store.stage(study.plan.cells[2].stages["align"]).attempt(1)
    row = {
        "time": 1.5,
        "progress/done": 1,
        "progress/unit": "step",
        "step": 1,
        "loss": 2.0,
        "flag": True,
        "tokens": 7,
    }
    align.metrics.write_text(json.dumps(row) + "\n", encoding="utf-8")

    run = described(study)[3]

    assert run.sections["align"] == ({"step": 1, "loss": 2.0, "tokens": 7},)


def test_progress_of_answering_is_no_curve(tmp_path: Path) -> None:
    study = study_with_everything(tmp_path)
    generate = study.store.stage(study.plan.cells[0].stages["generate"]).attempt(1)
    row = {"time": 1.5, "progress/done": 1, "progress/total": 3, "progress/unit": "answer"}
    generate.metrics.write_text(json.dumps(row) + "\n", encoding="utf-8")

    assert set(described(study)[1].sections) == {"align", "tune"}


def test_costs_and_scores_are_in_the_summary(runs: list[RunDescription]) -> None:
    summary = runs[2].summary

    # lora: 1.5 s + 150 steps of 0.25 s on one of two devices at $0.10 per node-hour
    assert summary["cost/node_hours"] == pytest.approx(39.0 / 2 / 3600)
    assert summary["cost/usd"] == pytest.approx(39.0 / 2 / 3600 * 0.1, abs=1e-6)
    # both data stages 24, align 9, tune 39, two generate 12, two judge 0.8
    assert summary["cost/standalone_node_hours"] == pytest.approx(84.8 / 2 / 3600)
    # shared: data by three cells 8, align and evaluation of the base by two 4.5 + 3.2
    # (the failed cell needs that evaluation too: 6.4 / 3); its own tune 39 and evaluation 6.4
    assert summary["cost/share_device_seconds"] == pytest.approx(
        24 / 3 + 9 / 2 + 6.4 / 3 + 39 + 6.4, abs=0.01
    )
    assert summary["cost/is_whole"] is True
    assert summary["score/mini_vqa"] == 0.6
    assert summary["standard_error/mini_vqa"] == pytest.approx((0.6 * 0.4 / 40) ** 0.5)
    assert {"score/mini_vqa/color", "standard_error/mini_vqa/color"} <= summary.keys()
    assert summary["score_before/mini_text"] == 1.0
    assert summary["missing/mini_vqa"] == 0
    assert summary["params/trainable"] == 4_300 * 8


def test_the_cost_of_a_resumed_cell_counts_both_attempts(runs: list[RunDescription]) -> None:
    assert runs[1].summary["cost/device_seconds"] == pytest.approx(2 * 39.0)


def test_a_cell_that_is_not_done_says_so(runs: list[RunDescription]) -> None:
    done, failed = runs[1], runs[3]

    assert (done.is_done, done.summary["state"], done.tags[0]) == (True, "done", "done")
    assert (failed.is_done, failed.summary["state"], failed.tags[0]) == (False, "failed", "failed")
    assert failed.notes.startswith("tune: loss is NaN at step 41")
    assert failed.summary["cause"] == failed.notes
    assert "score/mini_vqa" not in failed.summary
    assert failed.summary["cost/is_whole"] is False
    assert not runs[0].is_done
    assert runs[0].summary["state"] == "unfinished"
    assert (runs[0].summary["cells/done"], runs[0].summary["cells/total"]) == (2, 3)


def test_the_study_run_holds_the_tables_and_the_page(runs: list[RunDescription]) -> None:
    tables = runs[0].tables

    assert {"cells", "cost", "unfinished", "kinds"} <= tables.keys()
    cells = [dict(zip(tables["cells"].columns, row, strict=True)) for row in tables["cells"].rows]
    assert [cell["score_mini_vqa"] for cell in cells] == [0.5, 0.6, None]
    assert [cell["model"] for cell in cells] == ["mini_s"] * 3
    assert runs[0].page.startswith("<!DOCTYPE html>")
    assert runs[0].sections == {}


def test_the_ledger_of_attempts_adds_up_to_what_the_study_cost(
    runs: list[RunDescription],
) -> None:
    ledger = runs[0].tables["ledger"]
    rows = [dict(zip(ledger.columns, row, strict=True)) for row in ledger.rows]

    tune = [row for row in rows if row["label"].startswith(f"tune {FULL.model}")]
    assert [row["attempt"] for row in tune[:2]] == [1, 2]
    assert (tune[0]["outcome"], tune[0]["lost_usd"] > 0) == ("killed", True)
    for unit in ("usd", "device_seconds"):
        assert sum(row[f"total_{unit}"] for row in rows) == pytest.approx(
            runs[0].summary[f"cost/{unit}"]
        )


def test_predictions_stand_beside_what_was_measured(tmp_path: Path) -> None:
    study = study_with_everything(tmp_path)
    lora = study.plan.cells[1]
    expected = Predicted(
        startup_s=1.0,
        work_s=10.0,
        flops=1e9,
        device_bytes=0.0,
        host_bytes=1e9,
        node_hours=0.01,
        usd=0.5,
        judge_usd=0.25,
    )
    stages = [
        dataclasses.replace(s, execution=dataclasses.replace(s.execution, predicted=expected))
        if s.spec.ref in lora.stages.values()
        else s
        for s in study.plan.stages
    ]
    change_plan(study, dataclasses.replace(study.plan, stages=tuple(stages)))

    failed, summary = described(study)[3].summary, described(study)[2].summary

    num_stages = len(set(lora.stages.values()))
    assert summary["predicted/node_hours"] == pytest.approx(0.01)
    assert summary["predicted/standalone_usd"] == pytest.approx(0.5 * num_stages)
    assert summary["predicted/judge_usd"] == pytest.approx(0.25 * num_stages)
    assert summary["cost/standalone_usd"] != summary["predicted/standalone_usd"]
    # of the other cell's own stages nothing was predicted: part of a cost is no cost
    assert not any(name.startswith("predicted/") for name in failed)


def test_a_cells_point_stands_in_its_config_without_dots(tmp_path: Path) -> None:
    study = study_with_everything(tmp_path)
    cells = (
        dataclasses.replace(study.plan.cells[0], point={"model": "mini_s", "optim.lr": 0.003}),
        *study.plan.cells[1:],
    )
    change_plan(study, dataclasses.replace(study.plan, cells=cells))

    assert described(study)[1].config["swept"] == {"model": "mini_s", "optim_lr": 0.003}


def test_nothing_private_is_described(tmp_path: Path) -> None:
    study = study_with_everything(tmp_path)
    cell = study.plan.cells[0]
    config = {**cell.config, "hf_token": "planted", "model": {"path": "/home/somebody/w/13b"}}
    cells = (dataclasses.replace(cell, config=config), *study.plan.cells[1:])
    change_plan(study, dataclasses.replace(study.plan, cells=cells))

    text = json.dumps([dataclasses.asdict(run) for run in described(study)], ensure_ascii=False)

    assert "…/13b" in text
    for private in ("planted", "/home/somebody", str(study.store.root), str(Path.home())):
        assert private not in text


def test_the_digest_changes_with_anything_shown(runs: list[RunDescription]) -> None:
    run = runs[1]
    rows = (*run.sections["tune"][:-1], {"step": NUM_STEPS, "loss": float("nan")})
    changed = [
        dataclasses.replace(run, summary={**run.summary, "score/mini_vqa": 0.51}),
        dataclasses.replace(run, sections={**run.sections, "tune": rows}),
        dataclasses.replace(run, tags=("stale",)),
    ]

    assert len({run.digest, *(other.digest for other in changed)}) == 4
    assert dataclasses.replace(run).digest == run.digest


def test_last_steps_are_by_section(runs: list[RunDescription]) -> None:
    assert runs[1].last_steps == {"align": 20, "tune": NUM_STEPS}
    assert runs[0].last_steps == {}


def test_a_study_that_ends_before_scores_is_described(tmp_path: Path) -> None:
    study = study_with_everything(tmp_path)
    kept = ("data:mini_train", "align", "tune")
    cells = tuple(
        dataclasses.replace(cell, stages={role: cell.stages[role] for role in kept})
        for cell in study.plan.cells
    )
    change_plan(study, dataclasses.replace(study.plan, cells=cells))

    runs = described(study)

    assert [run.summary["state"] for run in runs] == ["unfinished", "done", "done", "failed"]
    assert FULL.name == runs[1].name
    assert not any(name.startswith("score/") for name in runs[1].summary)
