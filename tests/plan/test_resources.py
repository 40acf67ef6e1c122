"""Devices a job holds are told apart from the ranks that run on them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from scalesweep.config.cluster import ClusterConfig, StageJobConfig
from scalesweep.config.judge import JudgeConfig
from scalesweep.errors import PlanError
from scalesweep.plan.resources import held_devices, is_slurm, node_devices, stage_execution
from scalesweep.records import Execution, StageKind
from tests.config.composing import cell

SLURM = ClusterConfig(
    name="lab",
    kind="slurm",
    devices_per_node=8,
    cpus_per_device=6,
    stages={"data": StageJobConfig(devices=0, cpus=4), "tune": StageJobConfig(devices=4)},
)


def held(kind: StageKind, *, num_nodes: int = 1, **settings: Any) -> int | None:
    return held_devices(dataclasses.replace(SLURM, **settings), kind, num_nodes=num_nodes)


def execution(
    kind: StageKind, cluster: ClusterConfig = SLURM, *, where: str = "login"
) -> Execution:
    judge = JudgeConfig(name="gpt4", scorer="openai", model="gpt-4-0314", where=where)
    config = dataclasses.replace(cell("model=33b"), cluster=cluster, judge=judge)
    return stage_execution(config, kind=kind, method="full", paths={"data": "/data"})


def test_a_stage_of_one_rank_holds_what_its_kind_asks_for() -> None:
    assert held(StageKind.data) == 0
    assert held(StageKind.data, stages={"data": StageJobConfig(devices=2)}) == 2


@pytest.mark.parametrize("kind", [StageKind.data, StageKind.judge])
def test_a_stage_of_one_rank_holds_one_device_where_nothing_is_said(kind: StageKind) -> None:
    assert held(kind, stages=None) is None


@pytest.mark.parametrize("kind", [StageKind.tune, StageKind.align, StageKind.generate])
def test_a_stage_of_many_ranks_holds_one_device_a_rank(kind: StageKind) -> None:
    assert held(kind) is None


@pytest.mark.parametrize("kind", list(StageKind))
def test_nodes_of_their_own_are_held_whole(kind: StageKind) -> None:
    devices = 0 if kind is StageKind.data else 16  # data are made without any
    assert held(kind, exclusive=True, num_nodes=2) == devices


@pytest.mark.parametrize("kind", list(StageKind))
def test_on_one_machine_a_device_is_held_by_its_rank(kind: StageKind) -> None:
    local = dataclasses.replace(SLURM, kind="local", exclusive=True)

    assert held_devices(local, kind, num_nodes=1) is None


def test_what_is_held_is_what_is_charged() -> None:
    assert execution(StageKind.data).num_held_devices == 0
    assert execution(StageKind.tune).num_held_devices == execution(StageKind.tune).world_size
    whole = execution(StageKind.judge, dataclasses.replace(SLURM, exclusive=True))
    assert (whole.num_held_devices, whole.world_size, whole.node_devices) == (8, 1, 8)


def test_a_kinds_own_devices_and_cores_count_before_the_clusters() -> None:
    data, tune, align = (execution(k) for k in (StageKind.data, StageKind.tune, StageKind.align))

    assert (data.devices_per_node, data.cpus_per_rank) == (1, 4)
    assert (tune.devices_per_node, tune.cpus_per_rank) == (4, 6)
    assert (align.devices_per_node, align.cpus_per_rank) == (8, 6)


def test_a_kind_does_not_take_more_devices_than_a_node_has() -> None:
    more = dataclasses.replace(SLURM, stages={"tune": StageJobConfig(devices=16)})

    assert execution(StageKind.tune, more).devices_per_node == 8


@pytest.mark.parametrize(
    ("kind", "cluster", "where", "on_login"),
    [
        (StageKind.judge, SLURM, "login", True),
        (StageKind.judge, SLURM, "cluster", False),
        (StageKind.judge, dataclasses.replace(SLURM, kind="local"), "login", False),
        (StageKind.generate, SLURM, "login", False),
    ],
    ids=["login", "cluster", "one-machine", "another-kind"],
)
def test_only_judge_stages_wait_for_the_login_node_of_a_cluster(
    kind: StageKind, cluster: ClusterConfig, where: str, on_login: bool
) -> None:
    assert execution(kind, cluster, where=where).on_login is on_login


def test_a_cluster_is_one_that_says_so() -> None:
    assert is_slurm(SLURM)
    assert not is_slurm(ClusterConfig(kind="local"))
    assert node_devices(SLURM) == 8


def answering(*words: str, **settings: Any) -> Execution:
    config = cell(*words)
    cluster = dataclasses.replace(config.cluster, **settings)
    config = dataclasses.replace(config, cluster=cluster)
    method = config.tuning.method
    return stage_execution(config, kind=StageKind.generate, method=method, paths={})


def replicas(execution: Execution) -> tuple[int, int]:
    """Copies of the model, devices of each."""
    size = execution.devices_per_replica
    return execution.world_size // size, size


A100 = "cluster=azure_nd_a100_v4"


def test_a_copy_of_the_model_is_split_over_as_few_devices_as_hold_it() -> None:
    # Weights of 65 B in bf16 are 131 GB; keys and values of 4 rows of 2,048 tokens
    # 2 x 8,192 x 2,048 x 4 x 2 bytes x 80 layers = 21 GB; a device has 85.
    few = ("tuning=full", A100, "evaluation.batch_size=4")
    assert replicas(answering("model=65b", *few)) == (4, 2)
    assert replicas(answering("model=7b", *few)) == (8, 1)
    # Of 16 rows they are 86 GB: 217 GB are over two devices; three hold them, so four are taken.
    assert replicas(answering("model=65b", *few[:2], "evaluation.batch_size=16")) == (2, 4)
    # In 4 bit the weights are 34 GB.
    assert replicas(answering("model=65b", "tuning=qlora", *few[1:])) == (8, 1)


def test_devices_of_a_node_are_shared_out_whole() -> None:
    words = ("model=65b", "tuning=full", A100)

    assert replicas(answering(*words, "evaluation.devices_per_replica=3")) == (2, 4)
    assert replicas(answering(*words, "evaluation.devices_per_replica=8")) == (1, 8)
    six = {"generate": StageJobConfig(devices=6)}
    assert replicas(answering(*words, "evaluation.devices_per_replica=4", stages=six)) == (1, 6)


def test_fewer_questions_at_once_where_their_keys_and_values_fit_nowhere() -> None:
    # 5 beams of 16 questions are 80 rows, 430 GB; of 8 they are 215 GB.
    execution = answering("model=65b", "tuning=full", A100, "evaluation.num_beams=5")

    assert (execution.micro_batch_size, *replicas(execution)) == (8, 1, 8)


def test_a_model_that_a_node_cannot_hold_is_refused_by_name() -> None:
    one = {"generate": StageJobConfig(devices=1)}

    with pytest.raises(PlanError, match=r"devices_per_replica=2: model=65b needs so many to"):
        answering("model=65b", "tuning=full", A100, stages=one)


def test_where_a_devices_memory_is_not_declared_one_holds_a_copy() -> None:
    assert replicas(answering("model=65b", "tuning=full", A100, device_memory_gb=None)) == (8, 1)
