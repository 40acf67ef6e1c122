"""Models from specs: stock transformers classes, put together as LLaVA.

LLaVA v1's projector is one linear layer. The stock class has two with an activation between; with
the identity as activation and a frozen identity matrix as second layer it *is* the linear one, bit
for bit, and what is saved loads everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from scalesweep.errors import StageError
from scalesweep.models.loading import ON_CPU, Elsewhere, Placement, load_weights
from scalesweep.models.weights import (
    check_language_model,
    check_vision_tower,
    language_model_values,
    vision_tower_values,
)
from scalesweep.specs import LanguageModelSpec, Precision, VisionTowerSpec

DTYPES = {Precision.fp32: torch.float32, Precision.bf16: torch.bfloat16}
EXPORT_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def llama_config(spec: LanguageModelSpec, *, tokenizer: Any) -> LlamaConfig:
    """Configuration of a language model made from nothing.

    The standard deviation of first weights is hidden_size ** -0.5: with transformers' fixed 0.02
    the miniatures learn markedly less in the same steps.
    """
    return LlamaConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.num_heads,
        num_key_value_heads=spec.num_kv_heads,
        max_position_embeddings=spec.max_position_embeddings,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=spec.tie_word_embeddings,
        initializer_range=spec.hidden_size**-0.5,
    )


def clip_config(spec: VisionTowerSpec) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.num_heads,
        image_size=spec.image_size,
        patch_size=spec.patch_size,
        projection_dim=spec.hidden_size,
    )


def load_language_model(
    spec: LanguageModelSpec, folder: Path, *, dtype: torch.dtype, placement: Placement = ON_CPU
) -> LlamaForCausalLM:
    """A LLaMA from a Hugging Face folder.

    Raises:
        StageError: the folder holds another architecture, or not all weights.
    """
    check_language_model(spec, folder)
    model: LlamaForCausalLM = load_weights(
        LlamaForCausalLM,
        folder,
        dtype=dtype,
        placement=placement,
        expected=language_model_values(spec),
    )
    return model


def load_vision_tower(
    spec: VisionTowerSpec, folder: Path, *, dtype: torch.dtype, placement: Placement = ON_CPU
) -> CLIPVisionModel:
    """A CLIP vision tower from a Hugging Face folder.

    Raises:
        StageError: the folder holds another architecture, or not all weights.
    """
    check_vision_tower(spec, folder)
    tower: CLIPVisionModel = load_weights(
        CLIPVisionModel,
        folder,
        dtype=dtype,
        placement=placement,
        expected=vision_tower_values(spec),
    )
    return tower


def assemble_llava(
    language_model: LlamaForCausalLM,
    tower: CLIPVisionModel | Elsewhere,
    tower_spec: VisionTowerSpec,
    *,
    image_token_id: int,
    seed: int,
) -> LlavaForConditionalGeneration:
    """LLaVA of a language model, a tower and a fresh projector; nothing is copied."""
    config = llava_config(
        language_model.config, tower.config, tower_spec, image_token_id=image_token_id
    )
    dtype = language_model.dtype
    config.dtype = dtype
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    model.model.language_model = language_model.model
    model.model.vision_tower = tower
    model.model.multi_modal_projector = linear_projector(config, dtype=dtype, seed=seed)
    model.lm_head = language_model.lm_head
    model.generation_config = language_model.generation_config
    return model


def llava_config(
    text: LlamaConfig, vision: CLIPVisionConfig, tower: VisionTowerSpec, *, image_token_id: int
) -> LlavaConfig:
    """The identity as activation of the projector; features of the layer that the tower names."""
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_token_id,
        image_seq_length=tower.num_patches,
        projector_hidden_act="linear",
        vision_feature_layer=tower.feature_layer,
        vision_feature_select_strategy="default",
    )


def linear_projector(config: LlavaConfig, *, dtype: torch.dtype, seed: int) -> Any:
    """LLaVA v1's linear projector: linear_1 is it, linear_2 a frozen identity.

    linear_1 starts with variance 1 / inputs and no bias, whatever the language model.
    """
    generator = torch.Generator().manual_seed(seed)
    projector: Any = LlavaMultiModalProjector(config)
    with torch.no_grad():
        weight = projector.linear_1.weight
        weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)
        projector.linear_1.bias.zero_()
        projector.linear_2.weight.copy_(torch.eye(weight.shape[0]))
        projector.linear_2.bias.zero_()
    return projector.to(dtype)


def load_projector(model: LlavaForConditionalGeneration, file: Path) -> None:
    """Put an aligned projector into a LLaVA.

    Raises:
        StageError: the file's shapes are those of another model.
    """
    try:
        state = load_file(file)
        linear = model.model.multi_modal_projector.linear_1
        linear.load_state_dict({k.removeprefix("linear_1."): v for k, v in state.items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise StageError(f"{file}: does not fit the projector: {error}") from error


def check_linear_projector(model: LlavaForConditionalGeneration) -> None:
    """Refuse a LLaVA whose second projector layer is no identity: it was trained as an MLP."""
    linear = model.model.multi_modal_projector.linear_2
    weight = linear.weight
    identity = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
    if not torch.equal(weight, identity) or linear.bias.any():
        raise StageError("multi_modal_projector.linear_2 is not the identity: not a LLaVA v1")
