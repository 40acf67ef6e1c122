"""Parameter counts by arithmetic alone, so that a plan needs neither torch nor weights.

Shapes are those of LLaMA (arXiv:2302.13971) and of CLIP's vision tower (arXiv:2103.00020) as
transformers builds them; tests compare with models built on meta tensors.
"""

from __future__ import annotations

from scalesweep.specs import LanguageModelSpec, LoraSpec, Method, TrainingSpec, VisionTowerSpec


def num_language_model_params(model: LanguageModelSpec) -> int:
    """Embeddings, blocks, final norm and the output layer; one matrix where they are tied."""
    h = model.hidden_size
    block = sum(i * o for i, o in linear_shapes(model).values()) + 2 * h
    matrices = 1 if model.tie_word_embeddings else 2
    return matrices * model.vocab_size * h + model.num_layers * block + h


def num_vision_tower_params(tower: VisionTowerSpec) -> int:
    """Class token, patch and position embeddings, blocks, norm before and after."""
    h, f = tower.hidden_size, tower.intermediate_size
    embeddings = h + 3 * tower.patch_size**2 * h + (tower.num_patches + 1) * h
    attention = 4 * (h * h + h)
    mlp = h * f + f + f * h + h
    return embeddings + tower.num_layers * (attention + mlp + 4 * h) + 4 * h


def num_projector_params(model: LanguageModelSpec, tower: VisionTowerSpec) -> int:
    """LLaVA v1's one linear layer with bias: 1024 -> 6656 at 33B."""
    return (tower.hidden_size + 1) * model.hidden_size


def num_lora_params(model: LanguageModelSpec, lora: LoraSpec) -> int:
    """rank x (inputs + outputs) of every adapted layer."""
    shapes = linear_shapes(model)
    per_block = sum(lora.rank * sum(shapes[target]) for target in lora.targets)
    return model.num_layers * per_block


def num_params(model: LanguageModelSpec | None, tower: VisionTowerSpec | None) -> int:
    """Language model, tower and, where both are there, the projector."""
    count = 0
    if model is not None:
        count += num_language_model_params(model)
    if tower is not None:
        count += num_vision_tower_params(tower)
    if model is not None and tower is not None:
        count += num_projector_params(model, tower)
    return count


def num_trainable_params(spec: TrainingSpec) -> int:
    """Parameters that learn in a training stage; the paper's table 4 counts them so."""
    model, tower = spec.model, spec.tower
    if spec.method is Method.tower:
        assert tower is not None
        return num_vision_tower_params(tower)
    assert model is not None
    if spec.method is Method.language:
        return num_language_model_params(model)
    assert tower is not None
    projector = num_projector_params(model, tower)
    if spec.method is Method.projector:
        return projector
    if spec.method is Method.full:
        return num_language_model_params(model) + projector
    assert spec.lora is not None
    return num_lora_params(model, spec.lora) + projector


def linear_shapes(model: LanguageModelSpec) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the linear layers of one block."""
    h, f = model.hidden_size, model.intermediate_size
    kv = model.hidden_size // model.num_heads * model.num_kv_heads
    return {
        "q_proj": (h, h),
        "k_proj": (h, kv),
        "v_proj": (h, kv),
        "o_proj": (h, h),
        "gate_proj": (h, f),
        "up_proj": (h, f),
        "down_proj": (f, h),
    }
