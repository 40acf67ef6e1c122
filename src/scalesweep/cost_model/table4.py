"""The declared model of training time against the nine times that the paper publishes.

    node-hours = samples x FLOPs of a sample / (efficiency x peak x devices of a node x 3600)

There is one constant, the efficiency: the mean over the rows it is fitted to of what each row
reached. Everything else is counted: what a frozen weight saves, what recomputation adds,
attention, adapters, the tower's forward pass. Nine rows tell how well such ratios hold; they cannot
tell tokens from efficiency (more tokens a sample and a higher efficiency give the same times).

Source: arXiv:2309.09958, table 4 (GPU hours / 8, one epoch on LLaVA-80K at 336 px).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from scalesweep.models.flops import Work, flops_by_part
from scalesweep.specs import (
    LanguageModelSpec,
    LoraSpec,
    Method,
    OptimSpec,
    Precision,
    TrainingSpec,
    VisionTowerSpec,
)

NUM_SAMPLES = 80_000
"""LLaVA-Instruct-80K, one epoch."""
# 2.77 rounds of 57.3 + 372.1 characters a sample, at 4.3 characters a token (an assumption, +-8 %),
# with a system prompt of 36 tokens and 9 tokens a round.
TEXT_TOKENS = 340
A100_PEAK_FLOPS = 312e12
"""Dense bf16; NVIDIA A100 data sheet."""
DEVICES_OF_A_NODE = 8
EFFICIENCY = 0.345
"""Share of the peak at which table 4's runs computed: the mean of its nine rows, which lie within
10 % of it and show no trend in size."""

_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_SHAPES = {
    # layers, hidden, ffn, heads: arXiv:2302.13971, table 2
    "7B": (32, 4096, 11008, 32),
    "13B": (40, 5120, 13824, 40),
    "33B": (60, 6656, 17920, 52),
    "65B": (80, 8192, 22016, 64),
}


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """One row of the paper's table 4."""

    size: str
    method: Method
    rank: int | None
    score: float
    """LLaVA-Bench, percent; mean of three evaluations."""
    node_hours: float
    trainable_billions: float

    @property
    def label(self) -> str:
        name = {Method.full: "full", Method.lora: "LoRA", Method.qlora: "QLoRA"}[self.method]
        return f"{self.size} {name}{'' if self.rank is None else f'-{self.rank}'}"

    @cached_property
    def flops(self) -> float:
        """Of the whole run."""
        return NUM_SAMPLES * sample_flops(self.spec)

    @property
    def efficiency(self) -> float:
        """Share of the peak that the published time stands for."""
        return self.flops / (self.node_hours * 3600 * DEVICES_OF_A_NODE * A100_PEAK_FLOPS)

    @property
    def spec(self) -> TrainingSpec:
        """The run as a tune stage; only what its FLOPs depend on means anything."""
        layers, hidden, ffn, heads = _SHAPES[self.size]
        return TrainingSpec(
            method=self.method,
            model=LanguageModelSpec(
                name=self.size,
                hidden_size=hidden,
                intermediate_size=ffn,
                num_layers=layers,
                num_heads=heads,
                num_kv_heads=heads,
                vocab_size=32_000,
                max_position_embeddings=2048,
                template="vicuna_v1",
                weights="random",
                tokenizer="random",
            ),
            tower=TOWER,
            blind=False,
            data=[],
            on_broken_item="stop",
            template="vicuna_v1",
            prompt_loss_weight=0.0,
            optim=_OPTIM,
            global_batch_size=64,
            max_seq_len=2048,
            precision=Precision.bf16,
            seed=1,
            lora=None
            if self.rank is None
            else LoraSpec(rank=self.rank, alpha=2.0 * self.rank, dropout=0.0, targets=_TARGETS),
        )


