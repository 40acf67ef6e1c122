"""Running a plan on this machine, and what follows: the report, W&B runs, the last lines."""

from __future__ import annotations

import contextlib
import importlib.util
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from scalesweep.config.run import RunConfig
from scalesweep.errors import PlanError, ScaleSweepError, StoreError
from scalesweep.hub_access import ask_hub
from scalesweep.launch import accounting
from scalesweep.launch.budget import admit_study, admitted_part, read_budget
from scalesweep.launch.budget_guard import budget_lines
from scalesweep.launch.local import Scheduler, StudyResult
from scalesweep.launch.preamble import preamble_path
from scalesweep.launch.progress import choose_progress
from scalesweep.launch.summary import summary_lines
from scalesweep.plan.admission import Admission
from scalesweep.plan.feasible import machine, refuse_impossible
from scalesweep.plan.graph import Plan
from scalesweep.plan.resources import is_slurm, node_devices
from scalesweep.plan.show import cell_label, done_stages, is_done
from scalesweep.plan.show_budget import admission_lines
from scalesweep.plan.show_costs import expected_line
from scalesweep.preflight import check_external_data
from scalesweep.records import StageRef
from scalesweep.rundir import Store

DONE, CELL_FAILED, INTERRUPTED = 0, 1, 130


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command ended."""

    exit_status: int
    scores: Mapping[str, float]
    """Cell name -> primary score, for cells that have one."""


def check_can_run(plan: Plan, store: Store, config: RunConfig) -> None:
    """Refuse what cannot run here, before anything is started.

    Raises:
        PlanError: no such cluster, too little memory, or weights, data or packages are missing.
        DataError: data outside the store are broken.
    """
    if is_slurm(config.cluster):
        _check_for_slurm(config)
    todo = [stage for stage in plan.stages if not is_done(store, stage.spec.ref)]
    here = None if is_slurm(config.cluster) else machine()
    refuse_impossible(todo, here, ask_hub, device_memory_gb=config.cluster.device_memory_gb)
    needed = ("torch", "transformers", "deepspeed", "peft", "bitsandbytes")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if todo and missing:
        raise PlanError(
            f"{', '.join(missing)}: not installed; stages need the training packages: "
            "pip install 'scalesweep[train]'"
        )
    check_external_data(plan, todo, store)


def _check_for_slurm(config: RunConfig) -> None:
    """What Slurm would only say in the log of a job."""
    preamble = preamble_path(config.cluster)
    if preamble is not None and not Path(preamble).is_file():
        raise PlanError(f"cluster.preamble={preamble}: no such file")


Shown = Callable[[Plan, Store], str]
"""What is printed of the scores instead of the report."""


def run_plan(
    plan: Plan, store: Store, config: RunConfig, *, wait: bool = False, shown: Shown | None = None
) -> Outcome:
    """Run what is missing, report, and say how it ended; on Slurm: submit it.

    wait: on Slurm too, until there are scores: whoever asks goes on by them (a sweeper that seeks).
    """
    check_can_run(plan, store, config)
    if is_slurm(config.cluster):
        return _run_on_slurm(plan, store, config, wait=wait, shown=shown)
    begin = time.monotonic()
    before = {stage.spec.ref for stage in plan.stages if is_done(store, stage.spec.ref)}
    if len(before) < len(plan.stages):
        print(
            f"study {plan.study}: {len(plan.cells)} cells, {len(plan.stages)} stages, "
            f"{len(before)} done; everything is written below {store.study(plan.study)}",
            flush=True,
        )
    _say_expected(plan, before)
    _admitted(plan, store)
    with choose_progress() as progress:
        result = Scheduler(
            plan=plan,
            store=store,
            num_workers=node_devices(config.cluster),
            progress=progress,
            max_tries=config.cluster.max_tries or 1,
        ).run()
    scores: Mapping[str, float] = {}
    if plan_has_scores(plan) and not result.interrupted:
        scores = _report(plan, store, shown)
    if config.tracking.wandb and not result.interrupted and _to_export(plan, store, result):
        tracking = config.tracking
        _export(plan, store, project=tracking.project, entity=tracking.entity)
    for line in summary_lines(plan, result):
        print(line)
    for line in budget_lines(plan, store):
        print(line)
    if result.interrupted:
        print("type the line again to continue; `report` shows what there is")
    _print_totals(begin, result)
    return Outcome(exit_status=exit_status(result), scores=scores)


def _say_expected(plan: Plan, done: Set[StageRef]) -> None:
    if line := expected_line(plan, done):
        print(line, flush=True)


def _admitted(plan: Plan, store: Store) -> Admission | None:
    """What the budget has room for, said before anything is begun; None where there is none."""
    before = None
    with contextlib.suppress(StoreError):  # it is written anew
        before = read_budget(store, plan.study)
    admission = admit_study(store, plan)
    if admission is not None:
        for line in admission_lines(plan, admission, cell_label):
            print(line, flush=True)
    elif before is not None:
        print(f"{before.budget} held before; this line names no budget: there is none from now on")
    return admission


def plan_has_scores(plan: Plan) -> bool:
    return any("judge" in cell.stages for cell in plan.cells)


def exit_status(result: StudyResult) -> int:
    """What the shell is told about a run."""
    if result.interrupted:
        return INTERRUPTED
    return DONE if result.all_done else CELL_FAILED


def _run_on_slurm(
    plan: Plan, store: Store, config: RunConfig, *, wait: bool, shown: Shown | None
) -> Outcome:
    from scalesweep.study_submit import submit_study

    _say_expected(plan, done_stages(plan, store))
    part = admitted_part(plan, _admitted(plan, store))
    result = submit_study(plan, store, config, part)
    if wait:
        from scalesweep.launch.watch import Watcher

        watched = Watcher(plan=plan, store=store).run()
        scores = finish(plan, store, shown)
        return Outcome(exit_status=DONE if watched.all_done else CELL_FAILED, scores=scores)
    scores = finish(plan, store, shown) if result.done == len(plan.stages) else {}
    return Outcome(exit_status=DONE, scores=scores)


def finish(plan: Plan, store: Store, shown: Shown | None = None) -> Mapping[str, float]:
    """What follows a study that ran elsewhere: the report and the W&B runs; scores by cell."""
    accounting.refresh(store, plan)
    scores = _report(plan, store, shown) if plan_has_scores(plan) else {}
    tracking = plan.cells[0].config["tracking"]
    if tracking["wandb"]:
        _export(plan, store, project=tracking["project"], entity=tracking["entity"])
    return scores


def _report(plan: Plan, store: Store, shown: Shown | None) -> Mapping[str, float]:
    """Print the report, write the page; scores by cell."""
    from scalesweep.launch.local import announce
    from scalesweep.report.command import report
    from scalesweep.report.command import study_report as make_report
    from scalesweep.study_verbs import terminal_width

    try:
        announce(store, plan)  # again: another command may have run other cells under this name
        if shown is not None:
            print(shown(plan, store))
        else:
            print(report(store, plan.study, width=terminal_width(), color=sys.stdout.isatty()))
        page = report(store, plan.study, format="html")
        print(f"report: {page}")
        results = make_report(store, plan.study).results
    except BrokenPipeError:
        raise
    except (ScaleSweepError, OSError) as error:  # the study is not lost with its report
        print(f"scalesweep: no report: {error}", file=sys.stderr)
        return {}
    return {
        cell.cell.name: cell.scores[results.primary].score
        for cell in results.cells
        if results.primary in cell.scores
    }


def _to_export(plan: Plan, store: Store, result: StudyResult) -> bool:
    """Something is new, or what an earlier command should have written is not there."""
    return bool(result.new_attempts) or not (store.study(plan.study) / "wandb").is_dir()


def _export(plan: Plan, store: Store, *, project: str, entity: str | None) -> None:
    """Offline W&B runs, in a process of their own: the command stays light."""
    if importlib.util.find_spec("wandb") is None:
        print("W&B: not installed, no runs written (pip install 'scalesweep[wandb]')")
        return
    words = ["--project", project]
    if entity:
        words += ["--entity", entity]
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "scalesweep.tracking.export_command",
            str(store.root),
            plan.study,
            *words,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    said = (ended.stdout if ended.returncode == 0 else ended.stderr).strip().splitlines()
    if said:
        print(said[-1])


def _print_totals(begin: float, result: StudyResult) -> None:
    """Wall and core seconds of the whole command, stages, imports, export and report included."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = result.cpu_s + result.imports_cpu_s
    cores += sum(u.ru_utime + u.ru_stime for u in (own, children))
    print(f"command: {time.monotonic() - begin:.1f} s wall, {cores:.0f} core seconds")
