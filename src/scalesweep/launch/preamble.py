"""The file that every job sources first."""

from __future__ import annotations

from pathlib import Path

from scalesweep.config.cluster import ClusterConfig


def preamble_path(cluster: ClusterConfig) -> str | None:
    """Where jobs find it; relative to where the command is typed, like every path."""
    if cluster.preamble is None:
        return None
    return str(Path(cluster.preamble).expanduser().absolute())
