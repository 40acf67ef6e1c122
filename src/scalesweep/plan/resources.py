"""Which nodes and devices each stage takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from scalesweep.config.cluster import ClusterConfig
from scalesweep.config.run import RunConfig
from scalesweep.errors import PlanError
from scalesweep.models.answering_memory import devices_needed
from scalesweep.plan.identity import model_spec, tower_spec
from scalesweep.records import Execution, StageKind
from scalesweep.specs import Method, Precision

MOST_LOCAL_WORKERS = 4
"""A worker holds about 1 GB; more than this only when cluster.devices_per_node says so."""


def local_devices() -> int:
    """GPUs of this machine, or else its cores (at most MOST_LOCAL_WORKERS)."""
    gpus = len([p for p in Path("/dev").glob("nvidia[0-9]*") if p.name[6:].isdigit()])
    return gpus or min(len(os.sched_getaffinity(0)), MOST_LOCAL_WORKERS)


def node_devices(cluster: ClusterConfig) -> int:
    """Devices of a whole node: what a node-hour is divided by."""
    return cluster.devices_per_node or local_devices()


def stage_execution(
    config: RunConfig, *, kind: StageKind, method: str, paths: Mapping[str, str]
) -> Execution:
    """How one stage of a cell is run."""
    cluster = config.cluster
    whole = node_devices(cluster)
    training = min(cluster.stage(str(kind)).devices or cluster.stage_devices or whole, whole)
    nodes, devices, zero, recompute, per_replica = 1, 1, 0, "none", 1
    micro: int | None = None
    tokens: int | None = None
    if kind is StageKind.tune:
        nodes, devices = config.nodes, training
        micro, zero = config.batch.micro_batch_size, config.zero.stage
        tokens = config.batch.micro_batch_tokens
        recompute = config.zero.gradient_checkpointing
    elif kind is StageKind.align:
        nodes, devices = config.align.nodes, training
        micro, zero = config.align.micro_batch_size, config.align.zero_stage
        tokens = config.align.micro_batch_tokens
        recompute = config.zero.gradient_checkpointing
    elif kind is StageKind.base:
        recipe = config.base.tower if method == "tower" else config.base.language
        assert recipe is not None
        nodes, devices = recipe.nodes, training
        micro, zero = recipe.micro_batch_size, recipe.zero_stage
        tokens = recipe.micro_batch_tokens
        recompute = "none" if method == "tower" else config.zero.gradient_checkpointing
    elif kind is StageKind.generate:
        per_replica, micro = _replica(config, method=method, devices=training)
        devices = training // per_replica * per_replica  # replicas share the questions out
    return Execution(
        cluster=cluster.name,
        device=cluster.device or "",
        num_nodes=nodes,
        devices_per_node=devices,
        node_devices=whole,
        usd_per_node_hour=cluster.counted_usd_per_node_hour or 0.0,
        price_is_example=cluster.counts_example,
        prices=cluster.named_prices,
        micro_batch_size=micro or 1,
        micro_batch_tokens=tokens or 0,
        zero_stage=zero,
        gradient_checkpointing=recompute,
        attention=config.kernels.attention,
        compile=config.kernels.compile,
        checkpoint_every_steps=cluster.checkpoint_every_steps or 50,
        threads_per_rank=cluster.threads_per_rank or 1,
        needs_gpu=is_slurm(cluster) and kind not in ONE_RANK and cluster.device not in NO_GPU,
        cpus_per_rank=cluster.stage(str(kind)).cpus or cluster.cpus_per_device or 1,
        held_devices=held_devices(cluster, kind, num_nodes=nodes),
        on_login=kind is StageKind.judge and config.judge.where == "login" and is_slurm(cluster),
        devices_per_replica=per_replica,
        judge=config.judge.execution() if kind is StageKind.judge else {},
        paths=dict(paths),
    )


def _replica(config: RunConfig, *, method: str, devices: int) -> tuple[int, int]:
    """(devices over which one copy of an answering model is split, questions at once).

    method: of the stage, as which weights are held; "": the language model alone.

    As few devices as hold it, of a node that are shared out whole: where 3 of 8 hold a copy, two
    copies take 4 each. Where keys and values of so many questions fit nowhere, they are halved: how
    many are answered at once changes no answer.

    Raises:
        PlanError: a node's devices do not hold one copy, or there are fewer than asked for.
    """
    evaluation, memory = config.evaluation, config.cluster.device_memory_gb
    batch_size = evaluation.batch_size
    if evaluation.devices_per_replica is not None:
        needed = evaluation.devices_per_replica
    elif memory is None:
        return 1, batch_size
    else:
        while True:
            needed = _devices_needed(
                config, method=method, batch_size=batch_size, memory_gb=memory, most=devices
            )
            if needed <= devices or batch_size == 1:
                break
            batch_size //= 2
    if needed > devices:
        raise PlanError(
            f"evaluation.devices_per_replica={needed}: model={config.model.name} needs so many to "
            f"answer, and a generate stage has {devices} on a node; set cluster.stages.generate."
            "devices, or take a cluster of larger devices"
        )
    return devices // (devices // needed), batch_size


def _devices_needed(
    config: RunConfig, *, method: str, batch_size: int, memory_gb: float, most: int
) -> int:
    """As many as hold one copy; more than `most` where none of the model's splits does."""
    found = devices_needed(
        model_spec(config.model),
        tower_spec(config.resolution) if method else None,
        method=Method(method) if method else None,
        precision=Precision(config.precision),
        batch_size=batch_size,
        context_tokens=config.model.max_position_embeddings,
        device_memory_bytes=memory_gb * 1e9,
        num_beams=config.evaluation.num_beams,
        adapter_rank=config.lora.rank or 0,
    )
    return most + 1 if found is None else found


def is_slurm(cluster: ClusterConfig) -> bool:
    return cluster.kind == "slurm"


def held_devices(cluster: ClusterConfig, kind: StageKind, *, num_nodes: int) -> int | None:
    """Devices that a job holds where that is not one a rank; None where it is."""
    if not is_slurm(cluster):
        return None
    asked = cluster.stage(str(kind)).devices if kind in ONE_RANK else None
    if cluster.exclusive and asked != 0:
        return num_nodes * node_devices(cluster)
    return asked


NO_GPU = (None, "cpu")
ONE_RANK = (StageKind.data, StageKind.judge)
"""Kinds that are one process, whatever the model."""
