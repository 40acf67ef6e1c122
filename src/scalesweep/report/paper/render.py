"""A paper's table in the terminal, as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from scalesweep.errors import ConfigError
from scalesweep.report import formatting as fmt
from scalesweep.report.paper.beside_score import Value
from scalesweep.report.paper.build import HERE, Line, PaperTable
from scalesweep.report.paper.published import Quantity
from scalesweep.report.table import Column, Entry, Table

FORMATS = ("terminal", "md", "csv", "json")


def render(table: PaperTable, format: str, *, width: int = 80, color: bool = False) -> str:
    """The table as text.

    Raises:
        ConfigError: no such format.
    """
    if format == "terminal":
        from scalesweep.report.render_terminal import table_text

        return table_text(laid_out(table), width=width, color=color)
    if format == "md":
        from scalesweep.report.render_markdown import markdown_section

        return markdown_section(laid_out(table))
    if format == "csv":
        return _csv(table)
    if format == "json":
        return json.dumps(_json(table), indent=2) + "\n"
    raise ConfigError(f"--format={format}: a paper's table comes as {', '.join(FORMATS)}")


def laid_out(table: PaperTable) -> Table:
    """Published lines by their names, this study's indented below."""
    columns = [
        Column(title="model", is_number=False),
        *(Column(title=measure.title) for measure in table.measures),
    ]
    if table.shows_speed:
        columns += [
            Column(title="s/ans", hint="mean seconds from asking to answering"),
            Column(title="tok/s"),
        ]
    rows, published = [], ""
    for line in table.lines:
        if line.source == HERE:
            label = f"  here{'' if line.label == published else f': {line.label}'}"
        else:
            label = published = line.label
        rows.append(tuple(_entries(table, line, label)))
    return Table(
        id=table.name,
        title=table.title,
        columns=tuple(columns),
        rows=tuple(rows),
        notes=table.notes,
    )


def _entries(table: PaperTable, line: Line, label: str) -> list[Entry]:
    tone = "best" if line.source == HERE else ""
    entries = [Entry(text=label, tone=tone)]
    entries += [
        # Errors of parts are in CSV and JSON: 80 columns have no room for them.
        _entry(value, tone, with_error=measure.part is None)
        if measure.quantity is Quantity.score
        else _plain_entry(value, tone, is_published=line.source != HERE)
        for value, measure in zip(line.values, table.measures, strict=True)
    ]
    if table.shows_speed:
        speed = line.speed
        for number, decimals in (
            (speed.latency_s if speed else None, 2),
            (speed.tokens_per_second if speed else None, 1),
        ):
            text = "" if number is None else f"{number:.{decimals}f}"
            entries.append(Entry(text=text, sort=number, tone=tone))
    return entries


def _entry(value: Value | None, tone: str, *, with_error: bool) -> Entry:
    if value is None:
        return Entry(text=fmt.NOTHING, sort=-1.0, tone="faint")
    error = f" ± {value.error:.1f}" if with_error and value.error is not None else ""
    return Entry(text=f"{value.value:.1f}{error}", sort=value.value, tone=tone)


def _plain_entry(value: Value | None, tone: str, *, is_published: bool) -> Entry:
    """Published: as printed; here: two digits at least."""
    if value is None:
        return Entry(text=fmt.NOTHING, sort=-1.0, tone="faint")
    number = value.value
    text = (
        f"{number:g}"
        if is_published
        else fmt.number(number, decimals=fmt.decimals_for([number], most=9))
    )
    return Entry(text=f"≥{text}" if value.is_growing else text, sort=number, tone=tone)


def _csv(table: PaperTable) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [name for m in table.measures for name in (m.title, f"{m.title} ±")]
    writer.writerow(["table", "model", "source", *columns, "latency_s", "tokens_per_second"])
    for line in table.lines:
        numbers = [
            "" if number is None else number
            for value in line.values
            for number in ((value.value, value.error) if value else (None, None))
        ]
        speed = line.speed
        times = ["", ""] if speed is None else [speed.latency_s, speed.tokens_per_second]
        writer.writerow([table.name, line.label, line.source, *numbers, *times])
    return text.getvalue()


def _json(table: PaperTable) -> dict[str, Any]:
    return {
        "table": table.name,
        "title": table.title,
        "measures": [
            {
                "title": m.title,
                "benchmark": m.benchmark or None,
                "part": m.part,
                "quantity": str(m.quantity),
            }
            for m in table.measures
        ],
        "lines": [
            {
                "model": line.label,
                "source": line.source,
                "values": [None if v is None else v.value for v in line.values],
                "errors": [None if v is None else v.error for v in line.values],
                "are_lower_bounds": [v is not None and v.is_growing for v in line.values],
                **(
                    {}
                    if line.speed is None
                    else {
                        "latency_s": line.speed.latency_s,
                        "seconds_per_answer": line.speed.seconds_per_answer,
                        "tokens_per_second": line.speed.tokens_per_second,
                    }
                ),
            }
            for line in table.lines
        ],
        "notes": list(table.notes),
    }
