"""The verbs `sync` and `dashboard`: a study's records to W&B, and what is shown of them there.

Each round of uploading is a process of its own, so that this one stays light; stages know nothing
of it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scalesweep.errors import ConfigError
from scalesweep.launch import accounting, leases
from scalesweep.launch.local import commands_folder
from scalesweep.launch.queue import look
from scalesweep.launch.status import study_status
from scalesweep.launch.watch import GOING
from scalesweep.plan.graph import Plan
from scalesweep.report.command import load_plan
from scalesweep.rundir import Store

DONE, LEFT = 0, 1
GAP_S = 15.0
"""Within which a stage begins once its inputs are there; a judge stage, by `watch`."""
_CLEAN_UP_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the command line asks for."""

    live: bool = False
    every_s: float = 120.0
    limit_s: float = 180.0
    project: str | None = None
    """None: as the study's settings say."""
    entity: str | None = None


Round = Callable[[Plan], int]


def sync(root: Path, study: str | None, wanted: Wanted, *, sleep: Callable[[float], None]) -> int:
    """Upload what W&B does not have; the exit status of the last round.

    Raises:
        ConfigError: no such study, or wandb is not installed.
    """
    if importlib.util.find_spec("wandb") is None:
        raise ConfigError("sync: wandb is not installed; pip install 'scalesweep[wandb]'")
    store = Store(root)
    name = load_plan(store, study).study

    def one_round(plan: Plan) -> int:
        return _round(store, plan, wanted)

    return follow(store, name, wanted, one_round=one_round, sleep=sleep)


def follow(
    store: Store,
    study: str,
    wanted: Wanted,
    *,
    one_round: Round,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Rounds until one was made of all that the study left; without --live, one."""
    while True:
        plan = load_plan(store, study)
        # Before the round, so that the last one has the end.
        goes_on = wanted.live and (is_going(plan, store) or _is_between(plan, store, sleep))
        status = one_round(plan)
        if not goes_on or status not in (DONE, LEFT):
            return status
        sleep(wanted.every_s)


def _is_between(plan: Plan, store: Store, sleep: Callable[[float], None]) -> bool:
    """Nobody worked on it just now, and a moment later somebody does: between two stages."""
    sleep(GAP_S)
    return is_going(plan, store)


def is_going(plan: Plan, store: Store) -> bool:
    """Somebody works on the study, or a job of it waits in a queue, as far as can be seen."""
    owners = [leases.read_owner(p) for p in commands_folder(store, plan.study).glob("*.json")]
    if any(owner is not None and leases.is_alive(owner) is not False for owner in owners):
        return True
    view = look(plan, store)
    states = {stage.state for stage in study_status(plan, store, view).values()}
    if view.problem:  # Slurm does not answer now: its jobs may go on
        return states != {"done"}
    return not states.isdisjoint(GOING)


def _round(store: Store, plan: Plan, wanted: Wanted) -> int:
    accounting.refresh(store, plan)
    project, entity = _where(plan, project=wanted.project, entity=wanted.entity)
    words = ["--project", project, "--limit", str(wanted.limit_s)]
    words += ["--entity", entity] if entity else []
    command = "scalesweep.tracking.sync_command"
    sys.stdout.flush()
    process = subprocess.Popen([sys.executable, "-m", command, str(store.root), plan.study, *words])
    try:
        return process.wait()
    except KeyboardInterrupt:  # it got it too, and ends the upload that it began
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_CLEAN_UP_S)
        raise


def dashboard(
    root: Path, study: str | None, *, push: bool, project: str | None, entity: str | None
) -> int:
    """Print the study's workspace and report, or send them and print their addresses.

    Raises:
        ConfigError: no such study, wandb-workspaces is not installed, or the login is refused.
        ServerDown: W&B does not answer.
    """
    from scalesweep.tracking.dashboard_command import send, show

    store = Store(root)
    plan = load_plan(store, study)
    accounting.refresh(store, plan)
    project, entity = _where(plan, project=project, entity=entity)
    if push:
        for line in send(store, plan.study, project=project, entity=entity):
            print(line)
    else:
        print(show(store, plan.study, project=project, entity=entity))
    return DONE


def _where(plan: Plan, *, project: str | None, entity: str | None) -> tuple[str, str | None]:
    """W&B's project and entity: as asked, or else as the study's settings say."""
    tracking = plan.cells[0].config.get("tracking") or {}
    known = tracking.get("entity")
    return (
        project or str(tracking.get("project") or "scalesweep"),
        entity or (str(known) if known else None),
    )
