"""Composing many cells with Hydra quickly: each distinct set of group choices only once."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict


class Composer:
    """Composes cells that share a command line.

    Overrides that choose group options, add or delete keys decide which files are read; the same
    choices give the same tree, which is kept. Plain values are then set on a copy, by the function
    Hydra itself uses for it (a test compares with Hydra's own composition, cell by cell).
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader = loader
        self._master = master
        self._parser = OverridesParser.create(config_loader=loader)
        self._trees: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config of one cell, the hydra node left out."""
        parsed = self._parser.parse_overrides(list(overrides))
        structural = tuple(str(o.input_line) for o in parsed if self._is_structural(o))
        values = [o for o in parsed if not self._is_structural(o)]
        if structural not in self._trees:
            tree = self._loader.load_sweep_config(self._master, list(structural))
            with open_dict(tree):
                tree.pop("hydra", None)
            self._trees[structural] = tree
        config = copy.deepcopy(self._trees[structural])
        OmegaConf.copy_cache(from_config=self._master, to_config=config)
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return config

    def _is_structural(self, override: Override) -> bool:
        return (
            override.is_add()
            or override.is_delete()
            or override.is_force_add()
            or override.package is not None
            or bool(self._loader.get_group_options(override.key_or_group))
        )
