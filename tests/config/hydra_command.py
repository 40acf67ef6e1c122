"""A command line in a test, up to what Hydra's launcher is given; without a subprocess."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from scalesweep.config.compose import Composer
from scalesweep.config.load import register_resolvers
from scalesweep.config.paths import conf_dir


@dataclass(frozen=True)
class Command:
    """Hydra's loader, and what it composed when the command started."""

    loader: ConfigLoader
    master: DictConfig

    def composer(self) -> Composer:
        return Composer(self.loader, self.master)

    def by_hydra(self, overrides: Sequence[str]) -> Any:
        """What Hydra composes for one job of a sweep, resolved; Hydra's own node left out."""
        config = self.loader.load_sweep_config(self.master, list(overrides))
        config._set_flag("struct", False)
        config.pop("hydra")
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


@contextlib.contextmanager
def started(*words: str, config_dir: Path | None = None) -> Iterator[Command]:
    """A command with these overrides, and --config-dir."""
    register_resolvers()
    path = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        path.prepend("command-line", f"file://{config_dir}")
    GlobalHydra.instance().clear()
    try:
        loader = Hydra.create_main_hydra2("scalesweep", path).config_loader
        yield Command(loader, loader.load_configuration("config", list(words), RunMode.MULTIRUN))
    finally:
        GlobalHydra.instance().clear()
