"""W&B runs as plain data: what a study's records say, one run per cell and one of the study.

A run of a cell holds its curves in sections named by role (base, tower, align, tune), each over its
own step; `score/`, `standard_error/`, `cost/`, `predicted/` and `params/` are in the summary. A
stage that several cells share is repeated in each of them, and config `scalesweep.shared_by` says
how many they are. The run of the study holds the report's tables, its ledger and its page.

Nothing private is in it: no absolute path, no host, nothing under a key that sounds secret.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scalesweep.plan.graph import Cell
from scalesweep.records import canonical_json
from scalesweep.report import answer_text
from scalesweep.report import summary as summary_texts
from scalesweep.report.collect import CellResult
from scalesweep.report.formatting import public
from scalesweep.report.html import render_html
from scalesweep.report.stage_results import StageState, metric_rows
from scalesweep.report.study_report import StudyReport
from scalesweep.report.versions import known_versions
from scalesweep.rundir import Store
from scalesweep.tracking import metric_names
from scalesweep.tracking.redaction import public_config
from scalesweep.tracking.study_tables import TableData, study_tables
from scalesweep.tracking.summaries import (
    cost,
    judge_cost,
    measured_costs,
    predicted_costs,
    scores,
)

CURVES = ("base", "tower", "align", "tune")
"""Roles of stages that have optimizer steps, in the order in which a cell needs them."""

SWEPT = "swept"
"""Key of a cell's config under which its point stands: a chart can have a column of each."""

Row = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RunDescription:
    """Everything one W&B run shows."""

    id: str
    name: str
    group: str
    job_type: str
    """cell | study."""
    tags: tuple[str, ...]
    notes: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    is_done: bool
    """Otherwise W&B shows the run as failed; state in the summary says what it is."""
    sections: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    """Section -> rows by rising step, each step once: {"step": 1, "loss": 3.2}."""
    tables: Mapping[str, TableData] = field(default_factory=dict)
    page: str = ""
    """HTML."""

    @property
    def digest(self) -> str:
        """Equal exactly when all of it is."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)  # a loss may be NaN
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def last_steps(self) -> dict[str, int]:
        """Section -> its last step."""
        return {
            name: int(rows[-1][metric_names.STEP]) for name, rows in self.sections.items() if rows
        }


def describe_runs(report: StudyReport, store: Store) -> list[RunDescription]:
    """The run of the study, then one per cell in the order of the plan."""
    return [
        _study_run(report),
        *(_cell_run(report, cell, store) for cell in report.results.cells),
    ]


def cell_run_id(study: str, cell: Cell) -> str:
    """The same whenever this cell is exported: how its W&B run is found again.

    The keys of the trained stages are in it: a cell that trains something else under the same name
    is another run.
    """
    trained = {role: cell.stages[role].key for role in CURVES if role in cell.stages}
    return _run_id(["cell", study, cell.name, trained])


def study_run_id(study: str) -> str:
    return _run_id(["study", study])


def _run_id(what: Sequence[Any]) -> str:
    return hashlib.sha256(canonical_json(what).encode()).hexdigest()[:16]


def _cell_run(report: StudyReport, cell: CellResult, store: Store) -> RunDescription:
    results = report.results
    stages = {role: results.stages[ref] for role, ref in cell.cell.stages.items()}
    curves = [role for role in CURVES if role in stages]
    shared_by = {role: stages[role].num_cells for role in curves if stages[role].num_cells > 1}
    on_front = any(cell in setting.cells for setting in report.front)
    tags = [str(cell.state), *(f"shared {role}" for role in shared_by)]
    tags += [name for name, holds in (("blind", cell.is_blind), ("pareto", on_front)) if holds]
    sections = {}
    for role in curves:
        published = next((a.number for a in stages[role].attempts if a.published), None)
        rows = metric_rows(store.stage(stages[role].ref), published=published)
        sections[role] = tuple(_curve_row(row) for row in rows)
    return RunDescription(
        id=cell_run_id(results.plan.study, cell.cell),
        name=cell.cell.name,
        group=results.plan.study,
        job_type="cell",
        tags=tuple(tags),
        notes=public(cell.cause),
        config={
            **public_config(cell.cell.config),
            SWEPT: swept(cell.cell),
            "scalesweep": {
                "study": results.plan.study,
                "cell": cell.cell.name,
                "setting": cell.label,
                "point": public_config(cell.cell.point),
                "stages": {role: str(stage.ref) for role, stage in stages.items()},
                "shared_by": shared_by,
                "nodes": cell.cell.num_nodes,
            },
        },
        summary={
            "state": str(cell.state),
            "cause": public(cell.cause),
            "pareto": on_front,
            "params/trainable": cell.cell.num_trainable_params,
            "params/total": cell.cell.num_params,
            **measured_costs(cell),
            **predicted_costs(results.plan, cell.cell),
            **scores(cell),
        },
        is_done=cell.state is StageState.done,
        sections={role: rows for role, rows in sections.items() if rows},
    )


def swept(cell: Cell) -> dict[str, Any]:
    """Setting -> this cell's value, without dots in the names: W&B takes a dot for a level."""
    point = public_config(cell.point)
    return {name.replace(".", "_"): value for name, value in point.items()}


def _curve_row(row: Mapping[str, Any]) -> Row:
    """Its metrics: numbers, but neither how far the stage was nor what the clock said."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name != "time"
        and not name.startswith("progress/")
    }


def _study_run(report: StudyReport) -> RunDescription:
    results = report.results
    study, num_cells = results.plan.study, len(results.cells)
    is_done = results.num_done == num_cells
    state = "done" if is_done else "unfinished"
    asked, more = summary_texts.question(report)
    return RunDescription(
        id=study_run_id(study),
        name=f"study {study}",
        group=study,
        job_type="study",
        tags=(state,),
        notes=" ".join(text for text in (asked, more) if text),
        config={
            "scalesweep": {
                "study": study,
                "command": public(results.plan.command),
                "primary": results.primary,
                "prices": [dataclasses.asdict(price) for price in results.prices],
                "versions": known_versions(results),
                "versions_recorded": bool(results.versions),
                "notes": [public(note) for note in results.plan.notes],
                "warnings": [public(warning) for warning in results.warnings],
            }
        },
        summary={
            "state": state,
            "answer": answer_text.answer(report),
            "cells/total": num_cells,
            "cells/done": results.num_done,
            **cost("cost/", results.total.total),
            **cost("cost/startup_", results.total.startup),
            **cost("cost/lost_", results.total.lost),
            **judge_cost("cost/", results.judging),
        },
        is_done=is_done,
        tables=study_tables(report),
        page=render_html(report),
    )
