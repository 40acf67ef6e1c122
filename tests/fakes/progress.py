"""Remembers what it is told."""

from __future__ import annotations

from collections.abc import Mapping

from scalesweep.launch.local import StageRun
from scalesweep.records import StageRef


class MemoryProgress:
    """Every event as (what, label)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def event(self, run: StageRun, what: str) -> None:
        self.events.append((what, run.label))

    def update(self, runs: Mapping[StageRef, StageRun]) -> None:
        del runs
