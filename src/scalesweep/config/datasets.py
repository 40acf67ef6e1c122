"""Data sets by name (conf/datasets/): generated miniatures, or files that lie somewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scalesweep.config.checks import at_least, one_of, require


@dataclass(kw_only=True)
class DatasetConfig:
    """One data set. Either a generator makes it, or root says where it lies."""

    generator: str | None = None
    """Generator of a miniature data set; null: the files lie in root."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Of the generator: seed and counts."""
    root: str | None = None
    """Folder on this machine; not part of the key."""
    files: dict[str, str] = field(default_factory=dict)
    """Path below root -> "sha256:..." or "" when it is not declared."""
    source: str = ""
    """Where it comes from, for people."""
    url: str = ""
    """The page to fetch it from."""
    licence: str = ""
    """For people; empty: not known here."""


@dataclass(kw_only=True)
class SourceConfig:
    """One file of conversations that takes part in a mix."""

    dataset: str = ""
    """Name of a data set."""
    file: str = ""
    """JSON file below its root."""
    image_folder: str = ""
    """Folder below its root that "image" fields are relative to."""
    max_items: int | None = None
    """Only the first so many items; null: all."""
    on_long_item: str = "stop"
    """stop | cut | split: what a conversation over max_seq_len does. cut keeps what fits, split
    makes several of whole turns. Cut, split and left out ones are counted."""
    on_broken_item: str | None = None
    """stop | skip, for this file alone; null: as the others."""

    def __post_init__(self) -> None:
        one_of("data_mix.sources.on_long_item", self.on_long_item, ("stop", "cut", "split"))
        if self.on_broken_item is not None:
            one_of("data_mix.sources.on_broken_item", self.on_broken_item, ("stop", "skip"))
        at_least(1, value=("data_mix.sources.max_items", self.max_items))
        require(bool(self.dataset), "data_mix.sources.dataset", "''", "name a data set")
        require(bool(self.file), "data_mix.sources.file", "''", "name a file below its root")
