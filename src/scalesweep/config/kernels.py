"""Which kernels training runs on (conf/kernels/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import one_of

ATTENTION = ("auto", "flash_attn", "varlen", "sdpa")


@dataclass(kw_only=True)
class KernelsConfig:
    """Kernels of the base, align and tune stages. Not part of the key: they change speed."""

    attention: str
    """Over packed samples: auto (the fastest that is there) | flash_attn | varlen | sdpa."""
    compile: bool
    """Fuse norms, rotations and gates with torch.compile; needs a C compiler on the node."""

    def __post_init__(self) -> None:
        one_of("kernels.attention", self.attention, ATTENTION)
