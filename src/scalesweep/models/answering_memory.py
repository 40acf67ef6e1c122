"""How much memory a model takes that answers, and over how many devices it is split for it.

    device bytes = weights of its layers + its part of the key-value cache + activations + reserve

Arithmetic alone: the planner asks it on a login node, and models/split.py divides the layers by the
same function, so that what was planned is what runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalesweep.errors import PlanError
from scalesweep.models.parameters import (
    linear_shapes,
    num_projector_params,
    num_vision_tower_params,
)
from scalesweep.specs import LanguageModelSpec, Method, Precision, VisionTowerSpec

# One 4-bit parameter with double quantisation: 4.127 bits (arXiv:2305.14314 section 3).
NF4_BYTES = 4.127 / 8
ADAPTER_RANK = 64
"""Of adapters on all linear layers, where no other is named: conf/lora/all_linear.yaml."""
# peft holds the adapters of a 16-bit model in fp32.
ADAPTER_BYTES = 4
# CUDA context, kernels and NCCL's buffers; not measured here.
RESERVE_BYTES = 2e9
# Of a device's memory, what the caching allocator can use before fragments stop it; not measured.
USABLE = 0.95


@dataclass(frozen=True, kw_only=True)
class Division:
    """Layers of a language model in as many consecutive parts as there are devices."""

    layers: tuple[range, ...]
    weight_bytes: tuple[float, ...]
    """Of each part; the first has embeddings, tower and projector, the last the output layer."""


def divided(
    model: LanguageModelSpec,
    tower: VisionTowerSpec | None,
    *,
    method: Method | None,
    precision: Precision,
    parts: int,
    adapter_rank: int = ADAPTER_RANK,
) -> Division:
    """The division whose largest part is as small as whole layers allow.

    Raises:
        PlanError: there are fewer layers than parts.
    """
    if parts > model.num_layers:
        raise PlanError(
            f"{model.name} has {model.num_layers} layers: it cannot be split over {parts} devices"
        )
    width = _width(precision)
    vocabulary = model.vocab_size * model.hidden_size * width
    extra = [0.0] * parts
    extra[0] += vocabulary
    if tower is not None:
        # The stock projector's second layer is there too: models/build.py.
        second = (model.hidden_size + 1) * model.hidden_size
        seeing = num_vision_tower_params(tower) + num_projector_params(model, tower) + second
        extra[0] += seeing * width
    if not model.tie_word_embeddings or parts > 1:  # a tied matrix is on both ends
        extra[-1] += vocabulary
    extra[-1] += model.hidden_size * width  # the last norm
    layer = layer_bytes(model, method=method, precision=precision, adapter_rank=adapter_rank)
    counts = _balanced(model.num_layers, layer, extra)
    starts = [sum(counts[:part]) for part in range(parts)]
    return Division(
        layers=tuple(
            range(start, start + count) for start, count in zip(starts, counts, strict=True)
        ),
        weight_bytes=tuple(
            other + count * layer for other, count in zip(extra, counts, strict=True)
        ),
    )


def _balanced(num_layers: int, layer: float, extra: Sequence[float]) -> list[int]:
    """Layers of each part, at least one: each goes to the part that is the emptiest so far.

    All layers are equally large, so no other choice makes the fullest part smaller.
    """
    counts = [1] * len(extra)
    for _ in range(num_layers - len(extra)):
        sizes = [other + count * layer for other, count in zip(extra, counts, strict=True)]
        counts[sizes.index(min(sizes))] += 1
    return counts


def layer_bytes(
    model: LanguageModelSpec,
    *,
    method: Method | None,
    precision: Precision,
    adapter_rank: int = ADAPTER_RANK,
) -> float:
    """Weights of one decoder layer: 4-bit under QLoRA, with adapters where it has some."""
    width = _width(precision)
    shapes = linear_shapes(model).values()
    linear = sum(inputs * outputs for inputs, outputs in shapes)
    adapters = sum(adapter_rank * (inputs + outputs) for inputs, outputs in shapes)
    size = linear * (NF4_BYTES if method is Method.qlora else width)
    size += 2 * model.hidden_size * width  # norms
    return size + (adapters * ADAPTER_BYTES if method in (Method.lora, Method.qlora) else 0.0)


def cache_bytes(
    model: LanguageModelSpec, *, precision: Precision, rows: int, context_tokens: int
) -> float:
    """Keys and values of one layer: 2 x heads x head size for each token of each row."""
    heads = model.hidden_size // model.num_heads * model.num_kv_heads
    return 2.0 * heads * context_tokens * rows * _width(precision)


def activation_bytes(
    model: LanguageModelSpec, *, precision: Precision, rows: int, context_tokens: int
) -> float:
    """The largest moment of a forward pass: a prompt's MLP, or the scores of the vocabulary.

    Of each token: hidden state, residual, normed input and output (4 h), and gate, up and their
    product (3 f). Of each row: fp32 logits, their logarithms and a sum of scores with sorting room.
    A layer's cache is copied once as it grows or as beams change places.
    """
    per_token = 4 * model.hidden_size + 3 * model.intermediate_size
    mlp = float(rows * context_tokens * per_token * _width(precision))
    scores = 4.0 * 4 * rows * model.vocab_size
    cache = cache_bytes(model, precision=precision, rows=rows, context_tokens=context_tokens)
    return max(mlp, scores) + cache


def device_bytes(
    model: LanguageModelSpec,
    tower: VisionTowerSpec | None,
    *,
    method: Method | None,
    precision: Precision,
    batch_size: int,
    context_tokens: int,
    parts: int,
    num_beams: int = 1,
    adapter_rank: int = ADAPTER_RANK,
) -> float:
    """What the fullest device of a split model takes while it answers."""
    division = divided(
        model, tower, method=method, precision=precision, parts=parts, adapter_rank=adapter_rank
    )
    rows = batch_size * num_beams
    cache = cache_bytes(model, precision=precision, rows=rows, context_tokens=context_tokens)
    fullest = max(
        weights + len(layers) * cache
        for weights, layers in zip(division.weight_bytes, division.layers, strict=True)
    )
    activations = activation_bytes(
        model, precision=precision, rows=rows, context_tokens=context_tokens
    )
    return fullest + activations + RESERVE_BYTES


def devices_needed(
    model: LanguageModelSpec,
    tower: VisionTowerSpec | None,
    *,
    method: Method | None,
    precision: Precision,
    batch_size: int,
    context_tokens: int,
    device_memory_bytes: float,
    num_beams: int = 1,
    adapter_rank: int = ADAPTER_RANK,
) -> int | None:
    """The fewest devices over which one copy of a model can be split and answer.

    None: even one layer a device does not fit; a smaller batch might.

    batch_size: questions answered at once; each takes num_beams rows.
    context_tokens: the longest prompt, with its picture's, and answer.
    """
    for parts in range(1, model.num_layers + 1):
        need = device_bytes(
            model,
            tower,
            method=method,
            precision=precision,
            batch_size=batch_size,
            context_tokens=context_tokens,
            parts=parts,
            num_beams=num_beams,
            adapter_rank=adapter_rank,
        )
        if need <= USABLE * device_memory_bytes:
            return parts
    return None


def _width(precision: Precision) -> int:
    return 2 if precision is Precision.bf16 else 4
