"""What the ranks of an attempt wrote about themselves, put together when it ends."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.launch.rank import error_file, rank_usage_file
from scalesweep.records import Usage
from scalesweep.rundir import AttemptDir, read_json
from scalesweep.tracking import metric_names as names
from scalesweep.tracking.metric_rows import first_row, startup_s


def rank_errors(attempt: AttemptDir, world_size: int) -> list[dict[str, Any]]:
    """The errors that ranks wrote, lowest rank first: type, message, expected."""
    found = []
    for rank in range(world_size):
        with contextlib.suppress(OSError, json.JSONDecodeError):
            found.append(json.loads(error_file(attempt, rank).read_text(encoding="utf-8")))
    return found


def with_work(spent: Usage, attempt: AttemptDir, world_size: int) -> Usage:
    """An account of time with what was done in it: steps, tokens, start-up, memory, cores.

    spent: what the devices were held for, by the clock of whoever started the ranks.
    """
    ranks = [usage for rank in range(world_size) if (usage := _rank_usage(attempt, rank))]
    rows = [row for row in attempt.metric_rows() if names.STEP in row]
    begun = startup_s(first_row(attempt.metrics), started_at=spent.started_at, wall_s=spent.wall_s)
    usage = replace(
        spent,
        startup_s=round(begun, 3),
        cpu_s=round(sum(rank.cpu_s for rank in ranks), 3),
        peak_memory_bytes=max((rank.peak_memory_bytes for rank in ranks), default=0),
        peak_device_bytes=max((rank.peak_device_bytes for rank in ranks), default=0),
    )
    if rows:
        usage = replace(
            usage,
            steps=len(rows),
            tokens=sum(int(row.get(names.TOKENS, 0)) for row in rows),
            first_step=int(rows[0][names.STEP]) - 1,
        )
    return usage


def _rank_usage(attempt: AttemptDir, rank: int) -> Usage | None:
    with contextlib.suppress(OSError, StoreError, KeyError, TypeError, ValueError):
        return Usage.from_json(read_json(rank_usage_file(attempt, rank)))
    return None
