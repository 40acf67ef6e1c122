"""Hydra's doors into scalesweep: a sweeper that unites grids, a launcher that plans all cells."""

from hydra_plugins.scalesweep.launcher import StudyLauncher
from hydra_plugins.scalesweep.sweeper import GridsSweeper

__all__ = ["GridsSweeper", "StudyLauncher"]
