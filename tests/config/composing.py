"""Composing cells in a test without a subprocess."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict

from scalesweep.config.load import load, register_resolvers
from scalesweep.config.paths import conf_dir
from scalesweep.config.run import RunConfig


def composed(overrides: Sequence[str]) -> DictConfig:
    """Hydra's own composition of one cell."""
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", overrides=list(overrides))
    with open_dict(config):
        config.pop("hydra", None)
    return config


@cache
def cell(*overrides: str) -> RunConfig:
    return load(composed(overrides), planning=True)
