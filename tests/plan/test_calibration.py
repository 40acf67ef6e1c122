"""Speeds from what attempts recorded: clean work alone, and nothing that cannot be read."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalesweep.models.devices import processor_name
from scalesweep.plan.calibration import MOST_OF_A_KIND, read_speeds
from scalesweep.records import Execution, Outcome, StageKind, StageSpec, Usage, WorkDone
from scalesweep.rundir import AttemptDir, StageDir, Store, write_json

CPU = Execution(cluster="local", device="cpu")
DONE = Usage(outcome=Outcome.done, wall_s=50.0, startup_s=10.0, steps=100)


def amounts(spec: StageSpec, _: Execution) -> tuple[float, float]:
    return 1e6, float(spec.identity["units"])


def stage(store: Store, *, kind: StageKind = StageKind.tune, seed: int = 1) -> StageDir:
    identity = {"method": "lora", "seed": seed, "units": 100}
    spec = StageSpec(kind=kind, label="made", recipe_version=1, identity=identity)
    made = store.stage(spec.ref)
    made.path.mkdir(parents=True)
    made.stage_file.write_text(_json(spec.to_json()))
    return made


def attempt(
    made: StageDir, usage: Usage, *, execution: Execution = CPU, work: WorkDone | None = None
) -> AttemptDir:
    tried = made.attempt(len(made.attempts()) + 1)
    tried.path.mkdir(parents=True)
    tried.usage_file.write_text(_json(usage.to_json()))
    tried.execution_file.write_text(_json(execution.to_json()))
    if work is not None:
        tried.work_file.write_text(_json(work.to_json()))
    made.done_file.write_text(_json({"schema": 1, "attempt": tried.number}))
    return tried


def _json(value: Any) -> str:
    return json.dumps(value)


def test_a_whole_attempt_is_one_run_with_its_start_up_apart(tmp_path: Path) -> None:
    made = stage(Store(tmp_path))
    attempt(made, DONE, execution=replace(CPU, num_nodes=2, devices_per_node=4))

    (run,) = read_speeds(Store(tmp_path), amounts).runs

    assert (run.startup_s, run.work_s, run.share) == (10.0, 40.0, 1.0)
    assert (run.flops, run.units) == (1e6, 100)
    assert run.traits.num_devices == 8
    assert run.device_s_per_unit == pytest.approx(40 * 8 / 100)


def test_an_attempt_counts_with_the_steps_that_it_did_itself(tmp_path: Path) -> None:
    made = stage(Store(tmp_path))
    attempt(made, replace(DONE, outcome=Outcome.killed, steps=10))  # nobody knows when it stopped
    attempt(made, replace(DONE, outcome=Outcome.interrupted, steps=40, wall_s=30.0))
    attempt(made, replace(DONE, first_step=40, steps=60))

    runs = read_speeds(Store(tmp_path), amounts).runs

    assert sorted((run.units, run.work_s) for run in runs) == [(40, 20.0), (60, 40.0)]
    assert sorted(run.flops for run in runs) == pytest.approx([0.4e6, 0.6e6])


def test_the_rest_of_a_nearly_finished_stage_says_nothing(tmp_path: Path) -> None:
    made = stage(Store(tmp_path))
    attempt(made, replace(DONE, first_step=95, steps=5))

    assert read_speeds(Store(tmp_path), amounts).runs == ()


def test_of_a_later_attempt_to_judge_or_answer_only_counted_questions_are_taken(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    judge = stage(store, kind=StageKind.judge)
    generate = stage(store, kind=StageKind.generate)
    for made in (judge, generate):
        attempt(made, replace(DONE, outcome=Outcome.interrupted, steps=0))
    attempt(judge, replace(DONE, steps=0))
    answered = attempt(generate, replace(DONE, steps=0), work=WorkDone(units=250))
    write_json(answered.path / "generation.json", {"all": {"answers": 1000}})

    (run,) = read_speeds(store, amounts).runs

    assert run.ref.kind is StageKind.generate
    assert run.share == 0.25


def test_runs_on_another_processor_are_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = {1: "", 2: processor_name(), 3: "another processor"}
    for seed, name in names.items():
        attempt(stage(store, seed=seed), DONE, work=WorkDone(units=100, device=name))

    assert len(read_speeds(store, amounts).runs) == 2


@pytest.mark.parametrize("name", ["usage.json", "execution.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1}', "\x00"])
def test_a_damaged_record_costs_its_own_stage_alone(
    tmp_path: Path, name: str, content: str
) -> None:
    store = Store(tmp_path)
    attempt(stage(store, seed=1), DONE)
    broken = attempt(stage(store, seed=2), DONE)
    (broken.path / name).write_text(content)

    assert [run.ref.kind for run in read_speeds(store, amounts).runs] == [StageKind.tune]


def test_a_record_of_a_setting_that_is_no_longer_one_costs_its_own_stage_alone(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    attempt(stage(store, seed=1), DONE)
    attempt(stage(store, seed=2), DONE, execution=replace(CPU, gradient_checkpointing="true"))

    def checked(spec: StageSpec, execution: Execution) -> tuple[float, float]:
        assert execution.gradient_checkpointing in ("none", "selective", "full")
        return amounts(spec, execution)

    assert [run.units for run in read_speeds(store, checked).runs] == [100]


def test_a_stage_that_is_not_done_or_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    running, edited = stage(store, seed=1), stage(store, seed=2)
    for made in (running, edited):
        attempt(made, DONE)
    running.done_file.unlink()
    edited.stage_file.write_text(edited.stage_file.read_text().replace("lora", "full"))

    assert read_speeds(store, amounts).runs == ()
    assert read_speeds(Store(tmp_path / "none"), amounts).runs == ()


def test_of_a_large_store_the_newest_stages_are_read_and_quickly(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in range(MOST_OF_A_KIND + 30):
        made = stage(store, seed=seed)
        attempt(made, replace(DONE, wall_s=11.0 + seed))
        os.utime(made.path, (1e9 + seed, 1e9 + seed))

    began = time.perf_counter()
    runs = read_speeds(store, amounts).runs
    took = time.perf_counter() - began

    assert min(run.work_s for run in runs) == 31.0  # of seed 30, the oldest of the newest
    assert len(runs) == MOST_OF_A_KIND
    assert took < 1.0  # 0.1 s on a quiet machine
