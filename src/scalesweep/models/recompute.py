"""Which activations of the language model are kept for the backward pass, and which computed again.

none       all are kept
selective  results of matrix products and attention are kept; norms, rotations and products of
           elements are computed again: about two thirds of the memory, hardly any more time
full       only each layer's input is kept; its whole forward pass runs again
"""

from __future__ import annotations

import enum
import functools
from typing import Any

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)


class Recompute(enum.StrEnum):
    """zero.gradient_checkpointing"""

    none = "none"
    selective = "selective"
    full = "full"


def recompute_activations(language_model: Any, mode: Recompute) -> None:
    """Set how the layers of a LLaMA keep their activations while training."""
    if mode is Recompute.none:
        return
    keep: dict[str, Any] = {}
    if mode is Recompute.selective:
        keep["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)
    # Non-reentrant: frozen embeddings need no gradient, and hooks of ZeRO-3 run as they should.
    function = functools.partial(checkpoint, use_reentrant=False, **keep)
    for layer in language_model.layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = function


_KEPT = frozenset(
    {
        torch.ops.aten.mm.default,
        torch.ops.aten.addmm.default,
        torch.ops.aten.bmm.default,
        torch.ops.aten._scaled_dot_product_flash_attention.default,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
        torch.ops.aten._scaled_dot_product_efficient_attention.default,
        torch.ops.aten._scaled_dot_product_cudnn_attention.default,
        torch.ops.aten._flash_attention_forward.default,
    }
)


def _policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    del context, args, kwargs
    name = str(op)
    if op in _KEPT or name.startswith(("torch_attn._varlen_attn", "flash_attn._flash_attn")):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
