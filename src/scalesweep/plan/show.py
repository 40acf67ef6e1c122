"""A plan for people (80 columns) and for programs (JSON). Reads the store only for what is done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Set
from typing import Any

from scalesweep.plan.device_fit import cell_fits
from scalesweep.plan.graph import Cell, Plan, PlannedStage
from scalesweep.plan.show_budget import admission_json, admission_lines, study_admission
from scalesweep.records import StageKind, StageRef
from scalesweep.rundir import Store

MOST_ROWS = 200
"""Cells that are shown one by one; --json has all."""


def is_done(store: Store, ref: StageRef) -> bool:
    """Whether a stage has published its output."""
    return store.stage(ref).done_file.exists()


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


def plan_json(plan: Plan, store: Store) -> dict[str, Any]:
    """{"study", "cells": [...], "stages": [{"kind", "key", "done", "cells", ...}], "totals"}."""
    done = done_stages(plan, store)
    admission = study_admission(plan, store)
    return {
        **plan.header_json(),
        "cells": [cell.to_json() for cell in plan.cells],
        "stages": [_stage_json(plan, stage, done) for stage in plan.stages],
        **({} if admission is None else {"budget": admission_json(admission)}),
        "totals": totals(plan, done),
    }


def _stage_json(plan: Plan, stage: PlannedStage, done: Set[StageRef]) -> dict[str, Any]:
    names = [cell.name for cell in plan.cells_of(stage.ref)]
    return {**stage.to_json(), "done": stage.ref in done, "cells": names}


def plan_json_text(plan: Plan, store: Store) -> Iterator[str]:
    """The text of plan_json(), piece by piece: a plan of many cells is never held twice."""
    done = done_stages(plan, store)
    for name, value in plan.header_json().items():
        yield f"{_OPEN if name == 'schema' else ','}\n  {json.dumps(name)}: {_text(value, 2)}"
    yield from _list_text("cells", (cell.to_json() for cell in plan.cells))
    yield from _list_text("stages", (_stage_json(plan, stage, done) for stage in plan.stages))
    if (admission := study_admission(plan, store)) is not None:
        yield f',\n  "budget": {_text(admission_json(admission), 2)}'
    yield f',\n  "totals": {_text(totals(plan, done), 2)}\n}}'


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


def print_plan(plan: Plan, store: Store) -> None:
    """Cells, stages, what is shared, what is done."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold]study {plan.study}[/bold]", soft_wrap=True)
    if plan.question:
        console.print(plan.question)
    for note in plan.notes:
        console.print(f"[yellow]note[/yellow] {note}")
    cells = Table(box=box.SIMPLE_HEAD, title="cells", title_justify="left", pad_edge=False)
    cells.add_column("#", justify="right", no_wrap=True)
    cells.add_column("cell", overflow="fold")
    for column in ("trained", "of", "nodes", "done"):
        cells.add_column(column, justify="right", no_wrap=True)
    done = done_stages(plan, store)
    for i, cell in enumerate(plan.cells[:MOST_ROWS]):
        refs = set(cell.stages.values())
        cells.add_row(
            str(i + 1),
            cell_label(cell),
            short_count(cell.num_trainable_params),
            short_count(cell.num_params),
            str(cell.num_nodes),
            f"{len(refs & done)}/{len(refs)}",
        )
    console.print(cells)
    if len(plan.cells) > MOST_ROWS:
        console.print(f"and {len(plan.cells) - MOST_ROWS:,} more cells; --json has all\n")
    console.print(stage_table(plan, done))
    print_memory(plan, console)
    count = totals(plan, done)
    console.print(
        f"{count['cells']} cells, {count['stages']} stages "
        f"({count['stages_without_sharing']} without sharing); "
        f"{count['stages_done']} done, {count['stages_to_run']} to run"
    )
    if (admission := study_admission(plan, store)) is not None:
        for line in admission_lines(plan, admission, cell_label):
            console.print(escape(line), soft_wrap=True)


def print_memory(plan: Plan, console: Any) -> None:
    """Whether cells fit their devices, where it is known how large those are."""
    fits = cell_fits(plan)
    if not fits:
        return
    console.print("memory of a device, largest training stage of each cell")
    for i, cell in enumerate(plan.cells[:MOST_ROWS]):
        if cell.name in fits:
            console.print(f"  {i + 1}  {cell_label(cell)}: {fits[cell.name]}", soft_wrap=True)
    console.print()


def stage_table(plan: Plan, done: Set[StageRef]) -> Any:
    """One row per kind and shape: how many stages, shared by how many cells, on what."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="stages", title_justify="left", pad_edge=False)
    table.add_column("kind")
    for column in ("stages", "done", "nodes", "devices", "serve cells"):
        table.add_column(column, justify="right")
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
            str(nodes),
            f"{nodes * devices}",
            spread,
        )
    return table


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
