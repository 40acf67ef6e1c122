"""Data sets by name (conf/datasets/): generated miniatures, or files that lie somewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scalesweep.config.checks import at_least, require


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

    def __post_init__(self) -> None:
        at_least(1, value=("data_mix.sources.max_items", self.max_items))
        require(bool(self.dataset), "data_mix.sources.dataset", "''", "name a data set")
        require(bool(self.file), "data_mix.sources.file", "''", "name a file below its root")
