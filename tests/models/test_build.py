"""LLaVA of stock classes: its two-layer projector is the paper's linear one, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlavaForConditionalGeneration

from scalesweep.errors import StageError
from scalesweep.models.build import (
    assemble_llava,
    check_linear_projector,
    linear_projector,
    load_language_model,
    load_projector,
    load_vision_tower,
)
from tests.train.small_stages import PATHS, model_spec, tower_spec


def llava(seed: int = 0) -> LlavaForConditionalGeneration:
    return assemble_llava(
        load_language_model(model_spec(), Path(PATHS["language_model"]), dtype=torch.float32),
        load_vision_tower(tower_spec(), Path(PATHS["vision_tower"]), dtype=torch.float32),
        tower_spec(),
        image_token_id=4,
        seed=seed,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_projector_is_one_linear_layer_to_the_last_bit(dtype: torch.dtype) -> None:
    projector = linear_projector(llava().config, dtype=dtype, seed=1)
    torch.nn.init.normal_(projector.linear_1.bias)
    features = torch.randn(3, 16, 64, dtype=dtype)

    linear = torch.nn.functional.linear(
        features, projector.linear_1.weight, projector.linear_1.bias
    )

    assert torch.equal(projector(features), linear)


def test_a_fresh_projector_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = llava(seed=5).model.multi_modal_projector.linear_1.weight
    torch.manual_seed(2)
    same = llava(seed=5).model.multi_modal_projector.linear_1.weight
    other = llava(seed=6).model.multi_modal_projector.linear_1.weight

    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.std().item() == pytest.approx(64**-0.5, rel=0.1)


def test_nothing_is_copied_when_parts_become_llava() -> None:
    language_model = load_language_model(
        model_spec(), Path(PATHS["language_model"]), dtype=torch.float32
    )
    tower = load_vision_tower(tower_spec(), Path(PATHS["vision_tower"]), dtype=torch.float32)

    model = assemble_llava(language_model, tower, tower_spec(), image_token_id=4, seed=0)

    assert model.lm_head.weight is language_model.lm_head.weight
    assert model.model.vision_tower is tower
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_the_tower_gives_one_feature_a_patch() -> None:
    features = (
        llava().model.get_image_features(torch.zeros(2, 3, 32, 32), return_dict=True).pooler_output
    )

    assert [tuple(one.shape) for one in features] == [(16, 32)] * 2  # without the class token


def test_an_mlp_projector_is_refused() -> None:
    model = llava()
    check_linear_projector(model)
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight[0, 1] = 0.5

    with pytest.raises(StageError, match="linear_2 is not the identity"):
        check_linear_projector(model)


def test_a_second_layer_with_a_bias_is_refused() -> None:
    model = llava()
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.bias[0] = 0.5

    with pytest.raises(StageError, match="linear_2 is not the identity"):
        check_linear_projector(model)


def test_a_projector_of_another_model_is_refused(tmp_path: Path) -> None:
    state = {"linear_1.weight": torch.zeros(64, 64), "linear_1.bias": torch.zeros(64)}
    save_file(state, tmp_path / "projector.safetensors")

    with pytest.raises(StageError, match="does not fit the projector"):
        load_projector(llava(), tmp_path / "projector.safetensors")


@pytest.mark.parametrize("content", [None, b"not safetensors"])
def test_a_projector_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "projector.safetensors").write_bytes(content)

    with pytest.raises(StageError, match="does not fit the projector"):
        load_projector(llava(), tmp_path / "projector.safetensors")
