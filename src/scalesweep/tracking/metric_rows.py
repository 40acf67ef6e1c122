"""The first and the newest row of an attempt's metrics, without reading what lies between."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scalesweep.tracking import metric_names as names

_MOST_BYTES = 4096
"""A row is far shorter."""


def first_row(file: Path) -> dict[str, Any]:
    """The oldest whole row; empty where there is none."""
    try:
        with file.open("rb") as handle:
            lines = handle.read(_MOST_BYTES).splitlines(keepends=True)
    except OSError:
        return {}
    return _first_whole(lines)


def last_row(file: Path) -> dict[str, Any]:
    """The newest whole row; empty where there is none."""
    return next(newest_rows(file), {})


def newest_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Some whole rows, the newest first; how many depends on their length."""
    try:
        with file.open("rb") as handle:
            size = handle.seek(0, 2)
            begin = max(0, size - _MOST_BYTES)
            handle.seek(begin)
            lines = handle.read().splitlines(keepends=True)
    except OSError:
        return
    for line in reversed(lines[1:] if begin else lines):  # the first may have been cut
        if row := _first_whole([line]):
            yield row


def startup_s(first: Mapping[str, Any], *, started_at: float, wall_s: float) -> float:
    """Seconds until the first sample was worked on; all of wall_s when none was (no first row)."""
    if not first:
        return wall_s
    began = float(first["time"]) - float(first.get(names.STEP_SECONDS, 0.0))
    return min(max(0.0, began - started_at), wall_s)


def _first_whole(lines: Iterable[bytes]) -> dict[str, Any]:
    for line in lines:
        if line.endswith(b"\n"):
            try:
                return dict(json.loads(line))
            except (json.JSONDecodeError, ValueError, TypeError):
                continue
    return {}
