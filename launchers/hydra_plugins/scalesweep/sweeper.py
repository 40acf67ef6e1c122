"""Sweeper: the command line's axes times the grids of a sweep file, united, each cell once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from scalesweep import study_command
from scalesweep.config.sweep import axes_of, expand


@dataclass
class SweeperConfig:
    _target_: str = "hydra_plugins.scalesweep.sweeper.GridsSweeper"


ConfigStore.instance().store(
    group="hydra/sweeper", name="scalesweep", node=SweeperConfig, provider="scalesweep"
)


class GridsSweeper(Sweeper):
    """All cells go to the launcher in one call."""

    def __init__(self) -> None:
        self._context: HydraContext | None = None
        self._launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config
        self._context = hydra_context
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        assert self._context is not None
        assert self._launcher is not None
        parser = OverridesParser.create(config_loader=self._context.config_loader)
        axes = axes_of(parser.parse_overrides(arguments))
        cells = expand(study_command.current().sweep, axes)
        return self._launcher.launch(cells, initial_job_idx=0)
