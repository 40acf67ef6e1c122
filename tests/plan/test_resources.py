"""Devices a job holds are told apart from the ranks that run on them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from scalesweep.config.cluster import ClusterConfig, StageJobConfig
from scalesweep.config.judge import JudgeConfig
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
