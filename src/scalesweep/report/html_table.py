"""A table as HTML; on a phone its rows become small cards."""

from __future__ import annotations

from scalesweep.report.markup import Child, Markup, tag
from scalesweep.report.table import Entry, Table


def html_table(table: Table, *, is_sortable: bool = True, is_filterable: bool = False) -> Markup:
    """is_sortable: a click on a column's title sorts by it; is_filterable: words choose rows."""
    classes = ["stack"]
    if is_sortable:
        classes.append("sortable")
    if is_filterable:
        classes.append("filterable")
    if any(len(column.title) > 12 for column in table.columns):
        classes.append("long")
    heads = []
    for column in table.columns:
        inner: Child = column.title
        if is_sortable:
            inner = tag("button", column.title, type="button")
        heads.append(
            tag(
                "th",
                inner,
                scope="col",
                class_=None if column.is_number else "words",
                title=column.hint or None,
            )
        )
    rows = [
        tag(
            "tr",
            (
                _field(entry, label=column.title, is_number=column.is_number)
                for entry, column in zip(row, table.columns, strict=True)
            ),
        )
        for row in table.rows
    ]
    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", heads)),
            tag("tbody", rows),
            class_=" ".join(classes),
        ),
        class_="scroll",
    )


def _field(entry: Entry, *, label: str, is_number: bool) -> Markup:
    classes = [entry.tone] if entry.tone in ("best", "faint", "contrary") else []
    if not is_number:
        classes.append("words")
        if len(entry.text) > 24:
            classes.append("span-row")
    return tag(
        "td",
        entry.text,
        class_=" ".join(classes) or None,
        data_label=label,
        data_sort=None if entry.sort is None else f"{entry.sort:.9g}",
        title=entry.hint or None,
    )
