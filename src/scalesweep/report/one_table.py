"""`report --table`: one table of the answer by itself, for people or as numbers."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from typing import Any

from scalesweep.errors import ConfigError
from scalesweep.report.answer_rows import Row, front_rows, pair_rows, size_rows
from scalesweep.report.front_table import front_table
from scalesweep.report.pairs_table import pairs_table
from scalesweep.report.sizes_table import sizes_table
from scalesweep.report.study_report import StudyReport
from scalesweep.report.summary import error_note
from scalesweep.report.table import Table

FORMATS = ("terminal", "md", "csv", "json")

_TABLES: dict[
    str,
    tuple[Callable[[StudyReport], Table | None], Callable[[StudyReport], list[Row]], str],
] = {
    "front": (front_table, front_rows, "fewer than two settings are on the Pareto front"),
    "pairs": (pairs_table, pair_rows, "there are no two finished settings to compare"),
    "sizes": (sizes_table, size_rows, "no size has two smaller ones that differ in nothing else"),
}
"""Name -> the table, its rows as numbers, and why there may be none."""


def check_table(name: str, format: str) -> None:
    """Refuse what is no table, or no format of one."""
    if name not in _TABLES:
        raise ConfigError(f"--table={name}: choose one of {', '.join(_TABLES)}")
    if format not in FORMATS:
        raise ConfigError(f"--format={format}: one table comes as {', '.join(FORMATS)}")


def render_one_table(
    name: str, report: StudyReport, format: str, *, width: int = 80, color: bool = False
) -> str:
    """The table as text.

    Raises:
        ConfigError: no such table or format, or this study has nothing to show in it.
    """
    check_table(name, format)
    make, rows, why_none = _TABLES[name]
    if format == "json":
        return json.dumps({name: rows(report)}, indent=2, allow_nan=False) + "\n"
    if format == "csv":
        return _csv(rows(report))
    table = make(report)
    if table is None:
        raise ConfigError(f"--table={name}: nothing to show, {why_none}")
    table = dataclasses.replace(table, notes=(*table.notes, error_note(report)))
    if format == "md":
        from scalesweep.report.render_markdown import markdown_section

        return markdown_section(table)
    from scalesweep.report.render_terminal import table_text

    return table_text(table, width=width, color=color)


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    columns = list(rows[0]) if rows else []
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _field(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _field(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else "" if value is None else value
