"""Puts beside every stage of a plan what one run of it is expected to take (Execution.predicted).

Equal work on equal hardware is computed once: the tune stages of 10,000 cells differ in little that
costs time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scalesweep.cost_model.accelerators import Accelerator, accelerator
from scalesweep.cost_model.declared_tokens import QUESTIONS
from scalesweep.cost_model.judge_pay import judge_usd
from scalesweep.cost_model.speeds import Speeds, Traits
from scalesweep.cost_model.stage_memory import NO_GPU, stage_memory
from scalesweep.cost_model.stage_time import Time, declared_time
from scalesweep.cost_model.stage_work import StageWork, stage_work
from scalesweep.cost_model.table4 import EFFICIENCY
from scalesweep.cost_model.token_statistics import TokenStatistics
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.records import Execution, Predicted, StageKind, StageSpec
from scalesweep.specs import JudgeSpec

NO_MATTER = ("seed", "execution_axis", "optim")
"""Parts of a tune stage's identity that change no amount of work; of optim see _content()."""


Tokens = Callable[[StageSpec], TokenStatistics | None]
"""Of the samples or questions that a stage works on; None where nothing is known of them."""


def with_predictions(plan: Plan, speeds: Speeds, tokens: Tokens) -> Plan:
    """The same plan, with a prediction for every stage of which something can be said.

    Nothing is said of stages whose cluster names no device, or whose data nothing is known of.

    Raises:
        PlanError: a cluster's device is none that is known.
    """
    predictor = Predictor(speeds=speeds, tokens=tokens)
    stages = []
    for stage in plan.stages:
        found = predictor.predicted(stage)
        if found is not None:
            execution = dataclasses.replace(stage.execution, predicted=found)
            predicted = PlannedStage(spec=stage.spec, execution=execution)
            predicted.__dict__["ref"] = stage.ref  # a hash of the spec, which is the same
            stage = predicted
        stages.append(stage)
    return dataclasses.replace(plan, stages=tuple(stages))


@dataclass(kw_only=True)
class Predictor:
    speeds: Speeds
    tokens: Tokens
    _known: dict[tuple[object, ...], Predicted | None] = field(default_factory=dict)
    """For as long as the plan is held: parts of its stages are told apart by identity."""

    def predicted(self, stage: PlannedStage) -> Predicted | None:
        if not stage.execution.device:
            return None
        key = (*self._content(stage.spec), *_how(stage.execution))
        if key not in self._known:
            self._known[key] = self._predicted(stage.spec, stage.execution)
        return self._known[key]

    def _content(self, spec: StageSpec) -> tuple[object, ...]:
        """What of a stage its work depends on: parts that stages share are told apart by identity,
        the plan having made each once."""
        content: list[object] = [spec.kind]
        for name, value in spec.identity.items():
            if name == "optim":
                content += [value["epochs"], value["max_steps"]]
            elif name not in NO_MATTER:
                plain = value is None or isinstance(value, str | bool | int | float)
                content.append(value if plain else id(value))
        return tuple(content)

    def _predicted(self, spec: StageSpec, execution: Execution) -> Predicted | None:
        device = accelerator(execution.device)
        work = stage_work(spec, execution, self.tokens(spec))
        if work is None:
            return None
        time, basis = self._time(spec, execution, work, device)
        memory = stage_memory(spec, execution)
        held = execution.num_held_devices / execution.node_devices
        node_hours = held * (time.startup_s + time.work_s) / 3600
        return Predicted(
            startup_s=time.startup_s,
            work_s=time.work_s,
            flops=work.flops,
            device_bytes=0.0 if execution.device in NO_GPU else memory.device_bytes,
            host_bytes=memory.host_bytes,
            node_hours=node_hours,
            usd=node_hours * execution.usd_per_node_hour,
            judge_usd=self._judge_usd(spec, execution),
            basis=basis,
        )

    def _time(
        self, spec: StageSpec, execution: Execution, work: StageWork, device: Accelerator
    ) -> tuple[Time, str]:
        speed = self.speeds.of(Traits.of(spec, execution))
        if speed is None:
            return declared_time(spec, execution, work, device), declared_basis(device)
        work_s = speed.work_s(flops=work.flops, units=work.units, num_devices=execution.world_size)
        return Time(startup_s=speed.startup_s, work_s=work_s), speed.basis

    def _judge_usd(self, spec: StageSpec, execution: Execution) -> float:
        """0 too where a judge has no price: the notes of a plan say so."""
        if spec.kind is not StageKind.judge:
            return 0.0
        judge = JudgeSpec.from_identity(spec.identity)
        prices: Mapping[str, Any] = execution.judge.get("prices") or {}
        return judge_usd(judge, QUESTIONS, prices) or 0.0


def declared_basis(device: Accelerator) -> str:
    if device.is_cpu:
        return f"declared: {device.peak_flops / 1e9:g} GFLOP/s of a rank"
    return f"declared: {EFFICIENCY:.1%} of {device.name}"


def _how(execution: Execution) -> tuple[object, ...]:
    """What of an execution a prediction depends on."""
    return (
        execution.cluster,
        execution.device,
        execution.num_nodes,
        execution.devices_per_node,
        execution.node_devices,
        execution.held_devices,
        execution.usd_per_node_hour,
        execution.micro_batch_size,
        execution.micro_batch_tokens,
        execution.zero_stage,
        execution.gradient_checkpointing,
        execution.devices_per_replica,
        str(execution.judge.get("prices")),
        execution.judge.get("max_concurrent"),
    )
