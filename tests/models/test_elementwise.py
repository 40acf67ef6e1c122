"""Compiled norms, rotations and gates are those of transformers."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaRMSNorm, rotate_half

from scalesweep.models.elementwise import fuse_elementwise, gated, rms_norm, rotary
from scalesweep.models.recompute import Recompute, recompute_activations


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_plain_functions_equal_those_of_transformers_bit_for_bit(dtype: torch.dtype) -> None:
    norm = LlamaRMSNorm(16, eps=1e-5).to(dtype)
    x, up = drawn(2, 3, 16).to(dtype), drawn(2, 3, 16, seed=2).to(dtype)
    cos, sin = drawn(2, 1, 3, 16, seed=3).to(dtype), drawn(2, 1, 3, 16, seed=4).to(dtype)
    heads = drawn(2, 4, 3, 16, seed=5).to(dtype)

    assert torch.equal(rms_norm(x, norm.weight, 1e-5), norm(x))
    assert torch.equal(gated(x, up), torch.nn.functional.silu(x) * up)
    assert torch.equal(rotary(heads, cos, sin), heads * cos + rotate_half(heads) * sin)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own doings
@pytest.mark.skipif(shutil.which("cc") is None, reason="torch.compile needs a C compiler")
@pytest.mark.parametrize("recompute", list(Recompute), ids=str)
def test_a_fused_model_gives_the_same_states_and_gradients(
    recompute: Recompute, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What fusing replaces in transformers' module is put back after the test.
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", modeling_llama.apply_rotary_pos_emb)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=4, initializer_range=0.3)  # fmt: skip
    model = LlamaModel(config).train()
    direction = drawn(1, 9, 32, seed=2)

    def learned() -> tuple[Tensor, list[Tensor]]:
        model.zero_grad()
        hidden = model(inputs_embeds=drawn(1, 9, 32), use_cache=False).last_hidden_state
        (hidden * direction).sum().backward()
        return hidden.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    expected = learned()
    fuse_elementwise(model)
    recompute_activations(model, recompute)
    found = learned()

    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    for ours, plain in zip(found[1], expected[1], strict=True):
        assert (ours - plain).abs().max() <= 1e-5 * plain.abs().max()
