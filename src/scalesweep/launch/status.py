"""Where each stage of a study stands, read from the store alone."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.launch import leases
from scalesweep.launch.budget import StudyBudget, read_budget
from scalesweep.launch.budget_guard import budget_json, budget_lines
from scalesweep.launch.failures import Failure
from scalesweep.launch.jobs import job_dir
from scalesweep.launch.progress import seconds_text
from scalesweep.launch.publish import verdict
from scalesweep.launch.queue import Place, QueueView, look
from scalesweep.plan.graph import Cell, Plan, PlannedStage
from scalesweep.records import Outcome, StageRef
from scalesweep.rundir import AttemptDir, Store
from scalesweep.tracking import metric_names as names
from scalesweep.tracking.metric_rows import last_row


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """One stage as it stands on disk."""

    ref: str
    label: str
    state: str
    """done | running | queued | held | login | failed | interrupted | killed | stale | damaged |
    out of budget | left out | blocked | waiting"""
    detail: str = ""
    """Progress, or the cause."""
    attempts: int = 0
    log: str = ""
    job: str = ""
    """Element of a job array that runs it ("12_3"), on a cluster."""


def study_status(
    plan: Plan, store: Store, view: QueueView | None = None
) -> dict[StageRef, StageStatus]:
    """Every stage's state, parents before children. view: what Slurm says, where it was asked."""
    found: dict[StageRef, StageStatus] = {}
    digests: dict[StageRef, str] = {}
    places = view.places if view else {}
    held_to = _held_to(plan, store)
    for stage in plan.stages:
        status = _status(stage, store, found, digests)
        place = places.get(stage.spec.ref)
        if status.state in BEFORE_BEGIN and (why := _left_out(stage, place, store, held_to)):
            status = replace(status, state="left out", detail=why)
        if place is not None and status.state != "done":
            status = _with_queue(status, place, stage, view.problem if view else "")
        if stage.execution.on_login and status.state == "waiting":
            parents = [found[ref].state for ref in stage.spec.inputs.values()]
            if all(state == "done" for state in parents):
                status = replace(status, state="login", detail=ON_LOGIN)
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
    state, detail, job = _open_state(attempts)  # first: what ends meanwhile is published before
    seen = verdict(store, spec, parents=parents if all(parents.values()) else None)
    if seen.done is not None:
        state, detail = "done", ""
        digests[spec.ref] = seen.done.digest
    elif seen.problem and state != "running":
        state = "stale" if seen.problem.startswith("stale") else "damaged"
        detail = seen.problem
    elif state == "waiting":
        for states, called in ((BROKEN, "blocked"), (UNPAID, "left out")):
            bad = [found[ref] for ref in spec.inputs.values() if found[ref].state in states]
            if bad:
                state, detail = called, f"needs {bad[0].label}"
                break
    return StageStatus(
        ref=str(spec.ref),
        label=spec.label,
        state=state,
        detail=detail,
        attempts=len(attempts),
        log=str(attempts[-1].log) if attempts and attempts[-1].log.exists() else "",
        job=job,
    )


def _held_to(plan: Plan, store: Store) -> StudyBudget | None:
    with contextlib.suppress(StoreError, KeyError, TypeError, ValueError):
        return read_budget(store, plan.study)
    return None


def _left_out(
    stage: PlannedStage, place: Place | None, store: Store, held_to: StudyBudget | None
) -> str:
    """Why a budget keeps a stage from beginning; empty where none does."""
    if place is not None:
        with contextlib.suppress(OSError):
            folder = job_dir(store, place.job.submission)
            return folder.left_out(place.job.index).read_text(encoding="utf-8").strip()
    if held_to is not None and stage.ref in held_to.left_out:
        return f"{held_to.budget} has no room for it"
    return ""


ON_LOGIN = "waits for this machine: `scalesweep judge`, or leave `watch` running"


def _with_queue(
    status: StageStatus, place: Place, stage: PlannedStage, problem: str
) -> StageStatus:
    """A stage's state by disk, put together with what Slurm says of its job."""
    in_job = bool(status.job)
    status = replace(status, job=place.element)
    row = place.row
    if place.cluster:
        where = f"submitted to cluster {place.cluster}, which cannot be seen from here"
        return replace(status, detail=f"{status.detail}; {where}".removeprefix("; "))
    if row is None:
        if problem:
            return replace(status, detail=f"{status.detail} (Slurm: {problem})".strip())
        if status.state == "running" and in_job:
            said = ENDS.get(place.ended, "its job is gone; type the line again to continue")
            return replace(status, state="killed", detail=said)
        if place.ended and status.state in ("waiting", "killed", "interrupted", "blocked"):
            return _over(status, place)
        return status
    if row.is_held_after_failed_launch:
        return replace(status, state="held", detail=HELD)
    if row.state == "PENDING":
        before = ""
        if status.attempts and status.state not in ("waiting", "blocked"):
            before = f"; before: {BEFORE.get(place.ended) or status.detail}"
        return replace(status, state="queued", detail=f"{row.reason}{before}")
    if status.state == "running":
        return status
    if stage.execution.on_login:
        return status
    return replace(status, state="running", detail=f"{row.state.lower()} for {row.run_time}")


HELD = (
    "Slurm could not launch it and holds it; the same line, or watch, releases it (and an "
    "administrator resumes nodes drained for a duplicate job id)"
)


