"""Where each stage of a study stands, read from the store alone."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.launch import leases
from scalesweep.launch.metric_rows import last_row
from scalesweep.launch.progress import seconds_text
from scalesweep.launch.publish import verdict
from scalesweep.plan.graph import Cell, Plan, PlannedStage
from scalesweep.records import Outcome, StageRef
from scalesweep.rundir import AttemptDir, Store
from scalesweep.tracking import metric_names as names


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """One stage as it stands on disk."""

    ref: str
    label: str
    state: str
    """done | running | failed | interrupted | killed | stale | damaged | blocked | waiting"""
    detail: str = ""
    """Progress, or the cause."""
    attempts: int = 0
    log: str = ""


def study_status(plan: Plan, store: Store) -> dict[StageRef, StageStatus]:
    """Every stage's state, parents before children."""
    found: dict[StageRef, StageStatus] = {}
    digests: dict[StageRef, str] = {}
    for stage in plan.stages:
        status = _status(stage, store, found, digests)
        found[stage.spec.ref] = status
    return found


def _status(
    stage: PlannedStage,
    store: Store,
    found: dict[StageRef, StageStatus],
    digests: dict[StageRef, str],
) -> StageStatus:
    spec = stage.spec
    folder = store.stage(spec.ref)
    attempts = folder.attempts()
    parents = {role: digests.get(ref, "") for role, ref in spec.inputs.items()}
    state, detail = _open_state(attempts)  # first: what ends meanwhile is published before
    seen = verdict(store, spec, parents=parents if all(parents.values()) else None)
    if seen.done is not None:
        state, detail = "done", ""
        digests[spec.ref] = seen.done.digest
    elif seen.problem and state != "running":
        state = "stale" if seen.problem.startswith("stale") else "damaged"
        detail = seen.problem
    elif state == "waiting":
        bad = [found[ref] for ref in spec.inputs.values() if found[ref].state in BROKEN]
        if bad:
            state, detail = "blocked", f"needs {bad[0].label}"
    return StageStatus(
        ref=str(spec.ref),
        label=spec.label,
        state=state,
        detail=detail,
        attempts=len(attempts),
        log=str(attempts[-1].log) if attempts and attempts[-1].log.exists() else "",
    )


BROKEN = ("failed", "blocked")


def _open_state(attempts: list[AttemptDir]) -> tuple[str, str]:
    """State and detail by the newest attempt alone."""
    if not attempts:
        return "waiting", ""
    newest = attempts[-1]
    if leases.is_open(newest):
        owner = leases.read_owner(newest.lease)
        alive = leases.is_alive(owner) if owner else False
        if alive is False or owner is None:
            return "killed", "its command died; type the line again to continue"
        unseen = "" if alive else ", which cannot be seen from here"
        where = f"process {owner.pid} on {owner.host}{unseen}"
        return "running", f"{_progress(newest)} ({where})"
    usage = newest.usage()
    if usage is None or usage.outcome is Outcome.done:
        return "waiting", ""
    return str(usage.outcome), usage.cause


def _progress(attempt: AttemptDir) -> str:
    row = last_row(attempt.metrics)
    usage = None
    with contextlib.suppress(StoreError, KeyError, TypeError, ValueError):
        usage = attempt.usage()
    since = f", {seconds_text(usage.wall_s)}" if usage else ""
    if names.PROGRESS_TOTAL not in row:
        return f"starts{since}"
    unit = row.get(names.PROGRESS_UNIT, "step")
    return f"{unit} {row[names.PROGRESS_DONE]}/{row[names.PROGRESS_TOTAL]}{since}"


def cell_state(cell: Cell, status: dict[StageRef, StageStatus]) -> str:
    """The state of a cell: done when all its stages are, else the worst of them."""
    states = {status[ref].state for ref in cell.stages.values()}
    if states == {"done"}:
        return "done"
    order = ("failed", "damaged", "stale", "running", "killed", "interrupted", "blocked")
    return next((state for state in order if state in states), "waiting")


def status_json(plan: Plan, store: Store) -> dict[str, Any]:
    """{"study", "cells": [{"name", "state"}], "stages": [...], "totals"}."""
    status = study_status(plan, store)
    return {
        "study": plan.study,
        "cells": [{"name": c.name, "state": cell_state(c, status)} for c in plan.cells],
        "stages": [asdict(stage) for stage in status.values()],
        "totals": dict(Counter(stage.state for stage in status.values())),
    }


def print_status(plan: Plan, store: Store) -> None:
    """Cells with their states, and every stage that is not simply done or waiting."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from scalesweep.plan.show import cell_label

    status = study_status(plan, store)
    console = Console(highlight=False)
    totals = Counter(stage.state for stage in status.values())
    console.print(f"[bold]study {escape(plan.study)}[/bold]", soft_wrap=True)
    cells = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    cells.add_column("#", justify="right", no_wrap=True)
    cells.add_column("cell", overflow="fold")
    cells.add_column("state", no_wrap=True)
    cells.add_column("stages done", justify="right", no_wrap=True)
    for i, cell in enumerate(plan.cells):
        refs = set(cell.stages.values())
        done = sum(status[ref].state == "done" for ref in refs)
        state = cell_state(cell, status)
        color = COLORS.get(state, "default")
        cells.add_row(
            str(i + 1),
            escape(cell_label(cell)),
            f"[{color}]{state}[/{color}]",
            f"{done}/{len(refs)}",
        )
    console.print(cells)
    for stage in status.values():
        if stage.state not in ("done", "waiting"):
            color = COLORS.get(stage.state, "default")
            console.print(
                f"[{color}]{stage.state}[/{color}] {escape(f'{stage.label}: {stage.detail}')}",
                soft_wrap=True,
            )
            if stage.state in ("failed", "killed") and stage.log:
                console.print(f"  log: {escape(stage.log)}", soft_wrap=True)
    counts = ", ".join(f"{count} {state}" for state, count in totals.most_common())
    console.print(f"{len(plan.cells)} cells, {len(plan.stages)} stages: {counts}")


COLORS = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "damaged": "red",
    "stale": "yellow",
    "killed": "yellow",
    "interrupted": "yellow",
    "blocked": "dim",
}
