"""How large pictures are, and the vision tower that sees them (conf/resolution/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import at_least, require


@dataclass(kw_only=True)
class ResolutionConfig:
    """A CLIP vision tower at one picture size."""

    name: str
    miniature: bool
    pixels: int
    """Side of the square picture the tower sees."""
    patch_size: int
    """Side of one patch in pixels; (pixels / patch_size)^2 image tokens a picture."""
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    feature_layer: int
    """hidden_states index whose patch features go to the projector; -2 in the paper."""
    weights: str
    """Declared identity, part of the key: hub:owner/name@revision or sha256:<folder digest>."""
    path: str | None = None
    """Folder with the weights on this machine; null: in the hub's cache, for hub:... ones."""
    blind: bool = False
    """Every pixel is zero, in training and in answering: the blind baseline."""
    licence: str = ""
    """Of the tower's weights, for people; empty: not known here."""
    source: str = ""
    """Where they come from and how to get them, for people."""

    def __post_init__(self) -> None:
        for name in ("pixels", "patch_size", "hidden_size", "num_layers", "num_heads"):
            at_least(1, value=(f"resolution.{name}", getattr(self, name)))
        require(
            self.pixels % self.patch_size == 0,
            "resolution.pixels",
            self.pixels,
            f"must be a multiple of resolution.patch_size={self.patch_size}; the next is "
            f"{(self.pixels // self.patch_size + 1) * self.patch_size}",
        )
        require(
            -self.num_layers <= self.feature_layer < 0,
            "resolution.feature_layer",
            self.feature_layer,
            f"counts from the last layer: -1 to -{self.num_layers}; the paper takes -2",
        )
