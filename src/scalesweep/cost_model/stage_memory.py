"""Memory of a stage: of the device that needs most, and of one node's host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from scalesweep.cost_model import training_memory as training
from scalesweep.cost_model.host_memory import checkpoint_copy_bytes, process_bytes
from scalesweep.cost_model.stage_work import TRAINING
from scalesweep.models import answering_memory
from scalesweep.records import Execution, StageKind, StageSpec
from scalesweep.specs import GenerateSpec, Method, TrainingSpec

# Of what is allocated, what the caching allocator cannot use again; declared, not measured.
FRAGMENTATION = 0.06
# CUDA context, libraries' workspaces and NCCL's buffers; declared, not measured.
CONTEXT_BYTES = 3.5e9
# Accelerators as configuration names them when there is none.
NO_GPU = ("", "cpu")


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Bytes that a stage needs at its largest moment."""

    device_bytes: float
    """Of one device; on a CPU its rank's share of the host."""
    host_bytes: float
    """Of one node's main memory."""
    parts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """What the device bytes are made of: they sum up to them."""


NOTHING = StageMemory(device_bytes=0.0, host_bytes=0.0)


def stage_memory(
    spec: StageSpec, execution: Execution, *, tokens_per_row: int | None = None
) -> StageMemory:
    """Of any stage; data and judge stages hold next to nothing.

    tokens_per_row: of padded rows of training; None: as long as a sample may be.
    """
    if spec.kind in TRAINING:
        typed = TrainingSpec.from_identity(spec.identity)
        return training_memory(typed, execution, tokens_per_row=tokens_per_row)
    if spec.kind is StageKind.generate:
        return answering(GenerateSpec.from_identity(spec.identity), execution)
    return StageMemory(device_bytes=0.0, host_bytes=process_bytes(on_gpu=False))


def training_memory(
    spec: TrainingSpec,
    execution: Execution,
    *,
    tokens_per_row: int | None = None,
    batch: training.MicroBatch | None = None,
) -> StageMemory:
    """Of a training stage; batch: its largest micro-batch, where it is known."""
    zero, ranks = execution.zero_stage, execution.world_size
    on_gpu = execution.device not in NO_GPU
    recompute = "none" if spec.method is Method.tower else execution.gradient_checkpointing
    batch = batch or training.MicroBatch.largest(
        spec,
        micro_batch_size=execution.micro_batch_size,
        micro_batch_tokens=execution.micro_batch_tokens,
        tokens_per_row=tokens_per_row,
    )
    parts = {
        "weights": training.weight_bytes(spec, zero_stage=zero, num_ranks=ranks),
        "gradients": training.gradient_bytes(spec, zero_stage=zero, num_ranks=ranks),
        "optimizer": training.optimizer_bytes(spec, zero_stage=zero, num_ranks=ranks),
    }
    passing = {
        "activations": training.saved_bytes(
            spec, batch, gradient_checkpointing=recompute, on_gpu=on_gpu
        ),
        "output layer": training.output_layer_bytes(spec, batch),
        "one layer": training.working_bytes(
            spec, batch, gradient_checkpointing=recompute, on_gpu=on_gpu
        ),
        "gathered weights": training.live_weight_bytes(spec, zero_stage=zero),
        "bucket": training.bucket_bytes(spec, zero_stage=zero),
    }
    stepping = {"step": training.step_bytes(spec, zero_stage=zero, num_ranks=ranks)}
    parts |= passing if sum(passing.values()) > sum(stepping.values()) else stepping
    if on_gpu:
        parts["fragmentation"] = FRAGMENTATION * sum(parts.values())
        parts["context"] = CONTEXT_BYTES
    copies = checkpoint_copy_bytes(spec, num_ranks=ranks, num_nodes=execution.num_nodes)
    return _with_host(parts, execution, copies=copies, on_gpu=on_gpu)


def answering(spec: GenerateSpec, execution: Execution) -> StageMemory:
    """Of a stage that answers questions, split over devices_per_replica devices."""
    settings = {"method": spec.method, "precision": spec.precision}
    whole = answering_memory.device_bytes(
        spec.model,
        spec.tower,
        **settings,  # type: ignore[arg-type]
        batch_size=execution.micro_batch_size,
        context_tokens=spec.model.max_position_embeddings,
        parts=execution.devices_per_replica,
        num_beams=spec.num_beams,
    )
    on_gpu = execution.device not in NO_GPU
    reserve = answering_memory.RESERVE_BYTES
    parts = {"weights, cache and activations": whole - reserve}
    if on_gpu:
        parts["context"] = reserve
    return _with_host(parts, execution, copies=0.0, on_gpu=on_gpu)


def _with_host(
    parts: Mapping[str, float], execution: Execution, *, copies: float, on_gpu: bool
) -> StageMemory:
    device = sum(parts.values())
    each = process_bytes(on_gpu=on_gpu) + (0.0 if on_gpu else device)
    return StageMemory(
        device_bytes=device,
        host_bytes=execution.devices_per_node * each + copies,
        parts=MappingProxyType(dict(parts)),
    )
