"""Do packed samples see one another? Asked of the real model before the first step.

Attention implementations change between versions of transformers, and a leak is silent: losses
still fall, and every number is a little wrong. So two samples are packed, one is changed, and the
other must not notice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scalesweep.errors import StageError

LENGTH = 12
"""Tokens of each of the two samples: enough for any leak, and hardly any time."""


def refuse_leakage(task: Any, *, vocab_size: int, picture_side: int | None) -> None:
    """Pack two samples and compare each alone, and beside another neighbour.

    Every rank calls it: under ZeRO-3 the passes gather weights. Takes no random number and leaves
    no gradient.

    Raises:
        StageError: a sample's hidden states depend on its neighbour, or on being packed.
    """
    first, other, second = _tokens(vocab_size)
    device = next(task.parameters()).device
    pixels = torch.zeros(0, device=device)
    if picture_side is not None:
        shape = (1, 3, picture_side, picture_side)
        pixels = torch.zeros(shape, dtype=torch.uint8, device=device)

    def hidden(*samples: Tensor) -> Tensor:
        row = torch.cat(samples).unsqueeze(0).to(device)
        lengths = tuple(len(sample) for sample in samples)
        with torch.no_grad():
            found: Tensor = task.hidden_states(row, pixels, 0, lengths)
        return found[0]

    was_training = task.training
    task.eval()  # no dropout: the same tokens must give the same numbers
    packed, changed = hidden(first, second), hidden(other, second)
    alone = torch.cat([hidden(first), hidden(second)])
    task.train(was_training)
    dtype = packed.dtype
    packed, changed, alone = packed.float(), changed.float(), alone.float()
    # Shapes are the same and only the neighbour differs: not one bit may change.
    leak = float((packed[LENGTH:] - changed[LENGTH:]).abs().max())
    # Other shapes may take other kernels: roundings, and no more.
    shift = float((packed - alone).norm() / alone.norm())
    allowed = max(1e-4, 32 * torch.finfo(dtype).eps)
    if leak > 0 or not shift <= allowed:
        raise StageError(
            f"packed samples are not kept apart: changing one moves the other's hidden states by "
            f"{leak:.3g}, packing moves them by {shift:.3g} of their norm (allowed {allowed:.1g}); "
            "this version "
            "of transformers or of the attention kernel cannot be trusted: take "
            "kernels.attention=sdpa, or padded rows (batch.micro_batch_tokens=null "
            "batch.micro_batch_size=8)"
        )


def _tokens(vocab_size: int) -> tuple[Tensor, Tensor, Tensor]:
    steps = torch.arange(LENGTH)
    return tuple((7 + k * (steps + 1)) % vocab_size for k in (3, 5, 11))  # type: ignore[return-value]