def _over(status: StageStatus, place: Place) -> StageStatus:
    """Of a job that is over though its stage is not done: what sacct calls its end."""
    if status.state == "blocked" or (status.state == "interrupted" and place.ended == "FAILED"):
        return status  # its supervisor said why
    if place.ended == "CANCELLED" and status.attempts == 0:
        detail = "its job was cancelled before it began; type the line again"
        return replace(status, detail=detail)
    state = "failed" if place.ended in ("FAILED", "OUT_OF_MEMORY") else status.state
    detail = ENDS.get(place.ended, f"its job ended as {place.ended}; type the line again")
    return replace(status, state=state, detail=detail)


BEFORE = {
    "PREEMPTED": "preempted",
    "NODE_FAIL": "its node failed",
    "TIMEOUT": "it ran into its time limit",
}
ENDS = {
    "CANCELLED": "its job was cancelled; type the line again to continue",
    "TIMEOUT": "its job ran into the time limit; type the line again to continue",
    "NODE_FAIL": "a node failed; type the line again to continue",
    "OUT_OF_MEMORY": "its job used more host memory than it asked for: raise cluster.memory_gb",
    "PREEMPTED": "preempted and not requeued by Slurm; type the line again to continue",
    "FAILED": "its job ended before it could say why; see `logs`",
}

BROKEN = ("failed", "blocked")
UNPAID = ("out of budget", "left out")
BEFORE_BEGIN = ("waiting", "interrupted", "killed")
"""States of a stage that no attempt is at."""


def _open_state(attempts: list[AttemptDir]) -> tuple[str, str, str]:
    """State, detail and job by the newest attempt alone."""
    if not attempts:
        return "waiting", "", ""
    newest = attempts[-1]
    if leases.is_open(newest):
        owner = leases.read_owner(newest.lease)
        if owner is not None and owner.slurm is not None:
            run = owner.slurm
            return (
                "running",
                f"{_progress(newest)} (job {run.element} on {owner.host})",
                run.element,
            )
        alive = leases.is_alive(owner) if owner else False
        if alive is False or owner is None:
            return "killed", "its command died; type the line again to continue", ""
        unseen = "" if alive else ", which cannot be seen from here"
        where = f"process {owner.pid} on {owner.host}{unseen}"
        return "running", f"{_progress(newest)} ({where})", ""
    usage = newest.usage()
    if usage is None or usage.outcome is Outcome.done:
        return "waiting", "", ""
    if usage.failure == Failure.budget:
        return "out of budget", usage.cause, ""
    return str(usage.outcome), usage.cause, ""


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
    order = ("failed", "held", "damaged", "stale", "running", "killed", "interrupted",
             "out of budget", "queued", "login", "left out", "blocked")  # fmt: skip
    return next((state for state in order if state in states), "waiting")


def status_json(plan: Plan, store: Store) -> dict[str, Any]:
    """{"study", "cells": [{"name", "state"}], "stages": [...], "totals", "budget"}."""
    view = look(plan, store, with_ended=True)
    status = study_status(plan, store, view)
    return {
        "study": plan.study,
        "cells": [{"name": c.name, "state": cell_state(c, status)} for c in plan.cells],
        "stages": [asdict(stage) for stage in status.values()],
        "totals": dict(Counter(stage.state for stage in status.values())),
        **({"budget": held} if (held := budget_json(plan, store)) else {}),
        **({"slurm_problem": view.problem} if view.problem else {}),
    }


def print_status(plan: Plan, store: Store) -> None:
    """Cells with their states, and every stage that is not simply done or waiting."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from scalesweep.plan.show import cell_label

    view = look(plan, store, with_ended=True)
    status = study_status(plan, store, view)
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
        if stage.state in ("done", "waiting", *IN_ONE_LINE):
            continue
        color = COLORS.get(stage.state, "default")
        console.print(
            f"[{color}]{stage.state}[/{color}] {escape(f'{stage.label}: {stage.detail}')}",
            soft_wrap=True,
        )
        if stage.state in ("failed", "killed") and stage.log:
            console.print(f"  log: {escape(stage.log)}", soft_wrap=True)
    for line in lines_in_one(status.values()):
        console.print(escape(line), soft_wrap=True)
    if view.problem:
        console.print(f"[red]Slurm is not seen[/red]: {escape(view.problem)}", soft_wrap=True)
    counts = ", ".join(f"{count} {state}" for state, count in totals.most_common())
    console.print(f"{len(plan.cells)} cells, {len(plan.stages)} stages: {counts}")
    for line in budget_lines(plan, store):
        console.print(escape(line), soft_wrap=True)


IN_ONE_LINE = ("queued", "login", "left out")
"""States of which there may be a thousand, with few details."""


def lines_in_one(stages: Iterable[StageStatus]) -> list[str]:
    """One line for each of these states: how many stages, and why they wait."""
    found: dict[str, Counter[str]] = {}
    for stage in stages:
        if stage.state in IN_ONE_LINE:
            found.setdefault(stage.state, Counter())[stage.detail] += 1
    lines = []
    for state, details in found.items():
        shown = ", ".join(f"{count} {detail}" for detail, count in details.most_common(5))
        more = len(details) - 5
        lines.append(f"{state}: {shown}{f', and {more} other reasons' if more > 0 else ''}")
    return lines


COLORS = {
    "done": "green",
    "held": "red",
    "running": "cyan",
    "failed": "red",
    "damaged": "red",
    "stale": "yellow",
    "killed": "yellow",
    "interrupted": "yellow",
    "out of budget": "yellow",
    "left out": "dim",
    "blocked": "dim",
}
