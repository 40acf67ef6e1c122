"""Seconds of stages by declared constants, against table 4 and hand calculations."""

from __future__ import annotations

import dataclasses

import pytest

from scalesweep.cost_model import table4
from scalesweep.cost_model.accelerators import accelerator
from scalesweep.cost_model.stage_time import BANDWIDTH_SHARE, SCORED_PER_S, declared_time
from scalesweep.cost_model.stage_work import StageWork
from scalesweep.records import Execution, StageKind, StageSpec
from scalesweep.specs import DataSpec, JudgeSpec
from tests.cost_model.test_judge_pay import bench
from tests.cost_model.test_stage_work import answering

A100, CPU = accelerator("A100-80GB"), accelerator("cpu")
NODES = Execution(cluster="azure", device="A100-80GB", num_nodes=4, devices_per_node=8)


def stage(kind: StageKind, identity: dict[str, object]) -> StageSpec:
    return StageSpec(kind=kind, label="", recipe_version=1, identity=identity)


@pytest.mark.parametrize("run", table4.PUBLISHED_RUNS, ids=lambda run: run.label)
def test_the_papers_runs_take_what_table_4_predicts_of_them(run: table4.PublishedRun) -> None:
    spec = stage(StageKind.tune, run.spec.to_identity())

    found = declared_time(spec, NODES, StageWork(flops=run.flops, units=1), A100)

    node_hours = 4 * found.work_s / 3600
    expected = table4.predicted_node_hours(run, efficiency=table4.EFFICIENCY)
    assert node_hours == pytest.approx(expected)
    assert node_hours == pytest.approx(run.node_hours, rel=0.11)


def test_twice_the_devices_take_half_the_time_after_the_start() -> None:
    run = table4.PUBLISHED_RUNS[0]
    spec, work = stage(StageKind.tune, run.spec.to_identity()), StageWork(flops=1e18, units=1)

    one = declared_time(spec, NODES, work, A100)
    two = declared_time(spec, dataclasses.replace(NODES, num_nodes=8), work, A100)

    assert two.work_s == pytest.approx(one.work_s / 2)
    assert two.startup_s == one.startup_s > 60


def test_decoding_reads_all_weights_for_every_token_of_a_batch() -> None:
    spec = stage(StageKind.generate, answering().to_identity())
    how = Execution(
        cluster="", device="A100-80GB", devices_per_node=2, devices_per_replica=2,
        micro_batch_size=16,
    )  # fmt: skip
    no_reading = StageWork(flops=0.0, units=64, decoded=0)

    found = declared_time(spec, how, dataclasses.replace(no_reading, decoded=64 * 100), A100)

    # 4 batches of 16, each as long as its longest answer, taken as twice the mean.
    steps = 4 * 200
    weights = 2 * 65.6e9
    expected = steps * weights / (2.039e12 * BANDWIDTH_SHARE)
    assert found.work_s == pytest.approx(expected, rel=0.01)
    assert declared_time(spec, how, no_reading, A100).work_s == 0.0


def test_the_devices_of_a_replica_compute_one_after_the_other() -> None:
    spec = stage(StageKind.generate, answering().to_identity())
    work = StageWork(flops=1e16, units=16)
    whole = Execution(cluster="", device="A100-80GB", devices_per_node=8, micro_batch_size=16)
    split = dataclasses.replace(whole, devices_per_replica=4)

    ratio = (
        declared_time(spec, split, work, A100).work_s
        / declared_time(spec, whole, work, A100).work_s
    )
    assert ratio == pytest.approx(4)


def test_data_and_judges_take_a_declared_time_for_each_item() -> None:
    data = stage(
        StageKind.data,
        DataSpec(dataset="x", generator="pictures", parameters={"num": 1}).to_identity(),
    )
    judge = stage(
        StageKind.judge,
        JudgeSpec(
            benchmarks=[bench("llava_bench"), bench("mmlu")],
            scorer="openai",
            model="gpt",
            num_runs=3,
        ).to_identity(),
    )
    asking = Execution(cluster="", judge={"max_concurrent": 10})

    assert declared_time(data, asking, StageWork(units=7000), CPU).work_s == pytest.approx(10)
    # LLaVA-Bench's 60 questions, 3 runs, 5 seconds each, 10 at once; MMLU asks nobody
    found = declared_time(judge, asking, StageWork(units=14_102), CPU).work_s
    assert found == pytest.approx(90 + 14_102 / SCORED_PER_S)
