"""How DeepSpeed shards training states (conf/zero/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import require


@dataclass(kw_only=True)
class ZeroConfig:
    """ZeRO of the tune stage. Not part of the key: it changes memory and speed."""

    stage: int
    """0: nothing sharded, 1: optimizer states, 2: and gradients, 3: and weights."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass instead of keeping them."""

    def __post_init__(self) -> None:
        require(self.stage in (0, 1, 2, 3), "zero.stage", self.stage, "choose 0, 1, 2 or 3")
