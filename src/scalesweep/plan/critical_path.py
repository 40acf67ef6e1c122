"""How long a plan takes on a number of devices, were there no queue. Pure.

Stages begin as soon as what they need is there and devices are free; of those that could begin, the
one first on which most of the remaining time depends. Which node a device is on is not looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Set
from dataclasses import dataclass

from scalesweep.errors import PlanError
from scalesweep.plan.graph import Plan
from scalesweep.records import StageRef


@dataclass(frozen=True, kw_only=True)
class WallTime:
    """Seconds from the first stage that is not done to the last."""

    critical_path_s: float
    """On as many devices as can be used: the longest chain of stages."""
    wall_s: float
    """On as many as were named."""
    num_devices: int | None
    """That were named; None: as many as can be used."""


def wall_time(plan: Plan, done: Set[StageRef], *, num_devices: int | None = None) -> WallTime:
    """Of all stages that are not done; those without a prediction take no time.

    Raises:
        PlanError: a stage takes more devices than there are.
    """
    tails = _tails(plan, done)
    longest = max(tails.values(), default=0.0)
    wall = longest if num_devices is None else _wall_s(plan, tails, num_devices)
    return WallTime(critical_path_s=longest, wall_s=wall, num_devices=num_devices)


def _tails(plan: Plan, done: Set[StageRef]) -> dict[StageRef, float]:
    """Stage that is not done -> seconds from its beginning to the end of all that waits for it."""
    after: dict[StageRef, float] = {}
    tails: dict[StageRef, float] = {}
    for stage in reversed(plan.stages):
        if stage.ref in done:
            continue
        predicted = stage.execution.predicted
        own = predicted.wall_s if predicted is not None else 0.0
        tails[stage.ref] = own + after.get(stage.ref, 0.0)
        for parent in stage.spec.inputs.values():
            after[parent] = max(after.get(parent, 0.0), tails[stage.ref])
    return tails


def _wall_s(plan: Plan, tails: dict[StageRef, float], num_devices: int) -> float:
    missing: dict[StageRef, int] = {}
    children: dict[StageRef, list[StageRef]] = {}
    takes: dict[StageRef, int] = {}
    lasts: dict[StageRef, float] = {}
    for ref in reversed(tails):  # as they stand in the plan
        stage = plan.stage(ref)
        predicted = stage.execution.predicted
        takes[ref] = stage.execution.num_held_devices
        lasts[ref] = predicted.wall_s if predicted is not None else 0.0
        if takes[ref] > num_devices:
            raise PlanError(
                f"--nodes: {stage.spec.label} alone takes {takes[ref]} devices, and there would be "
                f"{num_devices}; name more nodes"
            )
        parents = {parent for parent in stage.spec.inputs.values() if parent in tails}
        missing[ref] = len(parents)
        for parent in parents:
            children.setdefault(parent, []).append(ref)
    # Ready stages by the devices they take: a large one must not hide a small one that fits.
    ready: dict[int, list[tuple[float, StageRef]]] = {}

    def add(ref: StageRef) -> None:
        heapq.heappush(ready.setdefault(takes[ref], []), (-tails[ref], ref))

    for ref, count in missing.items():
        if not count:
            add(ref)
    running: list[tuple[float, StageRef]] = []
    now, free = 0.0, num_devices
    while True:
        fitting = [heap[0] for size, heap in ready.items() if heap and size <= free]
        if fitting:
            _, ref = min(fitting)
            heapq.heappop(ready[takes[ref]])
            free -= takes[ref]
            heapq.heappush(running, (now + lasts[ref], ref))
            continue
        if not running:
            return now
        now, ref = heapq.heappop(running)
        free += takes[ref]
        for child in children.get(ref, ()):
            missing[child] -= 1
            if not missing[child]:
                add(child)
