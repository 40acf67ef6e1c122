"""Elements that Slurm holds for ever after a launch that failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from scalesweep.launch import leases, slurm
from scalesweep.records import StageRef
from scalesweep.rundir import Store


def releasable(store: Store, rows: Mapping[StageRef, slurm.Queued | None]) -> Iterator[str]:
    """Held elements at whose stage nobody is; one by one, since a release changes what is seen."""
    for ref, row in rows.items():
        if row is None or not row.is_held_after_failed_launch:
            continue
        if leases.holder(store.stage(ref)) is None:
            yield row.element
