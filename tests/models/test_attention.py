"""Attention over packed sequences is that of each sequence alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from scalesweep.errors import StageError
from scalesweep.models.attention import (
    MOST_PADDING,
    NAME,
    Kernel,
    best_kernel,
    chosen_kernel,
    like_lengths,
    packed_sequences,
    use_packed_attention,
)

LENGTHS = (7, 1, 30, 28, 3, 7)


def llama(num_kv_heads: int = 4, **changes: Any) -> LlamaModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=num_kv_heads,
        initializer_range=0.3,
        **changes,
    )
    model = LlamaModel(config).eval()
    use_packed_attention(model)
    return model


def packed(lengths: tuple[int, ...]) -> Any:
    return packed_sequences(lengths, device=torch.device("cpu"), kernel=Kernel.sdpa)


def hidden_of(model: LlamaModel, embedded: Tensor, lengths: tuple[int, ...]) -> Tensor:
    sequences = packed(lengths)
    out = model(
        inputs_embeds=embedded,
        position_ids=sequences.position_ids(),
        use_cache=False,
        packed=sequences,
    )
    found: Tensor = out.last_hidden_state
    return found


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_packed_sequences_give_the_states_and_gradients_of_each_alone(num_kv_heads: int) -> None:
    model = llama(num_kv_heads)
    embedded = torch.randn(1, sum(LENGTHS), 32, generator=torch.Generator().manual_seed(1))
    together, alone = (embedded.clone().requires_grad_() for _ in range(2))

    ours = hidden_of(model, together, LENGTHS)
    model.config._attn_implementation_internal = "eager"  # transformers' own, and nothing packed
    for layer in model.layers:
        layer.self_attn.config._attn_implementation_internal = "eager"
    parts = [model(inputs_embeds=x, use_cache=False).last_hidden_state
             for x in alone.split(LENGTHS, dim=1)]  # fmt: skip
    expected = torch.cat(parts, dim=1)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    for out in (ours, expected):
        (out * direction).sum().backward()

    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert together.grad is not None
    assert alone.grad is not None
    assert (together.grad - alone.grad).abs().max() <= 1e-5 * alone.grad.abs().max()


def test_transformers_alone_would_leak_with_a_cache() -> None:
    """What the seam is for: the stock path mixes packed samples as soon as a cache is passed."""
    model = LlamaModel(llama().config).eval()
    model.set_attn_implementation("sdpa")
    position_ids = packed((5, 6)).position_ids()
    embedded = torch.randn(1, 11, 32)
    changed = embedded.clone()
    changed[:, :5] += 1.0

    def second(x: Tensor, *, use_cache: bool) -> Tensor:
        out = model(inputs_embeds=x, position_ids=position_ids, use_cache=use_cache)
        found: Tensor = out.last_hidden_state[:, 5:]
        return found

    assert torch.equal(second(embedded, use_cache=False), second(changed, use_cache=False))
    assert not torch.allclose(second(embedded, use_cache=True), second(changed, use_cache=True))


def test_plain_rows_are_what_they_were() -> None:
    model = llama()
    embedded = torch.randn(3, 9, 32)
    ours = model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    model.set_attn_implementation("sdpa")

    assert torch.equal(ours, model(inputs_embeds=embedded, use_cache=False).last_hidden_state)


def test_a_mask_beside_packed_sequences_is_refused() -> None:
    model = llama()
    sequences = packed((4, 5))

    with pytest.raises(StageError, match="neither an attention mask"):
        model(
            inputs_embeds=torch.randn(1, 9, 32),
            attention_mask=torch.tensor([[1] * 8 + [0]]),
            use_cache=False,
            packed=sequences,
        )


def test_positions_begin_anew_in_every_sequence() -> None:
    assert packed((3, 1, 2)).position_ids().tolist() == [[0, 1, 2, 0, 0, 1]]


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_groups_hold_every_sequence_once_and_little_padding(lengths: list[int]) -> None:
    groups = like_lengths(lengths)

    assert sorted(number for group in groups for number in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[number] for number in group)
        assert all(lengths[number] >= (1 - MOST_PADDING) * longest for number in group)


def test_a_cpu_takes_sdpa_and_refuses_what_needs_a_gpu_by_name() -> None:
    assert best_kernel("cpu", torch.float32) is Kernel.sdpa
    assert chosen_kernel("auto", "cpu", torch.bfloat16) is Kernel.sdpa
    with pytest.raises(StageError, match=r"kernels.attention=varlen: needs a CUDA device; take"):
        chosen_kernel("varlen", "cpu", torch.bfloat16)


def test_only_the_language_model_takes_the_seam() -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    tower = CLIPVisionModel(CLIPVisionConfig(hidden_size=16, intermediate_size=16,
                            num_hidden_layers=1, num_attention_heads=2, image_size=16,
                            patch_size=8, projection_dim=16))  # fmt: skip
    use_packed_attention(tower)

    assert tower.config._attn_implementation != NAME


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_the_kernels_of_a_gpu_agree_with_sdpa(num_kv_heads: int) -> None:
    device = torch.device("cuda")
    model = llama(num_kv_heads, head_dim=64).to(device, torch.bfloat16)
    embedded = torch.randn(1, sum(LENGTHS), 32, device=device, dtype=torch.bfloat16)
    direction = torch.randn(embedded.shape, device=device)
    found = {}
    for kernel in {Kernel.sdpa, best_kernel(device, torch.bfloat16)}:
        sequences = packed_sequences(LENGTHS, device=device, kernel=kernel)
        inputs = embedded.clone().requires_grad_()
        states = model(inputs_embeds=inputs, position_ids=sequences.position_ids(),
                       use_cache=False, packed=sequences).last_hidden_state  # fmt: skip
        (states.float() * direction).sum().backward()
        found[kernel] = states.detach(), inputs.grad

    for states, gradient in found.values():
        for ours, plain in zip((states, gradient), found[Kernel.sdpa], strict=True):
            assert (ours - plain).norm() <= 0.03 * plain.norm()
