"""What cannot be submitted, or would hand a secret to Slurm, is refused before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from scalesweep.config.cluster import KINDS, OURS, ClusterConfig, PricesConfig, StageJobConfig
from scalesweep.config.load import resolved_cluster
from scalesweep.errors import ConfigError
from scalesweep.plan.resources import stage_execution
from scalesweep.records import StageKind
from tests.config.composing import cell

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "kind": ({"kind": "lsf"}, "cluster.kind=lsf: choose one of auto, local, slurm"),
    "timeout": ({"timeout_min": 0}, "cluster.timeout_min=0: must be at least 1"),
    "tries": ({"max_tries": 0}, "cluster.max_tries=0: must be at least 1"),
    "cpus": ({"cpus_per_device": 0}, "cluster.cpus_per_device=0: must be at least 1"),
    "parallelism": ({"array_parallelism": 0}, "cluster.array_parallelism=0: must be at least 1"),
    "silence": ({"silent_s": 9}, "cluster.silent_s=9: must be at least 10"),
    "parents": ({"parents_wait_s": -1}, "cluster.parents_wait_s=-1: must be at least 0"),
    "storage": ({"storage_wait_min": -1}, "cluster.storage_wait_min=-1: must be at least 0"),
    "lead": ({"signal_lead_s": -1}, "cluster.signal_lead_s=-1: must be at least"),
    "memory": ({"memory_gb": -1.0}, "cluster.memory_gb=-1: must be a finite number, zero or more"),
    "price": (
        {"usd_per_node_hour": 0.0},
        "cluster.usd_per_node_hour=0: zero would make every cost zero",
    ),
    "a price of zero": (
        {"prices": PricesConfig(own=0.0)},
        "cluster.prices.own=0: zero would make every cost zero",
    ),
    "a name of no price": ({"price": "rent"}, "cluster.price=rent: choose one of cloud, own"),
    "a price nobody gave": (
        {"prices": PricesConfig(cloud=13.63), "price": "own"},
        "cluster.price=own: there is no such price; give it, dollars per node-hour, as "
        "cluster.prices.own=...",
    ),
    "two prices that count": (
        {"prices": PricesConfig(own=4.0), "price": "own", "usd_per_node_hour": 9.2},
        "cluster.price=own: cluster.usd_per_node_hour=9.2 is set too, and one price counts",
    ),
    "devices": (
        {"stage_devices": 9, "devices_per_node": 8},
        "cluster.stage_devices=9: a node has cluster.devices_per_node=8",
    ),
    "lead as long as the limit": (
        {"timeout_min": 5, "signal_lead_s": 300},
        "cluster.signal_lead_s=300: the whole time limit is cluster.timeout_min=5 min",
    ),
    "option without dashes": (
        {"sbatch": ["reservation=study"]},
        "cluster.sbatch=reservation=study: write it as --option=value",
    ),
    "short option": ({"sbatch": ["-p main"]}, "cluster.sbatch=-p main: write it as --option=value"),
    "name of a variable": (
        {"export": ["NCCL DEBUG"]},
        "cluster.export=NCCL DEBUG: not a name of an environment variable",
    ),
    "assignment": ({"export": ["A=1"]}, "cluster.export=A=1: not a name"),
    "name in env": ({"env": {"1X": "y"}}, "1X: not a name of an environment variable"),
    "kind of stage": (
        {"stages": {"train": StageJobConfig()}},
        "cluster.stages=train: choose one of data, base, align, tune, generate, judge",
    ),
    "devices of a kind": (
        {"stages": {"data": StageJobConfig(devices=-1)}},
        "cluster.stages.data.devices=-1: must be at least 0",
    ),
    "cores of a kind": (
        {"stages": {"data": StageJobConfig(cpus=0)}},
        "cluster.stages.data.cpus=0: must be at least 1",
    ),
    "time of a kind": (
        {"stages": {"tune": StageJobConfig(timeout_min=0)}},
        "cluster.stages.tune.timeout_min=0: must be at least 1",
    ),
    "no memory": (
        {"device_memory_gb": 0.0},
        "cluster.device_memory_gb=0: must be a finite number above zero",
    ),
    "free with a price": (
        {"free": True, "prices": PricesConfig(cloud=13.63)},
        "cluster.free=true: a node-hour has a price, $13.63, and it counts; leave cluster.free "
        "out, or set cluster.usd_per_node_hour=0 too",
    ),
    "memory of a kind": (
        {"stages": {"tune": StageJobConfig(memory_gb=-2.0)}},
        "cluster.stages.tune.memory_gb=-2: must be a finite number, zero or more",
    ),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_a_setting_that_cannot_be_is_refused_by_its_key(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        ClusterConfig(**settings)

    assert message in str(refused.value)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("form", ["--{}=x", "--{}"])
def test_options_that_submission_needs_for_itself_are_refused(name: str, form: str) -> None:
    option = form.format(name)

    with pytest.raises(ConfigError, match=f"cluster.sbatch={option}: .*--{name}"):
        ClusterConfig(sbatch=[option])


SECRETS = [
    "WANDB_API_KEY",
    "HF_TOKEN",
    "aws_secret",
    "DB_PASSWORD",
    "MY_CREDENTIALS",
    "AUTH_HEADER",
]


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("key", ["export", "env"])
def test_a_name_that_sounds_like_a_secret_is_refused_with_a_way_out(key: str, name: str) -> None:
    settings: dict[str, Any] = {key: [name] if key == "export" else {name: "hidden-value"}}

    with pytest.raises(ConfigError, match=r"let cluster\.preamble read it") as refused:
        ClusterConfig(**settings)

    assert name in str(refused.value)
    assert "hidden-value" not in str(refused.value)


def test_settings_of_a_cluster_are_taken() -> None:
    cluster = ClusterConfig(
        kind="slurm",
        gres="gpu:a100",
        memory_gb=0.0,
        timeout_min=5,
        signal_lead_s=299,
        sbatch=["--reservation=study", "--no-kill", "--comment=x"],
        export=["NCCL_DEBUG"],
        env={"NCCL_SOCKET_IFNAME": "ib0"},
        parents_wait_s=0,
        storage_wait_min=0,
        stages={"data": StageJobConfig(devices=0, cpus=4, memory_gb=0.0)},
    )

    assert cluster.stage("data").devices == 0
    assert cluster.stage("tune") == StageJobConfig()
    assert ClusterConfig().stage("data") == StageJobConfig()


def test_the_kinds_of_stages_are_those_that_there_are() -> None:
    assert tuple(StageKind) == KINDS


def test_stages_are_typed_when_they_come_from_the_command_line() -> None:
    cluster = cell(
        "model=33b", "cluster.kind=slurm", "+cluster.stages.data={devices: 0, partition: cpu}"
    ).cluster

    assert cluster.stage("data") == StageJobConfig(devices=0, partition="cpu")


@pytest.mark.parametrize("option", ["--job-name x", "--nodes=4", "--ntasks=2"])
def test_an_option_that_would_change_what_was_submitted_is_refused(option: str) -> None:
    with pytest.raises(ConfigError):
        ClusterConfig(sbatch=[option])


PRICES = PricesConfig(cloud=13.63, own=4.0)


@pytest.mark.parametrize(
    ("given", "counted", "is_example"),
    [
        pytest.param({}, 13.63, True, id="cloud where nothing is chosen"),
        pytest.param({"price": "cloud"}, 13.63, True, id="cloud"),
        pytest.param({"price": "own"}, 4.0, False, id="own"),
        pytest.param({"usd_per_node_hour": 9.2}, 9.2, False, id="without a name"),
    ],
)
def test_one_price_counts(given: dict[str, Any], counted: float, is_example: bool) -> None:
    cluster = ClusterConfig(prices=PRICES, price_is_example=True, **given)

    assert cluster.counted_usd_per_node_hour == counted
    assert cluster.counts_example is is_example
    assert cluster.named_prices == {"cloud": 13.63, "own": 4.0}


def test_a_cluster_without_a_price_has_none() -> None:
    assert ClusterConfig().counted_usd_per_node_hour is None


def test_an_own_price_on_the_line_counts_and_all_prices_reach_every_attempt() -> None:
    config = cell("cluster=azure_nd_a100_v4", "cluster.prices.own=4", "cluster.price=own")

    how = stage_execution(config, kind=StageKind.judge, method="", paths={})

    assert (how.usd_per_node_hour, how.price_is_example) == (4.0, False)
    assert how.prices == {"cloud": 13.63, "own": 4.0}  # 13.63: the text beside the paper's table 4


def test_a_cluster_that_is_chosen_by_itself_keeps_its_other_price() -> None:
    auto = {"kind": "auto", "prices": {"cloud": None, "own": 2.0}, "price": None}

    found = resolved_cluster(auto, full_size=True, planning=True)

    assert found["prices"] == {"cloud": 13.63, "own": 2.0}  # of slurm, and of azure_nd_a100_v4
