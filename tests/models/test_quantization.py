"""The 4-bit base holds exactly what transformers' own quantisation holds, where it should."""

from __future__ import annotations

from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from torch import nn
from transformers import (
    BitsAndBytesConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
)

from scalesweep.errors import StageError
from scalesweep.models.build import assemble_llava, load_language_model, load_vision_tower
from scalesweep.models.quantization import FourBit, check_quantized, quantize_language_model
from tests.train.small_stages import PATHS, model_spec, tower_spec


def llava(*, quantised: bool = True) -> LlavaForConditionalGeneration:
    model = assemble_llava(
        load_language_model(model_spec(), Path(PATHS["language_model"]), dtype=torch.float32),
        load_vision_tower(tower_spec(), Path(PATHS["vision_tower"]), dtype=torch.float32),
        tower_spec(),
        image_token_id=4,
        seed=0,
    )
    if quantised:
        quantize_language_model(model, compute_dtype=torch.float32)
    return model


def values(layer: nn.Module) -> torch.Tensor:
    """What a 4-bit layer computes with."""
    return dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def test_all_linear_layers_of_the_language_model_and_no_others_are_4_bit() -> None:
    kinds = {
        name: type(module)
        for name, module in llava().named_modules()
        if isinstance(module, nn.Linear)
    }

    four_bit = {name for name, kind in kinds.items() if kind is bnb.nn.Linear4bit}
    assert four_bit == {name for name in kinds if "language_model" in name}
    assert len(four_bit) == 2 * 7
    assert kinds["lm_head"] is nn.Linear


def test_the_form_is_nf4_with_double_quantisation() -> None:
    layer = llava().model.language_model.layers[0].mlp.up_proj

    state = layer.weight.quant_state
    assert state.quant_type == "nf4"
    assert state.nested  # the scales are quantised too
    assert state.blocksize == 64
    assert layer.weight.data.dtype == torch.uint8
    assert layer.weight.data.numel() == 32 * 96 // 2  # two weights a byte
    assert layer.compute_dtype == torch.float32
    assert not layer.weight.requires_grad


def test_values_equal_those_of_transformers_own_quantisation() -> None:
    theirs = LlamaForCausalLM.from_pretrained(
        PATHS["language_model"],
        dtype=torch.float32,
        device_map="cpu",
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )

    ours = llava().model.language_model
    layers = {n: m for n, m in theirs.model.named_modules() if isinstance(m, bnb.nn.Linear4bit)}
    assert len(layers) == 2 * 7
    for name, layer in layers.items():
        assert torch.equal(values(ours.get_submodule(name)), values(layer)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_quantised_as_they_are_read_are_those_of_a_whole_model(dtype: torch.dtype) -> None:
    whole, read = (
        LlamaForCausalLM.from_pretrained(PATHS["language_model"], dtype=dtype),
        load_language_model(
            model_spec(),
            Path(PATHS["language_model"]),
            dtype=dtype,
            placement=FourBit(torch.device("cpu"), dtype),
        ),
    )
    llavas = []
    for language_model in (whole, read):
        llavas.append(
            assemble_llava(
                language_model,
                load_vision_tower(tower_spec(), Path(PATHS["vision_tower"]), dtype=dtype),
                tower_spec(),
                image_token_id=4,
                seed=0,
            )
        )
        quantize_language_model(llavas[-1], compute_dtype=dtype)

    one, other = (dict(model.named_modules()) for model in llavas)
    states = [model.state_dict() for model in llavas]  # with all parts of each quant state
    assert list(states[0]) == list(states[1])
    assert sum("quant_state" in name for name in states[0]) == 2 * 7
    for name, value in states[0].items():
        assert value.dtype == states[1][name].dtype
        assert torch.equal(value, states[1][name]), name
    for name, layer in one.items():
        assert type(other[name]) is type(layer)
        if isinstance(layer, bnb.nn.Linear4bit):
            assert layer.compute_dtype == other[name].compute_dtype == dtype


def test_values_are_near_the_original_ones() -> None:
    before, after = (m.model.language_model for m in (llava(quantised=False), llava()))

    for name, layer in after.named_modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            weight = before.get_submodule(name).weight
            # NF4's widest gap is 0.31 of a block's largest value
            assert (values(layer) - weight).abs().max() <= 0.16 * weight.abs().max(), name


def test_a_layer_that_stayed_whole_is_refused() -> None:
    model = llava()
    model.model.language_model.layers[1].mlp.up_proj = nn.Linear(32, 96)

    with pytest.raises(StageError, match=r"layers\.1\.mlp\.up_proj is Linear"):
        check_quantized(model)


def test_a_quantised_tower_is_refused() -> None:
    model = llava()
    attention = model.model.vision_tower.encoder.layers[0].self_attn
    attention.q_proj = bnb.nn.Linear4bit(64, 64, quant_type="nf4")

    with pytest.raises(StageError, match=r"vision_tower\.encoder.*q_proj is Linear4bit"):
        check_quantized(model)


def test_a_4_bit_layer_that_was_never_quantised_is_refused() -> None:
    model = llava()
    model.model.language_model.layers[0].mlp.up_proj = bnb.nn.Linear4bit(32, 96, quant_type="nf4")

    with pytest.raises(StageError, match="up_proj is not quantised"):
        check_quantized(model)
