"""A plan for people (80 columns) and for programs (JSON). Reads the store only for what is done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Set
from typing import Any

from scalesweep.plan.graph import Cell, Plan, PlannedStage
from scalesweep.plan.show_budget import admission_json, admission_lines, study_admission
from scalesweep.plan.show_costs import (
    Outlook,
    add_cost_columns,
    cell_json,
    cost_entries,
    plan_cost_json,
    stage_costs,
    total_lines,
    unfit_lines,
)
from scalesweep.records import StageKind, StageRef
from scalesweep.rundir import Store

MOST_ROWS = 200
"""Cells that are shown one by one; --json has all."""
MOST_UNFIT = 20
"""Cells of which it is said why they do not fit."""


def is_done(store: Store, ref: StageRef) -> bool:
    """Whether a stage has published its output."""
    return store.stage(ref).is_done


def done_stages(plan: Plan, store: Store) -> frozenset[StageRef]:
    """Stages of a plan that have published their output."""
    return frozenset(stage.ref for stage in plan.stages if is_done(store, stage.ref))


def totals(plan: Plan, done: Set[StageRef]) -> dict[str, Any]:
    """Counts of a plan."""
    kinds = Counter(str(stage.spec.kind) for stage in plan.stages)
    unshared = sum(len(set(cell.stages.values())) for cell in plan.cells)
    return {
        "cells": len(plan.cells),
        "stages": len(plan.stages),
        "stages_by_kind": {str(kind): kinds[kind] for kind in StageKind if kinds[kind]},
        "stages_done": len(done),
        "stages_to_run": len(plan.stages) - len(done),
        "stages_without_sharing": unshared,
    }


def _outlook(plan: Plan, store: Store, num_nodes: int | None) -> Outlook:
    """Raises PlanError: a stage alone takes more nodes than there would be."""
    outlook = Outlook(plan=plan, done=done_stages(plan, store), num_nodes=num_nodes)
    _ = outlook.wall  # before anything is printed
    return outlook


def plan_json(plan: Plan, store: Store, *, num_nodes: int | None = None) -> dict[str, Any]:
    """{"study", "cells": [...], "stages": [{"kind", "key", "done", "cells", ...}], "totals"}.

    num_nodes: for the wall time; see show_costs.Outlook.
    """
    outlook = _outlook(plan, store, num_nodes)
    admission = study_admission(plan, store)
    return {
        **plan.header_json(),
        "cells": [_cell_json(outlook, cell) for cell in plan.cells],
        "stages": [_stage_json(plan, stage, outlook.done) for stage in plan.stages],
        **({} if admission is None else {"budget": admission_json(admission)}),
        "totals": totals(plan, outlook.done),
        "predicted": plan_cost_json(outlook),
    }


def _cell_json(outlook: Outlook, cell: Cell) -> dict[str, Any]:
    return {**cell.to_json(), "predicted": cell_json(outlook, cell)}


def _stage_json(plan: Plan, stage: PlannedStage, done: Set[StageRef]) -> dict[str, Any]:
    names = [cell.name for cell in plan.cells_of(stage.ref)]
    return {**stage.to_json(), "done": stage.ref in done, "cells": names}


def plan_json_text(plan: Plan, store: Store, *, num_nodes: int | None = None) -> Iterator[str]:
    """The text of plan_json(), piece by piece: a plan of many cells is never held twice."""
    outlook = _outlook(plan, store, num_nodes)
    for name, value in plan.header_json().items():
        yield f"{_OPEN if name == 'schema' else ','}\n  {json.dumps(name)}: {_text(value, 2)}"
    yield from _list_text("cells", (_cell_json(outlook, cell) for cell in plan.cells))
    stages = (_stage_json(plan, stage, outlook.done) for stage in plan.stages)
    yield from _list_text("stages", stages)
    if (admission := study_admission(plan, store)) is not None:
        yield f',\n  "budget": {_text(admission_json(admission), 2)}'
    yield f',\n  "totals": {_text(totals(plan, outlook.done), 2)}'
    yield f',\n  "predicted": {_text(plan_cost_json(outlook), 2)}\n}}'


_OPEN = "{"


def _list_text(name: str, items: Iterator[object]) -> Iterator[str]:
    """An entry of the outermost object that is a list with something in it."""
    before = f',\n  "{name}": [\n    '
    for item in items:
        yield before + _text(item, 4)
        before = ",\n    "
    yield "\n  ]"


def _text(value: object, indent: int) -> str:
    text = json.dumps(value, indent=2, allow_nan=False)
    return text.replace("\n", "\n" + " " * indent)


def short_count(number: int) -> str:
    """A parameter count in three or four signs: 34.9k, 645k, 0.256B, 33B."""
    if number < 10_000:
        return str(number)
    if number < 1_000_000:
        return f"{number / 1e3:.3g}k"
    if number < 100_000_000:
        return f"{number / 1e6:.3g}M"
    return f"{number / 1e9:.2f}B" if number < 10_000_000_000 else f"{number / 1e9:.1f}B"


def print_plan(
    plan: Plan, store: Store, *, num_nodes: int | None = None, each_stage: bool = False
) -> None:
    """Cells, stages, what is shared, what is done, and what it is expected to take.

    each_stage: a row for every stage, instead of one for each kind and shape.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    outlook = _outlook(plan, store, num_nodes)
    console = Console(highlight=False)
    console.print(f"[bold]study {plan.study}[/bold]", soft_wrap=True)
    if plan.question:
        console.print(plan.question)
    for note in plan.notes:
        console.print(f"[yellow]note[/yellow] {note}")
    cells = Table(box=box.SIMPLE_HEAD, title="cells", title_justify="left", pad_edge=False)
    cells.add_column("#", justify="right", no_wrap=True)
    cells.add_column("cell", overflow="fold")
    done = outlook.done
    for column in ("trained", *(() if outlook.is_known else ("of", "nodes"))):
        cells.add_column(column, justify="right", no_wrap=True)
    add_cost_columns(cells, outlook)
    cells.add_column("done", justify="right", no_wrap=True)
    for i, cell in enumerate(plan.cells[:MOST_ROWS]):
        refs = set(cell.stages.values())
        cells.add_row(
            str(i + 1),
            cell_label(cell),
            short_count(cell.num_trainable_params),
            *([] if outlook.is_known else [short_count(cell.num_params), str(cell.num_nodes)]),
            *cost_entries(outlook, cell),
            f"{len(refs & done)}/{len(refs)}",
        )
    console.print(cells)
    if len(plan.cells) > MOST_ROWS:
        console.print(f"and {len(plan.cells) - MOST_ROWS:,} more cells; --json has all\n")
    for line in unfit_lines(outlook, MOST_UNFIT):
        console.print(escape(line))
    console.print((each_stage_table if each_stage else stage_table)(plan, done, outlook))
    if each_stage and len(plan.stages) > MOST_ROWS:
        console.print(f"and {len(plan.stages) - MOST_ROWS:,} more stages; --json has all\n")
    count = totals(plan, done)
    console.print(
        f"{_plural(count['cells'], 'cell')}, {_plural(count['stages'], 'stage')} "
        f"({count['stages_without_sharing']} without sharing); "
        f"{count['stages_done']} done, {count['stages_to_run']} to run"
    )
    for line in total_lines(outlook):
        console.print(line)
    if (admission := study_admission(plan, store)) is not None:
        for line in admission_lines(plan, admission, cell_label):
            console.print(escape(line))


