"""Adapters of LoRA and QLoRA (conf/lora/)."""

from __future__ import annotations

from dataclasses import dataclass, field

from scalesweep.config.checks import at_least, fraction, positive, require

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""All linear layers of a LLaMA block."""


@dataclass(kw_only=True)
class LoraConfig:
    """Low-rank adapters. All null under tuning=full."""

    rank: int | None = None
    alpha: float | None = None
    """Scale: the update is alpha / rank x B A. The paper: 2 x rank."""
    dropout: float | None = None
    """Of the adapter's input, in training."""
    targets: list[str] = field(default_factory=list)
    """Linear layers of the language model that get an adapter."""

    def __post_init__(self) -> None:
        at_least(1, rank=("lora.rank", self.rank))
        positive("lora.alpha", self.alpha)
        fraction("lora.dropout", self.dropout)
        for target in self.targets:
            require(
                target in LINEAR_LAYERS,
                "lora.targets",
                target,
                f"choose from {', '.join(LINEAR_LAYERS)}",
            )
