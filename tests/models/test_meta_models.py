"""The full-size models as transformers and peft build them, on meta tensors: shapes and counts.

What is built is what models/build.py and models/adapters.py build for a run, from conf/model and
conf/resolution; only the numbers in the tensors are missing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from transformers import CLIPVisionModel, LlamaForCausalLM

from scalesweep.models.adapters import PROJECTOR, add_adapters
from scalesweep.models.build import assemble_llava, clip_config, llama_config
from scalesweep.models.parameters import (
    num_language_model_params,
    num_lora_params,
    num_params,
    num_projector_params,
    num_trainable_params,
    num_vision_tower_params,
)
from scalesweep.plan import identity
from scalesweep.specs import LanguageModelSpec, LoraSpec, Method, VisionTowerSpec
from tests.config.composing import cell
from tests.train.small_stages import LINEAR, training_spec

HIDDEN = {"7b": 4096, "13b": 5120, "33b": 6656, "65b": 8192, "70b": 8192}
RESOLUTIONS = {"224px": 256, "336px": 576}


class NoTokens:
    """llama_config asks a tokenizer for these."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2


@cache
def specs(model: str, resolution: str) -> tuple[LanguageModelSpec, VisionTowerSpec]:
    config = cell(f"model={model}", f"resolution={resolution}")
    return identity.language_model(config), identity.vision_tower(config)


def meta_llava(model: LanguageModelSpec, tower: VisionTowerSpec) -> Any:
    with torch.device("meta"):
        return assemble_llava(
            LlamaForCausalLM(llama_config(model, tokenizer=NoTokens())),
            CLIPVisionModel(clip_config(tower)),
            tower,
            image_token_id=model.vocab_size,
            seed=0,
        )


def count(*modules: Any) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def trainable(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def lora(rank: int) -> LoraSpec:
    return LoraSpec(rank=rank, alpha=2 * rank, dropout=0.05, targets=LINEAR)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("name", HIDDEN)
def test_a_whole_llava_counts_as_the_plan_says(name: str, resolution: str) -> None:
    model, tower = specs(name, resolution)

    llava = meta_llava(model, tower)

    assert all(parameter.is_meta for parameter in llava.parameters())
    parts = llava.model
    assert count(parts.language_model, llava.lm_head) == num_language_model_params(model)
    assert count(parts.vision_tower) == num_vision_tower_params(tower)
    projector = parts.multi_modal_projector
    assert tuple(projector.linear_1.weight.shape) == (HIDDEN[name], 1024)
    assert tuple(projector.linear_1.bias.shape) == (HIDDEN[name],)
    assert count(projector.linear_1) == num_projector_params(model, tower)
    # What is beyond the plan's count is the identity layer, which LLaVA v1 does not have.
    assert count(llava) - count(projector.linear_2) == num_params(model, tower)
    assert llava.config.image_seq_length == tower.num_patches == RESOLUTIONS[resolution]
    assert llava.config.vision_feature_layer == -2


# LLaMA's own layers give these totals (arXiv:2302.13971 table 2, in billions).
@pytest.mark.parametrize(
    ("name", "billions"), [("7b", 6.738), ("13b", 13.016), ("33b", 32.529), ("65b", 65.286)]
)
def test_llamas_total_is_the_published_one_to_the_million(name: str, billions: float) -> None:
    model, _ = specs(name, "336px")

    assert round(num_language_model_params(model) / 1e9, 3) == billions


def test_70b_has_grouped_queries() -> None:
    model, tower = specs("70b", "336px")

    attention = meta_llava(model, tower).model.language_model.layers[0].self_attn

    assert tuple(attention.q_proj.weight.shape) == (8192, 8192)
    # 8 of 64 heads of 128
    assert tuple(attention.k_proj.weight.shape) == tuple(attention.v_proj.weight.shape)
    assert tuple(attention.k_proj.weight.shape) == (1024, 8192)
    # Llama 2 (arXiv:2307.09288): 69 billion without the embeddings' rounding
    assert num_language_model_params(model) == 68_976_648_192


# arXiv:2309.09958 table 4, trainable parameters in billions. At rank 8 adapters and projector come
# to 0.0678: the table's 0.06 is that cut, or the adapters alone (0.0609).
@pytest.mark.parametrize(
    ("name", "rank", "table"),
    [("13b", 64, 0.26), ("33b", 8, 0.06), ("33b", 64, 0.49), ("65b", 64, 0.81)],
)
def test_what_peft_trains_counts_as_the_plan_and_the_paper_say(
    name: str, rank: int, table: float
) -> None:
    model, tower = specs(name, "336px")
    llava = meta_llava(model, tower)
    llava.requires_grad_(False)

    with torch.device("meta"):
        adapted = add_adapters(llava, lora(rank))

    spec = training_spec(Method.lora, model=model, tower=tower, lora=lora(rank))
    assert trainable(adapted) == num_trainable_params(spec)
    assert trainable(adapted) / 1e9 == pytest.approx(table, abs=0.01)
    learning = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert not [name for name in learning if "vision_tower" in name or "lm_head" in name]
    of_projector = [name for name in learning if PROJECTOR in name]
    assert len(of_projector) == 2  # weight and bias of linear_1
    assert len(learning) - 2 == 2 * 7 * model.num_layers  # A and B of seven layers of each block


def test_at_33b_and_rank_8_the_adapters_alone_are_the_table_s() -> None:
    model, tower = specs("33b", "336px")

    adapters, projector = num_lora_params(model, lora(8)), num_projector_params(model, tower)

    assert round(adapters / 1e9, 4) == 0.0609
    assert round((adapters + projector) / 1e9, 4) == 0.0678


def test_tied_embeddings_count_once() -> None:
    # SmolLM2-135M: 134.5 million (its model card), 30 blocks, 9 heads, 3 of keys and values
    model = LanguageModelSpec(
        name="smollm2_135m",
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        vocab_size=49152,
        max_position_embeddings=8192,
        template="chatml",
        weights="random",
        tokenizer="random",
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        built = LlamaForCausalLM(llama_config(model, tokenizer=NoTokens()))

    assert built.lm_head.weight is built.model.embed_tokens.weight
    assert num_language_model_params(model) == count(built) == 134_515_008


def test_a_field_that_came_later_is_in_no_key_made_before_it() -> None:
    model, _ = specs("7b", "336px")

    assert "tie_word_embeddings" not in model.to_identity()
    assert LanguageModelSpec.from_identity(model.to_identity()) == model
    tied = LanguageModelSpec.from_identity({**model.to_identity(), "tie_word_embeddings": True})
    assert tied.to_identity()["tie_word_embeddings"] is True
    nested = training_spec(Method.language, model=tied).to_identity()
    assert nested["model"]["tie_word_embeddings"] is True