def stage_table(plan: Plan, done: Set[StageRef], outlook: Outlook) -> Any:
    """One row per kind and shape: how many stages, on how many nodes x devices, shared by how
    many cells, hours of one, node-hours and dollars of all."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="stages", title_justify="left", pad_edge=False)
    table.add_column("kind")
    costs = ("each", "node-h", *(("$",) if outlook.has_price else ()))
    columns = ("stages", "done", "on", "cells", *(costs if outlook.is_known else ()))
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    groups: dict[tuple[str, int, int], list[PlannedStage]] = {}
    for stage in plan.stages:
        execution = stage.execution
        shape = (str(stage.spec.kind), execution.num_nodes, execution.devices_per_node)
        groups.setdefault(shape, []).append(stage)
    order = [str(kind) for kind in StageKind]
    for (kind, nodes, devices), stages in sorted(
        groups.items(), key=lambda item: (order.index(item[0][0]), item[0])
    ):
        served = [len(plan.cells_of(stage.ref)) for stage in stages]
        spread = f"{min(served)}" if min(served) == max(served) else f"{min(served)}-{max(served)}"
        table.add_row(
            kind,
            str(len(stages)),
            str(sum(stage.ref in done for stage in stages)),
            f"{nodes} x {devices}",
            spread,
            *stage_costs(stages, outlook),
        )
    return table


def each_stage_table(plan: Plan, done: Set[StageRef], outlook: Outlook) -> Any:
    """One row per stage, in the order in which they can run."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="stages", title_justify="left", pad_edge=False)
    table.add_column("stage", overflow="fold")
    costs = ("takes", "node-h", *(("$",) if outlook.has_price else ()))
    memory = ("GB",) if outlook.has_gpus else ()
    for column in ("on", "cells", *((*costs, *memory) if outlook.is_known else ()), "done"):
        table.add_column(column, justify="right", no_wrap=True)
    for stage in plan.stages[:MOST_ROWS]:
        execution, found = stage.execution, stage.execution.predicted
        size = found.device_bytes if found is not None else 0.0
        entries = [
            stage.spec.label,
            f"{execution.num_nodes} x {execution.devices_per_node}",
            str(len(plan.cells_of(stage.ref))),
            *stage_costs([stage], outlook),
        ]
        if outlook.is_known and outlook.has_gpus:
            entries.append(f"{size / 1e9:.3g}" if size else "")
        table.add_row(*entries, "yes" if stage.ref in done else "")
    return table


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def cell_label(cell: Cell) -> str:
    """Model, resolution, mix and tuning of a cell, then whatever else varies in its study."""
    config = cell.config
    words = [
        config["model"]["name"],
        config["resolution"]["name"],
        config["data_mix"]["name"],
        config["tuning"]["method"],
    ]
    for key, value in cell.point.items():
        name = key.rpartition(".")[2]
        if key in ("model", "resolution", "data_mix", "tuning") or value is False:
            continue
        text = f"{value:g}" if isinstance(value, float) else str(value)
        words.append(name if value is True else f"{name}={text}")
    return " ".join(words)
