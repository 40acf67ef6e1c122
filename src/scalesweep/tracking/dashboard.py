"""What a study's dashboard shows, as plain data: a workspace to look around in, a report to read.

Of the runs that describe_runs makes: their summaries, the point in their config, their curves and
the tables of the study's run. Which library draws it is said elsewhere (workspaces.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scalesweep.report import summary
from scalesweep.report.answer_text import answer_sentences
from scalesweep.report.formatting import public, sentence
from scalesweep.report.render_markdown import markdown_table
from scalesweep.report.study_report import StudyReport
from scalesweep.report.table import Table
from scalesweep.report.tables import all_tables
from scalesweep.tracking import metric_names
from scalesweep.tracking.runs import CURVES, SWEPT, swept
from scalesweep.tracking.study_tables import study_tables

MOST_RUNS = 100
"""Lines in a chart of curves, at the most."""
MOST_ROWS = 40
"""Of a table in the report's text; of a longer one the stored table is shown."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """One number or word of a run."""

    name: str
    in_config: bool = False
    """Otherwise in the summary."""


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """One point per run."""

    title: str
    x: Key
    y: Key
    color: Key | None = None
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, kw_only=True)
class Axis:
    key: Key
    title: str
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class ParallelCoordinates:
    """One line per run, through its value on each axis."""

    title: str
    axes: tuple[Axis, ...]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """One line per run, over steps."""

    title: str
    x: str
    y: str


@dataclass(frozen=True, kw_only=True)
class RunsTable:
    """Settings and summaries of runs side by side, only where they differ."""


@dataclass(frozen=True, kw_only=True)
class StoredTable:
    """A table that the study's run holds."""

    name: str


Panel = Scatter | ParallelCoordinates | Curves | RunsTable | StoredTable


@dataclass(frozen=True, kw_only=True)
class Section:
    title: str
    panels: tuple[Panel, ...]
    is_open: bool = True


@dataclass(frozen=True, kw_only=True)
class Heading:
    text: str


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    text: str


@dataclass(frozen=True, kw_only=True)
class Markdown:
    text: str


@dataclass(frozen=True, kw_only=True)
class Panels:
    """Panels in a report. of_study: of the study's own run instead of its cells'."""

    panels: tuple[Panel, ...]
    of_study: bool = False


Block = Heading | Paragraph | Markdown | Panels


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    study: str
    title: str
    description: str
    columns: tuple[Key, ...]
    """Of the list of runs."""
    order: Key
    """Runs are listed by it, the largest first."""
    num_runs: int
    """That charts of curves should hold."""
    sections: tuple[Section, ...]
    report: tuple[Block, ...]


def dashboard(report: StudyReport) -> Dashboard:
    """Of a study, whatever of it is there."""
    results = report.results
    study = results.plan.study
    score = Key(name=f"score/{report.primary}")
    asked, more = summary.question(report)
    tables = study_tables(report)
    main = _main_panels(report)
    predicted = _predicted_panels(report)
    curves = _curves(report)
    stored = tuple(StoredTable(name=name) for name in tables)
    sections = [
        Section(title="Cost and score", panels=main),
        Section(title="Predicted and measured", panels=predicted),
        Section(title="Curves", panels=curves),
        Section(title="Runs side by side", panels=(RunsTable(),), is_open=False),
        Section(title="Tables", panels=stored, is_open=False),
    ]
    return Dashboard(
        study=study,
        title=f"Study {study}",
        description=asked,
        columns=(*(axis.key for axis in _swept_axes(report)), _cost_key(report), score),
        order=score,
        num_runs=min(len(results.cells), MOST_RUNS),
        sections=tuple(section for section in sections if section.panels),
        report=(
            Paragraph(text=asked),
            *([Paragraph(text=more)] if more else []),
            *_said(report),
            Heading(text="Charts"),
            Panels(panels=main),
            *(block for table in all_tables(report) for block in _table(table)),
            *([Heading(text="Predicted and measured")] if predicted else []),
            *([Panels(panels=predicted)] if predicted else []),
            Heading(text="Curves"),
            Panels(panels=curves),
            Heading(text="Cells and attempts"),
            Panels(
                panels=tuple(
                    StoredTable(name=name)
                    for name in ("cells", "ledger", "predictions")
                    if name in tables
                ),
                of_study=True,
            ),
            *_notes(report),
        ),
    )


