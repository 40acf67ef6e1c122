"""The last lines of a run: what is done, what failed and why, and what it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from scalesweep.launch.local import StageRun, State, StudyResult
from scalesweep.launch.progress import seconds_text
from scalesweep.plan.graph import Cell, Plan

WORST_FIRST = (
    State.failed,
    State.out_of_budget,
    State.left_out,
    State.interrupted,
    State.blocked,
)


def cell_fault(cell: Cell, result: StudyResult) -> StageRun | None:
    """The stage that keeps a cell from being done: the failed one, not what waits for it."""
    runs = [result.runs[ref] for ref in cell.stages.values()]
    for state in (
        State.failed,
        State.out_of_budget,
        State.left_out,
        State.interrupted,
        State.blocked,
    ):
        for run in runs:
            if run.state is state:
                return run
    return None


def summary_lines(plan: Plan, result: StudyResult) -> list[str]:
    """Plain lines; one for each cell that is not done."""
    counts = Counter(run.state for run in result.runs.values())
    if result.all_done and not result.new_attempts:
        return [f"all {len(result.runs)} stages were done; 0 new attempts, {result.wall_s:.1f} s"]
    states = [f"{counts[state]} {state}" for state in State if counts[state]]
    before = sum(run.was_done for run in result.runs.values())
    lines = [
        f"{len(result.runs)} stages: {', '.join(states)} ({before} done before), "
        f"{result.new_attempts} new attempts",
        f"wall {seconds_text(result.wall_s)} ({result.wall_s:.0f} s), "
        f"cores {result.cpu_s:.0f} core seconds in stages",
    ]
    return lines + fault_lines(plan.cells, result)


def fault_lines(cells: Sequence[Cell], result: StudyResult) -> list[str]:
    """One line for every cell that is not done: name, stage, cause, log."""
    lines = []
    for cell in cells:
        fault = cell_fault(cell, result)
        if fault is None:
            continue
        log = f"; log: {fault.log}" if fault.log else ""
        lines.append(f"{fault.state}: cell {cell.name}: {fault.label}: {fault.cause}{log}")
    return lines
