"""Optimizer and schedule of stage 2 (conf/optim/); the same schema serves stage 1 and bases."""

from __future__ import annotations

from dataclasses import dataclass, field

from scalesweep.config.checks import (
    at_least,
    exactly_one,
    fraction,
    not_negative,
    one_of,
    positive,
    require,
)

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(kw_only=True)
class OptimConfig:
    """AdamW with a linear warm-up and then a constant, linear or cosine learning rate."""

    lr: float
    """Highest learning rate."""
    schedule: str
    """constant | linear | cosine, after the warm-up."""
    warmup_ratio: float | None = None
    """Share of all steps, rounded up."""
    warmup_steps: int | None = None
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    max_grad_norm: float = 1.0
    """Global norm that gradients are clipped to; 0: no clipping."""
    epochs: float | None = None
    """Passes over the data."""
    max_steps: int | None = None

    def check(self, prefix: str) -> None:
        """Refuse values out of range; prefix is the dotted key of this node."""
        positive(f"{prefix}.lr", self.lr)
        one_of(f"{prefix}.schedule", self.schedule, SCHEDULES)
        exactly_one(
            ratio=(f"{prefix}.warmup_ratio", self.warmup_ratio),
            steps=(f"{prefix}.warmup_steps", self.warmup_steps),
        )
        fraction(f"{prefix}.warmup_ratio", self.warmup_ratio)
        at_least(0, steps=(f"{prefix}.warmup_steps", self.warmup_steps))
        not_negative(f"{prefix}.weight_decay", self.weight_decay)
        require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"{prefix}.betas",
            self.betas,
            "must be two numbers, each at least 0 and below 1",
        )
        positive(f"{prefix}.eps", self.eps)
        not_negative(f"{prefix}.max_grad_norm", self.max_grad_norm)
        exactly_one(
            epochs=(f"{prefix}.epochs", self.epochs),
            steps=(f"{prefix}.max_steps", self.max_steps),
        )
        positive(f"{prefix}.epochs", self.epochs)
        at_least(1, steps=(f"{prefix}.max_steps", self.max_steps))
