"""Whether a plan can run on this machine; if not, what it would need.

Arithmetic apart from looking at the machine: needs() and machine() meet in refuse_impossible().
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalesweep.cost_model.training_memory import gradient_bytes, optimizer_bytes, weight_bytes
from scalesweep.endpoints import needs_key
from scalesweep.errors import PlanError
from scalesweep.models.answering_memory import divided
from scalesweep.plan.device_fit import fit
from scalesweep.plan.graph import PlannedStage
from scalesweep.plan.resources import local_devices
from scalesweep.plan.weights import Ask, Wanted, wanted_weights, weight_faults
from scalesweep.records import StageKind
from scalesweep.specs import (
    DataSpec,
    GenerateSpec,
    JudgeSpec,
    TrainingSpec,
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this machine offers."""

    memory_bytes: int
    num_devices: int
    has_gpu: bool

    @property
    def description(self) -> str:
        gpu = f"{self.num_devices} GPU(s)" if self.has_gpu else "no GPU"
        return f"{self.memory_bytes / 1e9:.0f} GB of memory and {gpu}"


def machine() -> Machine:
    """This machine, as far as the operating system says without any GPU library."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    has_gpu = any(Path("/dev").glob("nvidia[0-9]*"))
    return Machine(memory_bytes=pages * size, num_devices=local_devices(), has_gpu=has_gpu)


def training_bytes(spec: TrainingSpec) -> float:
    """Weights, gradients and optimizer states of one copy of a model in training."""
    states = (weight_bytes, gradient_bytes, optimizer_bytes)
    return sum(of(spec, zero_stage=0, num_ranks=1) for of in states)


def answering_bytes(spec: GenerateSpec) -> float:
    """Weights of one copy of a model that answers questions; those of QLoRA in 4 bit."""
    whole = divided(spec.model, spec.tower, method=spec.method, precision=spec.precision, parts=1)
    return sum(whole.weight_bytes)


def refuse_impossible(
    todo: Sequence[PlannedStage],
    here: Machine | None,
    ask: Ask | None = None,
    device_memory_gb: float | None = None,
) -> None:
    """Refuse stages that cannot run here, before anything is started.

    todo: stages that are not done; what is done needs nothing more.
    here: the machine they run on; None where that is a cluster.
    ask: what the hub says of weights that are not here.
    device_memory_gb: of each GPU that stages run on; None: not known, or there are none.

    Raises:
        PlanError: every reason, one line each, the largest need of a model first.
    """
    ordered = sorted(todo, key=needed_bytes, reverse=True)
    faults: dict[str, None] = {}
    wanted: dict[Wanted, None] = {}
    for stage in ordered:
        spec = _typed(stage)
        faults |= dict.fromkeys(_faults(stage, spec, here))
        if isinstance(spec, TrainingSpec) and device_memory_gb is not None:
            faults |= dict.fromkeys(_device_faults(stage, spec, device_memory_gb))
        if isinstance(spec, TrainingSpec | GenerateSpec):
            wanted |= dict.fromkeys(wanted_weights(spec, stage.execution.paths))
    # Where something else is wrong, nobody waits for the hub.
    faults |= dict.fromkeys(weight_faults(list(wanted), ask=None if faults else ask).values())
    if faults:
        lines = _one_per_subject(list(faults))
        raise PlanError("\nscalesweep: ".join(lines))


def needed_bytes(stage: PlannedStage) -> float:
    """Memory of a stage's weights and states over all its devices."""
    spec: Any = _typed(stage)
    if isinstance(spec, TrainingSpec):
        return training_bytes(spec)
    if isinstance(spec, GenerateSpec):
        return answering_bytes(spec)
    return 0.0


def _typed(stage: PlannedStage) -> object:
    kinds: dict[StageKind, Any] = {
        StageKind.data: DataSpec,
        StageKind.generate: GenerateSpec,
        StageKind.judge: JudgeSpec,
    }
    return kinds.get(stage.spec.kind, TrainingSpec).from_identity(stage.spec.identity)


def _faults(stage: PlannedStage, spec: object, here: Machine | None) -> list[str]:
    faults: list[str] = []
    if isinstance(spec, TrainingSpec | GenerateSpec):
        faults += [] if here is None else _memory_faults(stage, spec, here)
    if isinstance(spec, DataSpec) and spec.generator is None:
        root = stage.execution.paths.get(f"data:{spec.dataset}", "")
        if not Path(root).is_dir():
            faults.append(
                f"datasets.{spec.dataset}.root={root or 'null'}: no such folder; put the data set "
                "there (docs/data.md), set the root, or SCALESWEEP_DATA"
            )
    if isinstance(spec, JudgeSpec) and here is not None:
        faults += _key_faults(stage, spec)
    return faults


def _key_faults(stage: PlannedStage, spec: JudgeSpec) -> list[str]:
    """A judge that runs here and would be refused by its endpoint, after all the training."""
    if spec.scorer == "exact_match":
        return []
    settings = stage.execution.judge
    variable = settings["api_key_variable"]
    if os.environ.get(variable) or not needs_key(settings["endpoint"], settings["base_url"] or ""):
        return []
    return [
        f"judge.api_key_variable={variable}: is not set in the environment, and {spec.model} is "
        f"asked here; export {variable}=..., or stop before with until=generate"
    ]


def _memory_faults(
    stage: PlannedStage, spec: TrainingSpec | GenerateSpec, here: Machine
) -> list[str]:
    need = needed_bytes(stage)
    if need <= 0.8 * here.memory_bytes:
        return []
    model = spec.model.name if spec.model else stage.spec.label
    what = (
        f"weights, gradients and optimizer states of {stage.spec.kind} {spec.method}"
        if isinstance(spec, TrainingSpec)
        else "its weights alone"
    )
    return [
        f"model={model}: cannot run here; {what} take {need / 1e9:,.0f} GB and this machine has "
        f"{here.description}; `plan` shows the nodes it needs, or choose model=mini_s"
    ]


def _device_faults(stage: PlannedStage, spec: TrainingSpec, memory_gb: float) -> list[str]:
    """A stage that would end out of memory, and the nearest setting with which it would not."""
    found = fit(stage, device_memory_bytes=memory_gb * 1e9)
    if found is None or found.fits:
        return []
    execution = stage.execution
    name = spec.model.name if spec.model else stage.spec.label
    size = (
        f"micro_batch_tokens={execution.micro_batch_tokens}"
        if execution.micro_batch_tokens
        else f"micro_batch_size={execution.micro_batch_size}"
    )
    return [
        f"model={name} {stage.spec.kind} {spec.method} zero.stage={execution.zero_stage} "
        f"nodes={execution.num_nodes} {size}: {found.description}"
    ]


def _one_per_subject(faults: Sequence[str]) -> list[str]:
    """Only the first fault of each key=value: many stages share one cause."""
    first: dict[str, str] = {}
    for fault in faults:
        first.setdefault(fault.partition(": ")[0], fault)
    return list(first.values())
