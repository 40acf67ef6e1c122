"""What stage 2 is trained on (conf/data_mix/)."""

from __future__ import annotations

from dataclasses import dataclass, field

from scalesweep.config.checks import one_of, require
from scalesweep.config.datasets import SourceConfig


@dataclass(kw_only=True)
class DataMixConfig:
    """Files of conversations, shuffled into one order; text-only ones mix with pictures."""

    name: str
    miniature: bool
    sources: list[SourceConfig] = field(default_factory=list)
    on_broken_item: str = "stop"
    """stop | skip: what a broken item does. Skipped ones are named and counted."""

    def __post_init__(self) -> None:
        require(bool(self.sources), "data_mix.sources", "[]", "name at least one file")
        one_of("data_mix.on_broken_item", self.on_broken_item, ("stop", "skip"))
