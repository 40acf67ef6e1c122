"""How DeepSpeed shards training states (conf/zero/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import one_of, require


@dataclass(kw_only=True)
class ZeroConfig:
    """ZeRO of the tune stage. Not part of the key: it changes memory and speed."""

    stage: int
    """0: nothing sharded, 1: optimizer states, 2: and gradients, 3: and weights."""
    gradient_checkpointing: str
    """Activations computed again in the backward pass: none | selective (all but matrix products
    and attention) | full (all but the layers' inputs)."""

    def __post_init__(self) -> None:
        require(self.stage in (0, 1, 2, 3), "zero.stage", self.stage, "choose 0, 1, 2 or 3")
        one_of(
            "zero.gradient_checkpointing",
            self.gradient_checkpointing,
            ("none", "selective", "full"),
        )
