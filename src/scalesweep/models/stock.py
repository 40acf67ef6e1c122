"""A trained LLaVA as plain transformers reads it: names, vocabulary, configs.

Names in files are those of llava-hf's models, which every version of transformers (and other
programs) reads; within this package weights have the names of the stock class's state_dict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

from scalesweep.models.adapters import PROJECTOR

VOCABULARY_MULTIPLE = 64
"""A vocabulary that grows is rounded up to it: matrices divide well over devices."""

SKIPPED_BY_4_BIT = ("model.vision_tower", "model.multi_modal_projector", "lm_head")
"""Modules that stay whole, by their full names: transformers ignores short ones without a word."""

_FILE_NAMES = (
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.vision_tower\.", "vision_tower.vision_model."),
    (r"^model\.multi_modal_projector\.", "multi_modal_projector."),
)


def file_name(name: str) -> str:
    """What a weight of the stock class is called in files."""
    for pattern, replacement in _FILE_NAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def language_model_name(name: str) -> str:
    """What a weight in a LLaMA's file is called in LLaVA."""
    return re.sub(r"^model\.", "model.language_model.", name)


def adapter_name(name: str) -> str:
    """What peft calls the module of a weight of the stock class."""
    return "base_model.model." + name.removesuffix(".weight")


def is_linear_of_language_model(name: str) -> bool:
    """Whether QLoRA holds a weight in 4 bit: quantization.quantize_language_model."""
    return name.startswith("model.language_model.layers.") and name.endswith("_proj.weight")


def is_projector(name: str) -> bool:
    """Whether it is saved with the adapters."""
    return name.startswith(f"model.{PROJECTOR}.")


def stock_vocabulary(vocab_size: int, *, image_token_id: int) -> int:
    """Rows of embedding and output layer that the stock forward needs.

    It looks the image token up before it puts features in its place, so there must be a row.
    """
    if image_token_id < vocab_size:
        return vocab_size
    return -(-(image_token_id + 1) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def with_rows(weight: Tensor, num_rows: int) -> Tensor:
    """Zeros for the tokens that a vocabulary grew by: [V, D] -> [num_rows, D]."""
    if weight.shape[0] >= num_rows:
        return weight
    grown = weight.new_zeros((num_rows, weight.shape[1]))
    grown[: weight.shape[0]] = weight
    return grown


def generation_config(
    tokenizer: Any, *, trained_vocabulary: int, vocabulary: int, answers: Mapping[str, Any]
) -> GenerationConfig:
    """As the model is asked here: greedy or beams, never a token that it was not trained with.

    The added rows give logits of zero: they are suppressed, and what is left sums up to one again,
    so that beams too are those of the vocabulary as it was.
    """
    added = {
        "suppress_tokens": list(range(trained_vocabulary, vocabulary)),
        "renormalize_logits": True,
    }
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        **answers,
        **(added if vocabulary > trained_vocabulary else {}),
    )


def nf4_config(compute_dtype: torch.dtype) -> dict[str, Any]:
    """quantization_config of a base whose files hold NF4 with double quantisation."""
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": str(compute_dtype).removeprefix("torch."),
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": list(SKIPPED_BY_4_BIT),
    }


def stock_shapes(config: LlavaConfig) -> dict[str, torch.Size]:
    """Every weight that the stock class needs, and its shape; a tied one once."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    return shapes