TOWER = VisionTowerSpec(
    name="336px",
    hidden_size=1024,
    intermediate_size=4096,
    num_layers=24,
    num_heads=16,
    patch_size=14,
    image_size=336,
    feature_layer=-2,
    weights="random",
)
_OPTIM = OptimSpec(
    lr=1e-4,
    schedule="cosine",
    warmup_steps=None,
    warmup_ratio=0.03,
    weight_decay=0.0,
    betas=[0.9, 0.999],
    eps=1e-8,
    max_grad_norm=1.0,
    epochs=1.0,
    max_steps=None,
)


def _run(
    size: str, method: Method, rank: int | None, *, score: float, hours: float, trainable: float
) -> PublishedRun:
    return PublishedRun(
        size=size,
        method=method,
        rank=rank,
        score=score,
        node_hours=hours,
        trainable_billions=trainable,
    )


PUBLISHED_RUNS = (
    _run("7B", Method.full, None, score=65.9, hours=1.3, trainable=7),
    _run("13B", Method.lora, 64, score=70.1, hours=2.1, trainable=0.26),
    _run("13B", Method.full, None, score=70.1, hours=2.3, trainable=13),
    _run("33B", Method.lora, 8, score=70.3, hours=4.62, trainable=0.06),
    _run("33B", Method.qlora, 64, score=71.6, hours=4.68, trainable=0.49),
    _run("33B", Method.lora, 64, score=71.8, hours=4.79, trainable=0.49),
    _run("33B", Method.full, None, score=72.0, hours=5.80, trainable=33),
    _run("65B", Method.lora, 64, score=72.2, hours=9.17, trainable=0.81),
    _run("65B", Method.full, None, score=72.3, hours=13.50, trainable=65),
)


def sample_flops(spec: TrainingSpec) -> float:
    """Of one sample in the trainer of the paper: full recomputation, logits of every token.

    Counted by part: blocks and attention forward, backward and forward once more; the output layer
    without the last; adapters likewise; the frozen tower forward. A weight that is frozen has no
    gradient of its own: 6 instead of 8 per weight and token.
    """
    num_tokens = TEXT_TOKENS + TOWER.num_patches
    work = Work.of([num_tokens], num_supervised=num_tokens, num_pictures=1)
    parts = flops_by_part(spec, work)
    again = sum(
        parts[name].forward for name in ("blocks", "attention", "adapters") if name in parts
    )
    return float(sum(part.total for part in parts.values()) + again)


def fitted_efficiency(runs: Sequence[PublishedRun]) -> float:
    """The one constant, from some of the rows."""
    return statistics.fmean(run.efficiency for run in runs)


def predicted_node_hours(run: PublishedRun, *, efficiency: float) -> float:
    return run.flops / (efficiency * 3600 * DEVICES_OF_A_NODE * A100_PEAK_FLOPS)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    run: PublishedRun
    node_hours: float
    """With an efficiency from rows that this one is not among."""

    @property
    def error(self) -> float:
        """Fraction of the published time."""
        return self.node_hours / self.run.node_hours - 1


def left_out(is_alike: Callable[[PublishedRun, PublishedRun], bool]) -> tuple[Prediction, ...]:
    """Each row predicted from those that are not alike to it."""
    found = []
    for run in PUBLISHED_RUNS:
        others = [other for other in PUBLISHED_RUNS if not is_alike(run, other)]
        hours = predicted_node_hours(run, efficiency=fitted_efficiency(others))
        found.append(Prediction(run=run, node_hours=hours))
    return tuple(found)


def leave_one_row_out() -> tuple[Prediction, ...]:
    return left_out(lambda run, other: run is other)


def leave_one_size_out() -> tuple[Prediction, ...]:
    """Three of the nine rows are near-twins (33B with adapters), so rows alone flatter."""
    return left_out(lambda run, other: run.size == other.size)


def sixty_five_from_smaller() -> tuple[Prediction, ...]:
    """The rows of the largest size, from all smaller ones."""
    return tuple(found for found in leave_one_size_out() if found.run.size == "65B")


def mean_error(predictions: Sequence[Prediction]) -> float:
    """Mean absolute error, a fraction."""
    return statistics.fmean(abs(found.error) for found in predictions)


def worst_error(predictions: Sequence[Prediction]) -> float:
    return max(abs(found.error) for found in predictions)
