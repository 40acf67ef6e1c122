"""Floating-point operations of a training step, by arithmetic alone: what MFU is measured with.

A multiplication and an addition count as two. Counted are matrix products, the patch convolution
and attention; look-ups, norms, activations, softmax and the optimizer are not, as is usual
(arXiv:2204.02311, appendix B): they are below 1 % at 7B and above.

Model FLOPs are those that the mathematics of a step asks for, whatever a program does:

- a linear layer of N weights costs 2 N per token forward, 2 N for the gradient of its input, and
  2 N for that of its weights only where they learn: frozen weights have none. The gradient of the
  input is always needed, down to the projector, which learns in every stage that has a picture.
- the output layer sees the tokens that have a loss, no others;
- attention costs 4 L^2 / 2 per sequence of length L and per unit of width forward (each token sees
  half of the square), twice that backward; with grouped queries just the same, since keys and
  values are fewer but each is used by several queries;
- the tower runs forward alone, up to the layer whose features are taken.

Hardware FLOPs add what is computed a second time because it was not kept (gradient checkpointing),
and what the stock classes do for nothing: the frozen identity that makes the projector a linear
one, and the tower's blocks after the features. What fused attention kernels recompute inside, and
the half of the square that others compute and mask, is in neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from scalesweep.models.parameters import linear_shapes
from scalesweep.specs import LanguageModelSpec, Method, TrainingSpec, VisionTowerSpec


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a step, or any part of one, works through."""

    num_tokens: int
    """Of the sequences, image tokens included, padding left out."""
    sum_squared_lengths: int
    """Over sequences; packed ones each for itself, since they do not see each other."""
    num_supervised: int
    """Tokens that have a loss."""
    num_pictures: int

    @classmethod
    def of(cls, lengths: Iterable[int], *, num_supervised: int, num_pictures: int) -> Self:
        sizes = [int(length) for length in lengths]
        return cls(
            num_tokens=sum(sizes),
            sum_squared_lengths=sum(size * size for size in sizes),
            num_supervised=num_supervised,
            num_pictures=num_pictures,
        )


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Of one part of the model."""

    forward: int = 0
    activation_gradient: int = 0
    weight_gradient: int = 0

    @property
    def total(self) -> int:
        return self.forward + self.activation_gradient + self.weight_gradient


def flops_by_part(spec: TrainingSpec, work: Work) -> dict[str, Flops]:
    """Model FLOPs of the parts of a training stage's model: blocks, attention, adapters, output
    layer, projector, tower."""
    if spec.method is Method.tower:
        assert spec.tower is not None
        return {"tower": _learning_tower(spec.tower, work)}
    assert spec.model is not None
    learns = spec.method in (Method.full, Method.language)
    model = spec.model
    blocks = sum(i * o for i, o in linear_shapes(model).values()) * model.num_layers
    parts = {
        "blocks": _linear(blocks, work.num_tokens, learns=learns),
        "attention": _causal_attention(model, work),
        "output layer": _linear(
            model.hidden_size * model.vocab_size, work.num_supervised, learns=learns
        ),
    }
    if spec.lora is not None:
        adapters = _adapter_params(spec)
        parts["adapters"] = _linear(adapters, work.num_tokens, learns=True)
    if spec.tower is not None:
        patches = work.num_pictures * spec.tower.num_patches
        once = 2 * spec.tower.hidden_size * model.hidden_size * patches
        # No gradient of its input: the tower is frozen.
        parts["projector"] = Flops(forward=once, weight_gradient=once)
        parts["tower"] = Flops(forward=_tower_forward(spec.tower, work.num_pictures))
    return parts


def model_flops(spec: TrainingSpec, work: Work) -> int:
    """What a step asks for, without anything computed twice: the numerator of MFU."""
    return sum(part.total for part in flops_by_part(spec, work).values())


def hardware_flops(spec: TrainingSpec, work: Work, *, gradient_checkpointing: str) -> int:
    """What the program computes for a step: the numerator of HFU.

    gradient_checkpointing: none | selective | full (zero.gradient_checkpointing); "selective"
    keeps every product, so that nothing counted here is computed twice.
    """
    assert gradient_checkpointing in ("none", "selective", "full"), gradient_checkpointing
    flops = model_flops(spec, work)
    if spec.method is Method.tower:
        return flops
    assert spec.model is not None
    if spec.tower is not None:
        # Forward, and the gradient of its input.
        identity = 4 * spec.model.hidden_size**2 * spec.tower.num_patches * work.num_pictures
        unused = spec.tower.num_layers - _tower_blocks(spec.tower)
        flops += identity + unused * sum(_tower_block(spec.tower, work.num_pictures))
    if gradient_checkpointing == "full":
        flops += _recomputed(spec, work)
    return flops


def _recomputed(spec: TrainingSpec, work: Work) -> int:
    """Forward of every block once more, but for its last product.

    torch's checkpointing stops when the last tensor that was kept is there again, and a product
    keeps what goes into it.
    """
    assert spec.model is not None
    parts = flops_by_part(spec, work)
    again = parts["blocks"].forward + parts["attention"].forward
    if spec.lora is not None:
        again += parts["adapters"].forward
    inputs, outputs = linear_shapes(spec.model)["down_proj"]
    if spec.lora is not None and "down_proj" in spec.lora.targets:
        inputs = spec.lora.rank
    return again - 2 * inputs * outputs * work.num_tokens * spec.model.num_layers


def forward_flops(
    model: LanguageModelSpec, tower: VisionTowerSpec | None, work: Work, *, num_logits: int
) -> int:
    """Of a pass without gradients, as a model makes that answers.

    num_logits: tokens whose output layer is computed: of a prompt its last one. An attended token
    whose keys were kept counts in work.sum_squared_lengths alone.
    """
    blocks = sum(i * o for i, o in linear_shapes(model).values()) * model.num_layers
    flops = _linear(blocks, work.num_tokens, learns=False).forward
    flops += _causal_attention(model, work).forward
    flops += 2 * model.hidden_size * model.vocab_size * num_logits
    if tower is not None:
        patches = work.num_pictures * tower.num_patches
        flops += 2 * tower.hidden_size * model.hidden_size * patches
        flops += _tower_forward(tower, work.num_pictures)
    return flops


def mfu(flops: float, *, seconds: float, peak_flops: float, num_devices: int) -> float:
    """Share of the devices' peak that was used, a fraction (hardware FLOPs give HFU)."""
    return flops / (seconds * peak_flops * num_devices)


