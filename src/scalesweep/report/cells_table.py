"""Every cell of a study by itself: seed, state, score, cost and what it took."""

from __future__ import annotations

from scalesweep.report import formatting as fmt
from scalesweep.report.collect import CellResult
from scalesweep.report.stage_results import StageState
from scalesweep.report.study_report import StudyReport
from scalesweep.report.table import Column, Entry, Table
from scalesweep.report.tables import JUDGE_COLUMN, judge_entry


def cells_table(report: StudyReport) -> Table:
    """One row per cell; costs with ≥ are of cells that are not done."""
    cells = report.results.cells
    values = [_cost(report, cell) for cell in cells]
    decimals = fmt.decimals_for(values, most=5)
    has_lost = any(cell.costs.lost.device_ms for cell in cells)
    has_judges = report.results.judging is not None
    columns = (
        Column(title="cell", is_number=False),
        Column(title="state", is_number=False),
        Column(title="score", hint=report.primary),
        Column(title="alone $" if report.has_prices else "alone h", hint="all its stages, whole"),
        *([JUDGE_COLUMN] if has_judges else []),
        Column(title="tune time", hint="all attempts of the tune stage, on the clock"),
        *([Column(title="lost", hint="device time of work done again")] if has_lost else []),
        Column(title="attempts", hint="of all its stages"),
        Column(title="last loss", hint="of the tune stage's last optimizer step"),
    )
    rows = []
    for cell, cost in zip(cells, values, strict=True):
        attempts = sum(
            len(report.results.stages[ref].attempts) for ref in set(cell.cell.stages.values())
        )
        price = fmt.number(cost, decimals=decimals)
        if not cell.costs_are_whole:
            price = f"≥{price}" if cost else fmt.NOTHING
        lost = cell.costs.lost.device_seconds
        rows.append(
            (
                Entry(text=cell.cell.name, hint=cell.label),
                Entry(
                    text=str(cell.state),
                    hint=fmt.public(cell.cause),
                    tone="" if cell.state is StageState.done else "contrary",
                ),
                _number(cell.score(report.primary), fmt.score(cell.score(report.primary))),
                Entry(text=price, sort=cost),
                *([judge_entry([cell], decimals=decimals)] if has_judges else []),
                _number(cell.wall_s or None, fmt.duration(cell.wall_s)),
                *([_number(lost or None, fmt.duration(lost))] if has_lost else []),
                Entry(text=str(attempts), sort=attempts),
                _number(cell.loss[-1].loss, f"{cell.loss[-1].loss:.3f}")
                if cell.loss
                else _number(None, ""),
            )
        )
    return Table(id="cells", title="Every cell", columns=columns, rows=tuple(rows))


def _cost(report: StudyReport, cell: CellResult) -> float:
    cost = cell.costs.standalone
    return cost.usd if report.has_prices else cost.node_hours


def _number(value: float | None, text: str) -> Entry:
    if value is None:
        return Entry(text=fmt.NOTHING, sort=-1.0, tone="faint")
    return Entry(text=text, sort=value)
