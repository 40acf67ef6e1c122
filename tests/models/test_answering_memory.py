"""What an answering model takes, by hand and by counting the weights of the real classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.errors import PlanError
from scalesweep.models.answering_memory import (
    RESERVE_BYTES,
    activation_bytes,
    cache_bytes,
    device_bytes,
    devices_needed,
    divided,
    layer_bytes,
)
from scalesweep.models.build import clip_config, llama_config, llava_config
from scalesweep.models.loading import OnDevice
from scalesweep.models.quantization import FourBit
from scalesweep.models.replica import Replica
from scalesweep.models.split import Split
from scalesweep.specs import LanguageModelSpec, Method, Precision, VisionTowerSpec
from tests.train.small_stages import model_spec

LLAMA_65B = LanguageModelSpec(
    name="65b",
    hidden_size=8192,
    intermediate_size=22016,
    num_layers=80,
    num_heads=64,
    num_kv_heads=64,
    vocab_size=32000,
    max_position_embeddings=2048,
    template="vicuna_v1",
    weights="random",
    tokenizer="random",
)
LLAMA_70B = replace(LLAMA_65B, name="70b", intermediate_size=28672, num_kv_heads=8)
CLIP_L = VisionTowerSpec(
    name="clip_224px",
    hidden_size=1024,
    intermediate_size=4096,
    num_layers=24,
    num_heads=16,
    patch_size=14,
    image_size=224,
    feature_layer=-2,
    weights="random",
)
A100 = 85e9
"""Bytes of an A100-80GB."""
BF16: dict[str, Any] = {"method": Method.full, "precision": Precision.bf16}


def test_a_layer_of_65b_takes_1_6_gb_in_bf16() -> None:
    # 4 x 8192^2 + 3 x 8192 x 22016 + 2 x 8192 = 809,517,056 weights
    assert layer_bytes(LLAMA_65B, **BF16) == 2 * 809_517_056


def test_a_4_bit_layer_takes_half_a_byte_a_weight_and_its_adapters_fp32() -> None:
    size = layer_bytes(LLAMA_65B, method=Method.qlora, precision=Precision.bf16, adapter_rank=64)

    # 809,500,672 x 4.127 / 8 + norms 2 x 8192 x 2; adapters 64 x (4 x 16384 + 3 x 30208) x 4
    assert size == pytest.approx(417_601_159 + 32_768 + 39_976_960)


def test_the_cache_of_a_layer_is_two_vectors_a_token() -> None:
    sizes = {
        name: cache_bytes(model, precision=Precision.bf16, rows=16, context_tokens=1000)
        for name, model in {"65b": LLAMA_65B, "70b": LLAMA_70B}.items()
    }

    assert sizes["65b"] == 2 * 8192 * 1000 * 16 * 2
    assert sizes["70b"] == sizes["65b"] / 8  # 8 key-value heads instead of 64


def test_parts_are_as_even_as_whole_layers_allow() -> None:
    division = divided(LLAMA_65B, CLIP_L, **BF16, parts=2)

    # Both ends have a matrix of 0.52 GB; the first has tower (0.61) and projector (0.15) besides,
    # less than the 1.6 GB of a layer.
    assert [len(layers) for layers in division.layers] == [40, 40]
    first, last = (size / 1e9 for size in division.weight_bytes)
    assert first == pytest.approx(40 * 1.61903 + 0.524 + 0.607 + 0.151, abs=2e-3)
    assert last == pytest.approx(40 * 1.61903 + 0.524, abs=2e-3)


def test_a_small_model_with_a_large_vocabulary_gives_its_layers_to_the_middle() -> None:
    model = model_spec(num_layers=8, vocab_size=4000)

    division = divided(model, None, method=None, precision=Precision.fp32, parts=3)

    assert [list(layers) for layers in division.layers] == [[0], [1, 2, 3, 4, 5, 6], [7]]


def test_more_parts_than_layers_are_refused() -> None:
    with pytest.raises(PlanError, match=r"mini_xs has 2 layers: it cannot be split over 3 devices"):
        divided(model_spec(), None, method=None, precision=Precision.fp32, parts=3)


@pytest.mark.parametrize(
    ("model", "batch_size", "num_beams", "context_tokens", "expected"),
    [
        # Two devices: 40 layers 64.8 + ends 1.3 + cache 40 x 8 x 1000 x 32,768 = 10.5
        # + activations 8 x 1000 x 98,816 x 2 = 1.6 + a layer's cache 0.3 + 2: 80.4 of 80.75 GB
        (LLAMA_65B, 8, 1, 1000, 2),
        (LLAMA_65B, 9, 1, 1000, 3),
        # the same rows as beams
        (LLAMA_65B, 1, 8, 1000, 2),
        (LLAMA_65B, 1, 9, 1000, 3),
        # grouped queries: the cache is an eighth, the weights are 138 GB
        (LLAMA_70B, 9, 1, 1000, 2),
    ],
)
def test_65b_in_bf16_takes_two_or_three_a100(
    model: LanguageModelSpec, batch_size: int, num_beams: int, context_tokens: int, expected: int
) -> None:
    found = devices_needed(
        model,
        CLIP_L,
        **BF16,
        batch_size=batch_size,
        num_beams=num_beams,
        context_tokens=context_tokens,
        device_memory_bytes=A100,
    )

    assert found == expected


# 80 layers 36.6 + ends 1.8 + cache 80 x 14 x 1000 x 32,768 = 36.7 + activations 2.8 + a layer's
# cache 0.5 + 2: 80.4 of 80.75 GB
@pytest.mark.parametrize(("batch_size", "expected"), [(14, 1), (15, 2)])
def test_qlora_of_65b_answers_on_one_a100(batch_size: int, expected: int) -> None:
    found = devices_needed(
        LLAMA_65B,
        CLIP_L,
        method=Method.qlora,
        precision=Precision.bf16,
        batch_size=batch_size,
        context_tokens=1000,
        device_memory_bytes=A100,
    )

    assert found == expected


def test_of_a_batch_that_no_number_of_devices_can_hold_none_is_known() -> None:
    settings = {"context_tokens": 2048, "device_memory_bytes": A100}

    assert devices_needed(LLAMA_65B, CLIP_L, **BF16, batch_size=512, **settings) is None


def test_a_device_takes_its_part_its_cache_activations_and_the_reserve() -> None:
    settings: dict[str, Any] = {"precision": Precision.bf16}
    need = device_bytes(
        LLAMA_65B, CLIP_L, **BF16, batch_size=2, num_beams=3, context_tokens=100, parts=4
    )

    division = divided(LLAMA_65B, CLIP_L, **BF16, parts=4)
    assert [len(layers) for layers in division.layers] == [20, 20, 20, 20]
    cache = 20 * cache_bytes(LLAMA_65B, **settings, rows=6, context_tokens=100)
    moment = activation_bytes(LLAMA_65B, **settings, rows=6, context_tokens=100)
    assert need == division.weight_bytes[0] + cache + moment + RESERVE_BYTES


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("method", [Method.full, Method.qlora])
@pytest.mark.parametrize("tied", [False, True])
def test_the_parts_weigh_what_the_real_classes_weigh(
    parts: int, method: Method, tied: bool
) -> None:
    model = replace(LLAMA_70B, num_layers=7, tie_word_embeddings=tied)
    division = divided(
        model, CLIP_L, method=method, precision=Precision.bf16, parts=parts, adapter_rank=0
    )

    for rank, expected in enumerate(division.weight_bytes):
        counted = counted_bytes(model, method, Replica(rank=rank, size=parts), division.layers)
        assert counted == pytest.approx(expected, rel=1e-6)


def counted_bytes(
    model: LanguageModelSpec, method: Method, replica: Replica, layers: tuple[range, ...]
) -> float:
    """Bytes of one rank's part of the stock class, built on meta tensors."""
    text = llama_config(model, tokenizer=miniature_tokenizer())
    config = llava_config(text, clip_config(CLIP_L), CLIP_L, image_token_id=4)
    for part in (config, text, config.vision_config):
        part.dtype = torch.bfloat16
    cpu = torch.device("cpu")
    inner = FourBit(cpu, torch.bfloat16) if method is Method.qlora else OnDevice(cpu)
    with torch.device("meta"):
        llava = LlavaForConditionalGeneration(config)
        Split(inner, replica, layers).prepare(llava)
    four_bit = {
        id(module.weight)
        for module in llava.modules()
        if type(module) is not nn.Linear and isinstance(module, nn.Linear)
    }
    return sum(
        weight.numel() * (4.127 / 8 if id(weight) in four_bit else 2)
        for weight in llava.parameters()
    )
