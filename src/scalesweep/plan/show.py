"""A plan for people (80 columns) and for programs (JSON). Reads the store only for what is done."""

from __future__ import annotations

from collections import Counter
from typing import Any

from scalesweep.plan.graph import Cell, Plan, PlannedStage
from scalesweep.records import StageKind, StageRef
from scalesweep.rundir import Store


def is_done(store: Store, ref: StageRef) -> bool:
    """Whether a stage has published its output."""
    return store.stage(ref).done_file.exists()


def totals(plan: Plan, store: Store) -> dict[str, Any]:
    """Counts of a plan."""
    kinds = Counter(str(stage.spec.kind) for stage in plan.stages)
    done = sum(is_done(store, stage.spec.ref) for stage in plan.stages)
    unshared = sum(len(set(cell.stages.values())) for cell in plan.cells)
    return {
        "cells": len(plan.cells),
        "stages": len(plan.stages),
        "stages_by_kind": {str(kind): kinds[kind] for kind in StageKind if kinds[kind]},
        "stages_done": done,
        "stages_to_run": len(plan.stages) - done,
        "stages_without_sharing": unshared,
    }


def plan_json(plan: Plan, store: Store) -> dict[str, Any]:
    """{"study", "cells": [...], "stages": [{"kind", "key", "done", "cells", ...}], "totals"}."""
    data = plan.to_json()
    for stage in data["stages"]:
        ref = StageRef(kind=StageKind(stage["kind"]), key=stage["key"])
        stage["done"] = is_done(store, ref)
        stage["cells"] = [cell.name for cell in plan.cells_of(ref)]
    return {**data, "totals": totals(plan, store)}


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
    for i, cell in enumerate(plan.cells):
        refs = set(cell.stages.values())
        done = sum(is_done(store, ref) for ref in refs)
        cells.add_row(
            str(i + 1),
            cell_label(cell),
            short_count(cell.num_trainable_params),
            short_count(cell.num_params),
            str(cell.num_nodes),
            f"{done}/{len(refs)}",
        )
    console.print(cells)
    console.print(stage_table(plan, store))
    count = totals(plan, store)
    console.print(
        f"{count['cells']} cells, {count['stages']} stages "
        f"({count['stages_without_sharing']} without sharing); "
        f"{count['stages_done']} done, {count['stages_to_run']} to run"
    )


def stage_table(plan: Plan, store: Store) -> Any:
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
        served = [len(plan.cells_of(stage.spec.ref)) for stage in stages]
        spread = f"{min(served)}" if min(served) == max(served) else f"{min(served)}-{max(served)}"
        table.add_row(
            kind,
            str(len(stages)),
            str(sum(is_done(store, stage.spec.ref) for stage in stages)),
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
