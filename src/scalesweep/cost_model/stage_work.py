"""How much a stage has to do: its FLOPs, and the steps, questions or items it works through. Pure.

What its samples are like (TokenStatistics) is given: counted where the data were read, declared
where they were not.
"""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.cost_model.token_statistics import TokenStatistics
from scalesweep.models.flops import Work, forward_flops, hardware_flops
from scalesweep.records import Execution, StageKind, StageSpec
from scalesweep.specs import DataSpec, GenerateSpec, Method, TrainingSpec

TRAINING = (StageKind.base, StageKind.align, StageKind.tune)


@dataclass(frozen=True, kw_only=True)
class StageWork:
    """Of a whole stage, all its devices together."""

    flops: float = 0.0
    """What is computed twice included; 0 where none are counted (data, judge)."""
    units: float = 0.0
    """Optimizer steps, questions, or items of a data set."""
    decoded: float = 0.0
    """Of answers, tokens that come one after the other: all but the first of each."""


def training_work(spec: TrainingSpec, execution: Execution, tokens: TokenStatistics) -> StageWork:
    """Steps as they will be made, the borrowed samples of the last one included."""
    steps = spec.optim.num_steps(
        num_samples=tokens.num_samples, global_batch_size=spec.global_batch_size
    )
    patches = 0 if spec.tower is None else spec.tower.num_patches
    work = tokens.work(steps * spec.global_batch_size, num_patches=patches)
    recompute = "none" if spec.method is Method.tower else execution.gradient_checkpointing
    return StageWork(
        flops=hardware_flops(spec, work, gradient_checkpointing=recompute), units=steps
    )


def answering_work(spec: GenerateSpec, tokens: TokenStatistics) -> StageWork:
    """tokens: of the questions; their supervised tokens are those of the answers.

    Prompts are read once, and every further token of an answer once for each beam. A token that
    follows n others attends to n of them: what its square in Work.sum_squared_lengths stands for.
    """
    n, patches = tokens.num_samples, 0 if spec.tower is None else spec.tower.num_patches
    prompts = tokens.work(n, num_patches=patches)
    flops = forward_flops(spec.model, spec.tower, prompts, num_logits=n)
    decoded = max(tokens.supervised - n, 0)
    if decoded:
        before = prompts.num_tokens / n + tokens.supervised / n / 2
        further = Work(
            num_tokens=decoded,
            sum_squared_lengths=round(2 * decoded * before),  # not a half of a square, a row
            num_supervised=0,
            num_pictures=0,
        )
        flops += spec.num_beams * forward_flops(spec.model, None, further, num_logits=decoded)
    return StageWork(flops=flops, units=n, decoded=decoded)


def data_items(spec: DataSpec) -> float:
    """Pictures, questions or conversations that a generator makes; 0 of a set that lies there."""
    if spec.generator is None:
        return 0.0
    return float(sum(value for name, value in spec.parameters.items() if name.startswith("num_")))


def stage_work(
    spec: StageSpec, execution: Execution, tokens: TokenStatistics | None
) -> StageWork | None:
    """Of any stage; None where it works on tokens and nothing is known of them."""
    if spec.kind is StageKind.data:
        return StageWork(units=data_items(DataSpec.from_identity(spec.identity)))
    if tokens is None:
        return None
    if spec.kind in TRAINING:
        return training_work(TrainingSpec.from_identity(spec.identity), execution, tokens)
    if spec.kind is StageKind.generate:
        return answering_work(GenerateSpec.from_identity(spec.identity), tokens)
    return StageWork(units=tokens.num_samples)