def _linear(num_weights: int, num_tokens: int, *, learns: bool) -> Flops:
    once = 2 * num_weights * num_tokens
    return Flops(forward=once, activation_gradient=once, weight_gradient=once if learns else 0)


def _causal_attention(model: LanguageModelSpec, work: Work) -> Flops:
    """Queries with keys and weights with values, half of the square each."""
    forward = 4 * work.sum_squared_lengths * model.hidden_size * model.num_layers // 2
    return Flops(forward=forward, activation_gradient=2 * forward)


def _adapter_params(spec: TrainingSpec) -> int:
    assert spec.model is not None
    assert spec.lora is not None
    shapes = linear_shapes(spec.model)
    return (
        spec.model.num_layers
        * spec.lora.rank
        * sum(sum(shapes[target]) for target in spec.lora.targets)
    )


def _tower_blocks(tower: VisionTowerSpec) -> int:
    """Blocks that the features pass: hidden_states[-2] is what goes into the last of them."""
    layer = tower.feature_layer
    return layer if layer >= 0 else tower.num_layers + 1 + layer


def _patch_embedding(tower: VisionTowerSpec, num_pictures: int) -> int:
    return 2 * 3 * tower.patch_size**2 * tower.hidden_size * tower.num_patches * num_pictures


def _tower_block(tower: VisionTowerSpec, num_pictures: int) -> tuple[int, int]:
    """Forward of one block: linear layers, and attention over the whole square."""
    h, f, tokens = tower.hidden_size, tower.intermediate_size, tower.num_patches + 1
    linear = 2 * (4 * h * h + 2 * h * f) * tokens * num_pictures
    return linear, 4 * tokens**2 * h * num_pictures


def _tower_forward(tower: VisionTowerSpec, num_pictures: int) -> int:
    block = sum(_tower_block(tower, num_pictures))
    return _patch_embedding(tower, num_pictures) + _tower_blocks(tower) * block


def _learning_tower(tower: VisionTowerSpec, work: Work) -> Flops:
    """Every block learns; its heads (three small layers) are left out."""
    embedding = _patch_embedding(tower, work.num_pictures)
    linear, attention = _tower_block(tower, work.num_pictures)
    linear, attention = linear * tower.num_layers, attention * tower.num_layers
    return Flops(
        forward=embedding + linear + attention,
        activation_gradient=linear + 2 * attention,  # none of the pixels
        weight_gradient=embedding + linear,
    )
