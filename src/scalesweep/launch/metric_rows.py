"""The first and the newest row of an attempt's metrics, without reading what lies between."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
    try:
        with file.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(max(0, size - _MOST_BYTES))
            lines = handle.read().splitlines(keepends=True)
    except OSError:
        return {}
    return _first_whole(reversed(lines))


def _first_whole(lines: Iterable[bytes]) -> dict[str, Any]:
    for line in lines:
        if line.endswith(b"\n"):
            try:
                return dict(json.loads(line))
            except (json.JSONDecodeError, ValueError, TypeError):
                continue
    return {}
