"""How long a stage holds its devices, by declared constants. Pure.

Where runs like it were measured, their speed goes before (speeds.py).

    training   FLOPs / (efficiency x peak x devices)
    answering  prompts like training, on one device of each replica at a time; then one step per
               token of a batch's answers, each of which reads all weights once
    data, judge  a declared rate of items, or of replies
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scalesweep.cost_model.accelerators import Accelerator
from scalesweep.cost_model.declared_tokens import QUESTIONS
from scalesweep.cost_model.judge_pay import num_replies
from scalesweep.cost_model.stage_work import TRAINING, StageWork
from scalesweep.cost_model.table4 import EFFICIENCY
from scalesweep.models.answering_memory import divided
from scalesweep.models.parameters import num_params
from scalesweep.records import Execution, StageKind, StageSpec
from scalesweep.specs import GenerateSpec, JudgeSpec, TrainingSpec

# All that follow are declared, not measured on a GPU.
STARTUP_S = 60.0
"""Imports, process groups, reading the data's index."""
CPU_STARTUP_S = 1.0
"""The demo's medians: 0.7 s in training, 0.3 s in answering; whoever reads the data first, 5 s."""
BARE_STARTUP_S = 0.1
"""Of a stage that loads no model: 0.07 to 0.15 s in the demo's data and judge stages."""
READ_BYTES_PER_S = 1e9
"""Weights from storage, on each node."""
BANDWIDTH_SHARE = 0.3
"""Of a memory's peak, while answers are decoded."""
LONGEST_OF_A_BATCH = 2.0
"""Answers of a batch wait for its longest one: so many times the mean."""
ITEMS_PER_S = 700.0
"""A data stage's, on one core: 540 to 640 with pictures to train on, 870 to 1,060 questions."""
EXTERNAL_DATA_S = 60.0
"""A data stage that looks at files that lie there."""
SCORED_PER_S = 40_000.0
"""Answers that rules alone judge, on one core: 38,000 to 45,000 in the demo."""
REPLY_S = 5.0
"""A judge's reply."""


@dataclass(frozen=True, kw_only=True)
class Time:
    startup_s: float
    """Before the first sample is worked on."""
    work_s: float


def declared_time(
    spec: StageSpec, execution: Execution, work: StageWork, device: Accelerator
) -> Time:
    """Of one run of a stage from its beginning to its end; work: stage_work.stage_work()."""
    if spec.kind in TRAINING:
        return _training_time(TrainingSpec.from_identity(spec.identity), execution, work, device)
    if spec.kind is StageKind.generate:
        return _answering_time(GenerateSpec.from_identity(spec.identity), execution, work, device)
    if spec.kind is StageKind.data:
        seconds = work.units / ITEMS_PER_S if work.units else EXTERNAL_DATA_S
        return Time(startup_s=BARE_STARTUP_S, work_s=seconds)
    return Time(startup_s=BARE_STARTUP_S, work_s=_judging_s(spec, execution, work))


def rate(device: Accelerator, precision: str) -> float:
    """FLOP/s that training reaches on one device."""
    reached = 1.0 if device.is_cpu else EFFICIENCY
    return reached * device.flops(precision)


def _training_time(
    spec: TrainingSpec, execution: Execution, work: StageWork, device: Accelerator
) -> Time:
    read = 2.0 * num_params(spec.model, spec.tower)
    return Time(
        startup_s=_startup_s(device, read),
        work_s=work.flops / (rate(device, str(spec.precision)) * execution.world_size),
    )


def _answering_time(
    spec: GenerateSpec, execution: Execution, work: StageWork, device: Accelerator
) -> Time:
    """Only one of a replica's devices computes at a time: its layers follow each other."""
    replicas = execution.world_size // execution.devices_per_replica
    computing = work.flops / (rate(device, str(spec.precision)) * replicas)
    batches = math.ceil(work.units / (execution.micro_batch_size * replicas))
    whole = divided(spec.model, spec.tower, method=spec.method, precision=spec.precision, parts=1)
    weights = float(sum(whole.weight_bytes))
    reading = 0.0
    if work.decoded and not device.is_cpu:
        steps = batches * LONGEST_OF_A_BATCH * work.decoded / work.units
        reading = steps * weights / (device.bandwidth * BANDWIDTH_SHARE)
    return Time(startup_s=_startup_s(device, weights), work_s=computing + reading)


def _startup_s(device: Accelerator, num_bytes: float) -> float:
    if device.is_cpu:
        return CPU_STARTUP_S
    return STARTUP_S + num_bytes / READ_BYTES_PER_S


def _judging_s(spec: StageSpec, execution: Execution, work: StageWork) -> float:
    judge = JudgeSpec.from_identity(spec.identity)
    replies = sum(num_replies(judge, b, QUESTIONS.get(b.name, 0)) for b in judge.benchmarks)
    at_once = int(execution.judge.get("max_concurrent") or 1)
    return work.units / SCORED_PER_S + replies * REPLY_S / at_once
