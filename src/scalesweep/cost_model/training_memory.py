"""Memory that one device needs to train, by what this trainer holds. Arithmetic alone.

States (weights, gradients, optimizer) follow ZeRO (arXiv:1910.02054, section 3) as DeepSpeed
keeps them; activations are what autograd saves of each layer of a LLaMA as transformers and peft
write it, not a formula of whole transformers: norms run in fp32, adapters drop their own copy of an
input, frozen weights need no input. Logits are made a chunk at a time, for tokens with a loss only
(models/output_layer.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from scalesweep.models.answering_memory import NF4_BYTES
from scalesweep.models.parameters import (
    linear_shapes,
    num_params,
    num_trainable_params,
)
from scalesweep.specs import LanguageModelSpec, Method, Precision, TrainingSpec

# train/deepspeed.py: LARGEST_BUCKET; elements.
LARGEST_BUCKET = 500_000_000
# DeepSpeed's stage3_max_live_parameters and sub_group_size, which are not set by us; elements.
LIVE_PARAMETERS = 1_000_000_000
STEPPED_AT_ONCE = 1_000_000_000
# models/output_layer.py: CHUNK_BYTES, fp32 logits at once.
LOGIT_CHUNK_BYTES = 128 * 2**20
# fp32 code tables of each NF4 matrix and of its scales (16 + 256), and the scales' mean.
NF4_TABLE_BYTES = 4 * (16 + 256 + 1)


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one device sees in one forward pass."""

    num_tokens: int
    """Padding included."""
    num_supervised: int
    """Tokens that have a loss."""
    num_pictures: int
    num_rows: int = 1
    """Padded samples; 1 where they are packed."""

    @classmethod
    def largest(
        cls,
        spec: TrainingSpec,
        *,
        micro_batch_size: int,
        micro_batch_tokens: int,
        tokens_per_row: int | None = None,
    ) -> Self:
        """The largest that a stage may meet.

        tokens_per_row: of a padded row; None: as many as a sample may have, which the longest
            sample of a data set that is cut at batch.max_seq_len has.
        """
        patches = 0 if spec.tower is None else spec.tower.num_patches
        if spec.method is Method.tower:
            return cls(
                num_tokens=micro_batch_size * (patches + 1),
                num_supervised=0,
                num_pictures=micro_batch_size,
            )
        row = tokens_per_row or spec.max_seq_len
        tokens = micro_batch_tokens or micro_batch_size * row
        # A pack has as many pictures as samples of a picture and as much text again, and a row one.
        pictures = 0
        if patches:
            pictures = max(1, tokens // (2 * patches)) if micro_batch_tokens else micro_batch_size
        return cls(
            num_tokens=tokens,
            num_supervised=max(0, tokens - pictures * patches),
            num_pictures=pictures,
            num_rows=1 if micro_batch_tokens else micro_batch_size,
        )


def width(precision: Precision) -> int:
    """Bytes of a weight and of an activation."""
    return 2 if precision is Precision.bf16 else 4


def weight_bytes(spec: TrainingSpec, *, zero_stage: int, num_ranks: int) -> float:
    """Weights on one device: split under ZeRO-3, else whole; NF4 ones always whole."""
    size = width(spec.precision)
    if spec.method is Method.qlora:
        assert spec.model is not None
        matrices = spec.model.num_layers * len(linear_shapes(spec.model))
        return (_held_params(spec) - _quantised(spec.model)) * size + (
            _quantised(spec.model) * NF4_BYTES + matrices * NF4_TABLE_BYTES
        )
    whole = _held_params(spec) * size
    return whole / num_ranks if zero_stage == 3 else whole


def gradient_bytes(spec: TrainingSpec, *, zero_stage: int, num_ranks: int) -> float:
    """Gradients kept between micro-batches, in the weights' precision."""
    whole = num_trainable_params(spec) * width(spec.precision)
    return whole / num_ranks if zero_stage >= 2 else float(whole)


def optimizer_bytes(spec: TrainingSpec, *, zero_stage: int, num_ranks: int) -> float:
    """Both fp32 moments of AdamW, and the fp32 copy that is stepped.

    Only plain fp32 training under ZeRO-0 steps the weights themselves.
    """
    trained = num_trainable_params(spec)
    if zero_stage == 0:
        return trained * (8 if spec.precision is Precision.fp32 else 12)
    return trained * 12 / num_ranks


def bucket_bytes(spec: TrainingSpec, *, zero_stage: int) -> float:
    """The buffer in which gradients are collected before they are reduced over ranks."""
    if zero_stage < 2:
        return 0.0
    return min(LARGEST_BUCKET, num_trainable_params(spec)) * width(spec.precision)


def live_weight_bytes(spec: TrainingSpec, *, zero_stage: int) -> float:
    """Whole weights that ZeRO-3 has gathered at one time."""
    if zero_stage != 3:
        return 0.0
    return min(LIVE_PARAMETERS, _held_params(spec)) * width(spec.precision)


def step_bytes(spec: TrainingSpec, *, zero_stage: int, num_ranks: int) -> float:
    """fp32 gradients that are there while the optimizer steps, when no activations are."""
    if zero_stage == 0 and spec.precision is Precision.fp32:
        return 0.0
    mine = num_trainable_params(spec) / (num_ranks if zero_stage else 1)
    return 4.0 * (min(mine, STEPPED_AT_ONCE) if zero_stage == 3 else mine)


def saved_bytes(
    spec: TrainingSpec, batch: MicroBatch, *, gradient_checkpointing: str, on_gpu: bool = True
) -> float:
    """Activations that wait for the backward pass, of the whole model."""
    size = width(spec.precision)
    if spec.method is Method.tower:
        return _learning_tower_bytes(spec, batch)
    model = spec.model
    assert model is not None
    h, tokens = model.hidden_size, batch.num_tokens
    layer = {
        "none": _layer_bytes(spec, on_gpu=on_gpu),
        "selective": _selective_bytes(spec),
        "full": float(h * size),
    }[gradient_checkpointing]
    total = tokens * model.num_layers * layer
    total += tokens * _norm_bytes(spec)  # the last one
    # Cosines and sines of the places in a row, which padded rows share.
    total += tokens / batch.num_rows * 2 * (h // model.num_heads) * size
    if spec.method in (Method.full, Method.language):
        total += tokens * 8  # numbers of the words whose embeddings learn
    if spec.tower is not None:
        features = batch.num_pictures * spec.tower.num_patches * spec.tower.hidden_size
        total += features * size + tokens  # and a byte of each token: whether a picture is there
    return total


def output_layer_bytes(spec: TrainingSpec, batch: MicroBatch) -> float:
    """Gradients that the output layer makes in its forward pass and keeps."""
    if spec.model is None:
        return 0.0
    h = spec.model.hidden_size
    kept = batch.num_supervised * (h * width(spec.precision) + 8)
    learns = spec.method in (Method.full, Method.language)
    return kept + (4.0 * spec.model.vocab_size * h if learns else 0.0)


def working_bytes(
    spec: TrainingSpec, batch: MicroBatch, *, gradient_checkpointing: str, on_gpu: bool = True
) -> float:
    """The largest moment on top of what is saved: one layer computed again, or a logits chunk.

    A layer's backward pass also holds gradients of its widest part.
    """
    if spec.model is None:
        return 0.0
    size, model = width(spec.precision), spec.model
    again = (
        0.0
        if gradient_checkpointing == "none"
        else _layer_bytes(spec, on_gpu=on_gpu) * batch.num_tokens
    )
    gradients = batch.num_tokens * size * (2 * model.hidden_size + 2 * model.intermediate_size)
    rows = min(max(1, LOGIT_CHUNK_BYTES // (4 * model.vocab_size)), batch.num_supervised)
    logits = rows * model.vocab_size * (4 + 2 * size)
    whole_weight = max(i * o for i, o in linear_shapes(model).values())
    dequantised = whole_weight * size if spec.method is Method.qlora else 0
    return max(again + gradients + dequantised, float(logits))


def _held_params(spec: TrainingSpec) -> int:
    """Of the model as it stands in memory.

    The projector's second layer (a frozen identity) and, beside adapters, its first one's original
    are there too; a tower in training has no language model.
    """
    count = num_params(spec.model, spec.tower)
    if spec.model is not None and spec.tower is not None:
        count += (spec.model.hidden_size + 1) * spec.model.hidden_size
        if spec.lora is not None:
            count += num_trainable_params(spec)  # adapters, and the projector's copy that learns
    return count


def _quantised(model: LanguageModelSpec) -> int:
    return model.num_layers * sum(i * o for i, o in linear_shapes(model).values())


def _learns(spec: TrainingSpec) -> bool:
    return spec.method in (Method.full, Method.language)


def _norm_bytes(spec: TrainingSpec) -> float:
    """Of one token in one RMSNorm: its input in fp32, the root, and what a learning weight sees."""
    assert spec.model is not None
    h, size = spec.model.hidden_size, width(spec.precision)
    return 4 * h + 4 + (size * h if _learns(spec) else 0)


def _attention_width(model: LanguageModelSpec) -> int:
    """Elements of a token's queries, keys (repeated over grouped heads), values and result."""
    return 4 * model.hidden_size


def _layer_bytes(spec: TrainingSpec, *, on_gpu: bool) -> float:
    """What autograd saves of one token in one decoder layer when nothing is computed again."""
    model = spec.model
    assert model is not None
    f, size = model.intermediate_size, width(spec.precision)
    total = 2 * _norm_bytes(spec)
    total += _attention_width(model) * size + 4 * model.num_heads  # and log-sums of its scores
    total += 3 * f * size  # gate, its SiLU, up
    total += _linear_inputs(spec, on_gpu=on_gpu)
    return total


def _linear_inputs(spec: TrainingSpec, *, on_gpu: bool) -> float:
    """Inputs that a layer's matrices keep for their weights' gradients, of one token.

    A frozen matrix keeps none. One that learns keeps its input, which q, k and v share, and gate
    and up; o_proj's is the attention's own result. An adapter keeps what it dropped of its input
    (its own draw), the draw, and its narrow result.
    """
    model, size = spec.model, width(spec.precision)
    assert model is not None
    if _learns(spec):
        return (2 * model.hidden_size + model.intermediate_size) * size
    if spec.lora is None:
        return 0.0
    shapes = linear_shapes(model)
    if not spec.lora.dropout:
        shared = 0
        if {"q_proj", "k_proj", "v_proj"} & set(spec.lora.targets):
            shared += model.hidden_size
        if {"gate_proj", "up_proj"} & set(spec.lora.targets):
            shared += model.hidden_size
        if "down_proj" in spec.lora.targets:
            shared += model.intermediate_size
        return size * (shared + spec.lora.rank * len(spec.lora.targets))
    # CUDA draws a byte an element; the CPU a number of the activation's own type.
    drawn = 1 if on_gpu else size
    return sum(
        shapes[target][0] * (size + drawn) + spec.lora.rank * size for target in spec.lora.targets
    )


def _selective_bytes(spec: TrainingSpec) -> float:
    """Of one token in one layer: its input, and results of matrix products and attention."""
    model, size = spec.model, width(spec.precision)
    assert model is not None
    shapes = linear_shapes(model)
    kept = model.hidden_size + sum(outputs for _, outputs in shapes.values())
    kept += model.hidden_size  # of attention
    if spec.lora is not None:
        kept += sum(spec.lora.rank + shapes[target][1] for target in spec.lora.targets)
    return kept * size + 4 * model.num_heads


def _learning_tower_bytes(spec: TrainingSpec, batch: MicroBatch) -> float:
    """Norms' inputs and results, queries to the attention's result, and quick GELU's three."""
    tower = spec.tower
    assert tower is not None
    size = width(spec.precision)
    per_token = (8 * tower.hidden_size + 3 * tower.intermediate_size) * size
    return float(batch.num_tokens * tower.num_layers * per_token)
