"""Where curves and tables are shown besides the store (conf/tracking/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import require


@dataclass(kw_only=True)
class TrackingConfig:
    """W&B is a view: runs are written offline after the study, from the records in the store."""

    wandb: bool
    """Write offline W&B runs below the study's folder when the study ends."""
    project: str = "scalesweep"
    entity: str | None = None

    def __post_init__(self) -> None:
        require(bool(self.project), "tracking.project", "''", "name a W&B project")
