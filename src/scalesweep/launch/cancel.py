"""Stopping what works on a study: commands here as Ctrl-C would, and its jobs on a cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from scalesweep.errors import StoreError
from scalesweep.launch import leases, slurm
from scalesweep.launch.jobs import job_dir, job_dirs, this_user
from scalesweep.launch.local import GRACE_S, commands_folder
from scalesweep.launch.queue import look
from scalesweep.plan.graph import Plan
from scalesweep.records import SCHEMA, StageRef
from scalesweep.rundir import Store, read_json, write_json


def cancel_jobs(store: Store, study: str) -> list[str]:
    """End a study's jobs but for those that another study's jobs need; one line about each kind.

    What runs is told to write a checkpoint first. Records say that they were cancelled before Slurm
    is told anything, so that no supervisor puts its job back into the queue.

    Raises:
        SlurmError: Slurm does not answer; jobs that run end at their next look all the same.
    """
    folders = {
        folder.path.name: folder.submission()
        for folder in job_dirs(store)
        if (folder.path / "submission.json").exists()
    }
    names = [name for name, submission in folders.items() if submission.study == study]
    if not names:
        return []
    mine = {
        folders[row.name].elements[row.array_index]: row
        for rows in slurm.queued(names).values()
        for row in rows
        if row.array_index in folders[row.name].elements
    }
    if not mine:
        return []
    needed = _needed_by_others(store, study, set(mine))
    rows = [row for ref, row in mine.items() if ref not in needed]
    for row in rows:
        with contextlib.suppress(OSError):
            marker = job_dir(store, row.name).cancelled(row.array_index)
            write_json(marker, {"schema": SCHEMA, "by": this_user()})
    slurm.cancel([row.element for row in rows if row.state == "PENDING"])
    running = [row for row in rows if row.state != "PENDING"]
    slurm.warn([row.element for row in running])
    lines = []
    if pending := len(rows) - len(running):
        lines.append(f"{pending} jobs that waited: cancelled")
    if running:
        lines.append(f"{len(running)} jobs that run: told to write a checkpoint and end")
    if needed:
        lines.append(f"{len(needed)} jobs: left alone, another study's jobs wait for them")
    return lines


def _needed_by_others(store: Store, study: str, mine: set[StageRef]) -> set[StageRef]:
    """Which of a study's stages other studies wait for with jobs of their own."""
    needed: set[StageRef] = set()
    for other in store.study_names():
        if other == study:
            continue
        with contextlib.suppress(StoreError, KeyError, OSError):
            plan = Plan.from_json(read_json(store.study(other) / "plan.json"))
            if not mine & plan.by_ref.keys():
                continue
            for ref, place in look(plan, store).places.items():
                submission = place.submission
                if place.row is not None and submission and submission.study == other:
                    needed |= mine & (plan.ancestors(ref) | {ref})
    return needed


def cancel(store: Store, study: str) -> list[str]:
    """Ask the living commands of a study to stop and wait for them; one line about each.

    A stage that another study needs too is taken up by that study's own command. Commands on other
    machines are named and not touched.
    """
    lines: list[str] = cancel_jobs(store, study)
    asked: list[leases.Owner] = []
    for lease in sorted(commands_folder(store, study).glob("*.json")):
        owner = leases.read_owner(lease)
        if owner is None:
            continue
        alive = leases.is_alive(owner)
        if alive is None:
            lines.append(f"process {owner.pid} on {owner.host}: another machine; cancel it there")
        elif alive:
            try:
                os.kill(owner.pid, signal.SIGINT)
                asked.append(owner)
            except PermissionError:
                lines.append(f"process {owner.pid}: another user's; ask whoever started it")
            except ProcessLookupError:  # it ended just now
                continue
    deadline = time.monotonic() + GRACE_S + 5
    while any(leases.is_alive(owner) for owner in asked) and time.monotonic() < deadline:
        time.sleep(0.1)
    for owner in asked:
        state = "still stopping" if leases.is_alive(owner) else "stopped"
        lines.append(f"process {owner.pid}: {state}")
    return lines or [f"study {study}: no command works on it"]
