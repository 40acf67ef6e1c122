"""AdamW and its learning rate over time."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from scalesweep.specs import OptimSpec


def warmup_steps(optim: OptimSpec, *, num_steps: int) -> int:
    """Steps in which the learning rate rises; a ratio is of all steps, rounded up."""
    if optim.warmup_steps is not None:
        return optim.warmup_steps
    assert optim.warmup_ratio is not None, "a checked OptimSpec has one of the two"
    return math.ceil(optim.warmup_ratio * num_steps)


def learning_rate(optim: OptimSpec, *, step: int, num_steps: int) -> float:
    """Learning rate of a step, counted from 0.

    Warm-up: (step + 1) / warmup of the highest, so that the first step learns something too. After
    it constant, linear to 0, or half a cosine to 0, over the steps that are left.
    """
    warm = warmup_steps(optim, num_steps=num_steps)
    if step < warm:
        return optim.lr * (step + 1) / warm
    progress = (step - warm) / max(1, num_steps - warm)
    if optim.schedule == "constant":
        return optim.lr
    if optim.schedule == "linear":
        return optim.lr * (1 - progress)
    return optim.lr * (0.5 + 0.5 * math.cos(math.pi * progress))


def adamw(parameters: Iterable[nn.Parameter], optim: OptimSpec) -> torch.optim.Optimizer:
    """AdamW over what learns. Fused: one pass over memory, on CPU and on CUDA alike."""
    return torch.optim.AdamW(
        list(parameters),
        lr=optim.lr,
        betas=(optim.betas[0], optim.betas[1]),
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        fused=True,
    )
