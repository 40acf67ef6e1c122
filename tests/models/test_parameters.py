"""Parameters counted by arithmetic are those of the models that transformers builds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPVisionModel, LlamaForCausalLM

from scalesweep.models.build import clip_config, llama_config
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

MODELS = ["mini_xs", "mini_s", "mini_m", "7b", "13b", "33b", "65b", "70b"]


class NoTokens:
    """llama_config asks a tokenizer for these."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2


def language_model(name: str) -> LanguageModelSpec:
    return identity.language_model(cell(f"model={name}", *local(name)))


def vision_tower(resolution: str) -> VisionTowerSpec:
    name = "33b" if int(resolution[:-2]) > 100 else "mini_s"
    return identity.vision_tower(cell(f"model={name}", f"resolution={resolution}", *local(name)))


def local(name: str) -> list[str]:
    return ["tuning=lora"] if not name.startswith("mini") else []


def count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_language_models_count_as_built(name: str) -> None:
    spec = language_model(name)
    with torch.device("meta"):
        model = LlamaForCausalLM(llama_config(spec, tokenizer=NoTokens()))

    assert num_language_model_params(spec) == count(model)


@pytest.mark.parametrize("resolution", ["32px", "48px", "224px", "336px"])
def test_vision_towers_count_as_built(resolution: str) -> None:
    spec = vision_tower(resolution)
    with torch.device("meta"):
        model = CLIPVisionModel(clip_config(spec))

    assert num_vision_tower_params(spec) == count(model)


# LLaMA's own counts (arXiv:2302.13971, table 2; 70B: arXiv:2307.09288), in billions.
@pytest.mark.parametrize(
    ("name", "billions"), [("7b", 6.7), ("13b", 13.0), ("33b", 32.5), ("65b", 65.2), ("70b", 69)]
)
def test_language_models_count_as_published(name: str, billions: float) -> None:
    assert num_language_model_params(language_model(name)) / 1e9 == pytest.approx(
        billions, rel=0.01
    )


# arXiv:2309.09958, table 4, trainable parameters in billions (that table's 0.06 at rank 8 leaves
# the projector out or cuts 0.068).
@pytest.mark.parametrize(
    ("name", "rank", "billions"),
    [("13b", 64, 0.26), ("33b", 8, 0.06), ("33b", 64, 0.49), ("65b", 64, 0.81)],
)
def test_lora_counts_as_the_paper_does(name: str, rank: int, billions: float) -> None:
    model, tower = language_model(name), vision_tower("336px")
    lora = LoraSpec(rank=rank, alpha=2 * rank, dropout=0.0, targets=LINEAR)
    spec = training_spec(Method.lora, model=model, tower=tower, lora=lora)

    assert num_trainable_params(spec) / 1e9 == pytest.approx(billions, abs=0.01)


def test_lora_at_33b_by_hand() -> None:
    # 60 blocks of hidden 6656 and MLP 17920: four layers h + h, three h + f
    per_block = 4 * (6656 + 6656) + 3 * (6656 + 17920)
    lora = LoraSpec(rank=64, alpha=128, dropout=0.0, targets=LINEAR)

    assert num_lora_params(language_model("33b"), lora) == 60 * 64 * per_block == 487_587_840


def test_the_projector_at_33b_by_hand() -> None:
    # 1024 -> 6656 with a bias
    expected = 1024 * 6656 + 6656

    assert num_projector_params(language_model("33b"), vision_tower("336px")) == expected


def test_grouped_queries_have_smaller_keys_and_values() -> None:
    lora = LoraSpec(rank=1, alpha=1, dropout=0.0, targets=["k_proj", "v_proj"])

    # 70B: 8 of 64 heads, so 8192 -> 1024
    assert num_lora_params(language_model("70b"), lora) == 80 * 2 * (8192 + 1024)


def test_a_whole_model_is_the_sum_of_its_parts() -> None:
    model, tower = language_model("mini_s"), vision_tower("32px")

    assert num_params(model, None) == num_language_model_params(model)
    assert num_params(None, tower) == num_vision_tower_params(tower)
    assert num_params(model, tower) == (
        num_params(model, None) + num_params(None, tower) + num_projector_params(model, tower)
    )
