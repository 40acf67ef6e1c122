"""Launcher: hands all cells over at once, each composed when it is looked at.

Stages that cells share can only be found when all cells are known, so nothing starts before.
Other sweepers (Optuna) work through it: they get each cell's score as the value of its job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from scalesweep import study_command
from scalesweep.config.compose import Composer


@dataclass
class LauncherConfig:
    _target_: str = "hydra_plugins.scalesweep.launcher.StudyLauncher"


ConfigStore.instance().store(
    group="hydra/launcher", name="scalesweep", node=LauncherConfig, provider="scalesweep"
)


OUR_SWEEPER = "hydra_plugins.scalesweep.sweeper.GridsSweeper"
"""All cells at once, which wait for nothing; other sweepers go on by the values of cells."""


class StudyLauncher(Launcher):
    """Plans, and runs unless only a plan was asked for."""

    def __init__(self) -> None:
        self._composer: Composer | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        del task_function  # cells are planned together; nothing is called per cell
        self._composer = Composer(hydra_context.config_loader, config)
        study_command.current().waits = config.hydra.sweeper.get("_target_") != OUR_SWEEPER

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        del initial_job_idx
        assert self._composer is not None
        composer = self._composer
        cells = ((overrides, composer.compose(overrides)) for overrides in job_overrides)
        values = study_command.handle(cells)
        return [_returned(o, v) for o, v in zip(job_overrides, values, strict=True)]


def _returned(overrides: Sequence[str], value: Any) -> JobReturn:
    result = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
    result.return_value = value
    return result