def _cost_key(report: StudyReport, *, of: str = "cost", kind: str = "standalone_") -> Key:
    """In dollars, or in node-hours where there are no prices."""
    return Key(name=f"{of}/{kind}{'usd' if report.has_prices else 'node_hours'}")


def _main_panels(report: StudyReport) -> tuple[Panel, ...]:
    score = Key(name=f"score/{report.primary}")
    size = Key(name="params/total")
    unit = "$" if report.has_prices else "node-hours"
    alone, tune = _cost_key(report), _cost_key(report, kind="")
    axes = [
        *_swept_axes(report),
        Axis(key=alone, title=f"cost alone, {unit}", log=True),
        Axis(key=score, title=report.primary),
    ]
    return (
        Scatter(
            title=f"{report.primary} against the cost of the whole cell ({unit})",
            x=alone,
            y=score,
            color=size,
            log_x=True,
        ),
        Scatter(
            title=f"{report.primary} against the cost of tuning ({unit})",
            x=tune,
            y=score,
            color=size,
            log_x=True,
        ),
        ParallelCoordinates(title="Settings, cost and score", axes=tuple(axes)),
    )


def _swept_axes(report: StudyReport) -> tuple[Axis, ...]:
    """Settings in which cells differ."""
    points = [swept(cell.cell) for cell in report.results.cells]
    names = dict.fromkeys(name for point in points for name in point)
    axes = []
    for name in names:
        values = [point.get(name) for point in points]
        if any(value != values[0] for value in values):
            axes.append(
                Axis(
                    key=Key(name=f"{SWEPT}.{name}", in_config=True),
                    title=name,
                    log=_spans_decades(values),
                )
            )
    return tuple(axes)


def _spans_decades(values: Sequence[Any]) -> bool:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return len(numbers) == len(values) and min(numbers) > 0 and max(numbers) >= 10 * min(numbers)


def _predicted_panels(report: StudyReport) -> tuple[Panel, ...]:
    """Empty where nothing was predicted."""
    if all(stage.execution.predicted is None for stage in report.results.plan.stages):
        return ()
    kinds = {"standalone_": "the whole cell", "": "tuning"}
    return tuple(
        Scatter(
            title=f"Cost of {what}, predicted (across) and measured",
            x=_cost_key(report, of="predicted", kind=kind),
            y=_cost_key(report, kind=kind),
            log_x=True,
            log_y=True,
        )
        for kind, what in kinds.items()
    )


def _curves(report: StudyReport) -> tuple[Panel, ...]:
    roles = [
        role for role in CURVES if any(role in cell.cell.stages for cell in report.results.cells)
    ]
    loss = [_curve(role, metric_names.LOSS, metric_names.STEP) for role in roles]
    if "tune" in roles:
        loss.append(_curve("tune", metric_names.LOSS, metric_names.TOKENS_SEEN))
        loss.append(_curve("tune", metric_names.TOKENS_PER_SECOND, metric_names.STEP))
    return tuple(loss)


def _curve(role: str, metric: str, over: str) -> Curves:
    return Curves(
        title=f"{role}: {metric} by {over}".replace("_", " "),
        x=f"{role}/{over}",
        y=f"{role}/{metric}",
    )


def _said(report: StudyReport) -> list[Block]:
    """Where the study stands, and its answer."""
    texts = [
        summary.progress(report),
        *answer_sentences(report),
        summary.findings_summary(report),
    ]
    return [Paragraph(text=public(text)) for text in texts if text]


def _table(table: Table) -> list[Block]:
    is_long = len(table.rows) > MOST_ROWS
    return [
        Heading(text=table.title),
        Panels(panels=(StoredTable(name=table.id),), of_study=True)
        if is_long
        else Markdown(text=public(markdown_table(table))),
        *(Paragraph(text=public(note)) for note in table.notes),
    ]


def _notes(report: StudyReport) -> list[Block]:
    plan = report.results.plan
    texts = [sentence(public(n)) for n in (*plan.notes, *report.results.warnings)]
    if plan.command:
        texts.append(f"Made by: {public(plan.command)}")
    return [Heading(text="Notes"), *(Paragraph(text=text) for text in texts)] if texts else []
