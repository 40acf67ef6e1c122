"""Norms, rotations and gates of the language model as single kernels (kernels.compile).

Eager PyTorch runs RMSNorm, the rotary embedding and SiLU times up as some twenty passes over memory
a layer. torch.compile fuses each into one. Only these functions are compiled, never whole modules:
DeepSpeed's hooks, adapters and 4-bit layers stay as they are. It needs a C compiler on the node,
and Triton on a GPU, so it is off unless asked for.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn
from transformers.models.llama import modeling_llama


def fuse_elementwise(language_model: nn.Module) -> None:
    """Compile the element-wise parts of every layer of a LLaMA, in place."""
    for module in language_model.modules():
        name = type(module).__name__
        if name == "LlamaRMSNorm":
            module.forward = types.MethodType(_norm, module)
        elif name == "LlamaMLP":
            module.forward = types.MethodType(_mlp, module)
    # The rotation is a function of transformers' module; the compiled one computes the same.
    modeling_llama.apply_rotary_pos_emb = _rotated


def _norm(module: Any, hidden_states: Tensor) -> Tensor:
    return _compiled("rms_norm")(hidden_states, module.weight, module.variance_epsilon)


def _mlp(module: Any, x: Tensor) -> Tensor:
    out: Tensor = module.down_proj(_compiled("gated")(module.gate_proj(x), module.up_proj(x)))
    return out


def _rotated(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    rotate = _compiled("rotary")
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return rotate(q, cos, sin), rotate(k, cos, sin)


def rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps), in fp32, times weight (arXiv:1910.07467): [..., D]."""
    wide = hidden.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(hidden.dtype)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """SwiGLU (arXiv:2002.05202): silu(gate) * up, [..., F]."""
    return F.silu(gate) * up


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv:2104.09864): x [B, H, T, D], cos and sin [B, 1, T, D]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


@functools.cache
def _compiled(name: str) -> Callable[..., Tensor]:
    functions: dict[str, Callable[..., Tensor]] = {
        "rms_norm": rms_norm,
        "gated": gated,
        "rotary": rotary,
    }
    # dynamic: every micro-batch has another number of tokens.
    return torch.compile(functions[name], dynamic=True)
