"""The paper's table 4 as the declared model of training time predicts it; needs no study."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from scalesweep.cost_model import table4
from scalesweep.cost_model.table4 import Prediction
from scalesweep.errors import ConfigError
from scalesweep.report.paper.render import FORMATS
from scalesweep.report.table import Column, Entry, Table

TITLE = "Table 4, time of the tune stage: published and predicted"


def predicted_table4(format: str, *, width: int = 80, color: bool = False) -> str:
    """The nine rows as text.

    Raises:
        ConfigError: no such format.
    """
    if format == "terminal":
        from scalesweep.report.render_terminal import table_text

        return table_text(_laid_out(), width=width, color=color)
    if format == "md":
        from scalesweep.report.render_markdown import markdown_section

        return markdown_section(_laid_out())
    if format == "csv":
        return _csv()
    if format == "json":
        return json.dumps(as_json(), indent=2) + "\n"
    raise ConfigError(f"--format={format}: a paper's table comes as {', '.join(FORMATS)}")


def as_json() -> dict[str, Any]:
    """Errors in percent."""
    by_row, by_size = table4.leave_one_row_out(), table4.leave_one_size_out()
    sixty_five = table4.sixty_five_from_smaller()
    return {
        "table": "table4",
        "efficiency": table4.EFFICIENCY,
        "rows": [
            {
                "row": row.run.label,
                "published_node_hours": row.run.node_hours,
                "declared_node_hours": _declared_hours(row),
                "row_left_out": _prediction_json(row),
                "size_left_out": _prediction_json(size),
            }
            for row, size in zip(by_row, by_size, strict=True)
        ],
        "leave_one_row_out": 100 * table4.mean_error(by_row),
        "worst_row": 100 * table4.worst_error(by_row),
        "leave_one_size_out": 100 * table4.mean_error(by_size),
        "sixty_five_from_smaller": {f.run.label: 100 * f.error for f in sixty_five},
    }


def _prediction_json(found: Prediction) -> dict[str, float]:
    return {"node_hours": found.node_hours, "error": 100 * found.error}


def _declared_hours(found: Prediction) -> float:
    """With the constant that plans use."""
    return table4.predicted_node_hours(found.run, efficiency=table4.EFFICIENCY)


def _laid_out() -> Table:
    by_row, by_size = table4.leave_one_row_out(), table4.leave_one_size_out()
    rows = [
        (
            Entry(text=row.run.label),
            _hours(row.run.node_hours),
            *_entries(row),
            *_entries(size),
        )
        for row, size in zip(by_row, by_size, strict=True)
    ]
    columns = [Column(title="row", is_number=False), Column(title="published", hint="node-hours")]
    for left_out in ("row", "size"):
        hint = f"the constant is fitted to the rows of other {left_out}s"
        columns += [Column(title=f"no {left_out}", hint=hint), Column(title="error", hint=hint)]
    return Table(
        id="table4_predicted",
        title=TITLE,
        columns=tuple(columns),
        rows=tuple(rows),
        notes=_notes(by_row, by_size),
    )


def _notes(by_row: Sequence[Prediction], by_size: Sequence[Prediction]) -> tuple[str, ...]:
    sixty_five = ", ".join(
        f"{found.run.label} {found.error:+.1%}" for found in table4.sixty_five_from_smaller()
    )
    return (
        "node-hours = samples x FLOPs of a sample / (efficiency x 312 TFLOP/s x 8 x 3600); the one "
        "constant is the efficiency, fitted to the rows that are not left out",
        f"without the row itself: mean error {table4.mean_error(by_row):.2%}, worst "
        f"{table4.worst_error(by_row):.1%}; without all rows of its size: mean "
        f"{table4.mean_error(by_size):.2%}",
        f"65B from 33B and smaller: {sixty_five}",
        f"plans take {table4.EFFICIENCY:.1%}, the mean of all nine, where nothing was measured; "
        "tokens a sample and efficiency cannot be told apart by these rows",
    )


def _entries(found: Prediction) -> tuple[Entry, Entry]:
    return _hours(found.node_hours), Entry(text=f"{found.error:+.1%}", sort=found.error)


def _hours(value: float) -> Entry:
    return Entry(text=f"{value:.2f}", sort=value)


def _csv() -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("node_hours", "error_percent")
    writer.writerow(
        ["row", "published_node_hours", "declared_node_hours"]
        + [f"{left_out}_left_out_{name}" for left_out in ("row", "size") for name in names]
    )
    for row in as_json()["rows"]:
        numbers = [n for key in ("row_left_out", "size_left_out") for n in row[key].values()]
        writer.writerow(
            [row["row"], row["published_node_hours"], row["declared_node_hours"], *numbers]
        )
    return text.getvalue()
