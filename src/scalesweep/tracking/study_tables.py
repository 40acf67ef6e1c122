"""The tables of a study as W&B takes them.

Cells, ledger and predictions hold exact numbers; the report's own tables are as it shows them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scalesweep.report.formatting import public
from scalesweep.report.ledger import LedgerRow, ledger_rows
from scalesweep.report.predictions import PredictionReport, prediction_report
from scalesweep.report.render_csv import render_csv
from scalesweep.report.study_report import StudyReport
from scalesweep.report.table import Table
from scalesweep.report.tables import all_tables


@dataclass(frozen=True, kw_only=True)
class TableData:
    """A table as W&B takes it: each column holds numbers or texts, None where nothing is."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def study_tables(report: StudyReport) -> dict[str, TableData]:
    """Name -> table."""
    results = report.results
    stages = tuple(results.stages.values())
    predictions = prediction_report(results.plan.study, stages)
    return {
        **{table.id: _shown_table(table) for table in all_tables(report)},
        "cells": _exact_table(render_csv(report)),
        "ledger": _ledger(ledger_rows(stages)),
        **({"predictions": _predictions(predictions)} if predictions.stages else {}),
    }


def _shown_table(table: Table) -> TableData:
    """As the report shows it, texts only."""
    return TableData(
        columns=tuple(column.title for column in table.columns),
        rows=tuple(tuple(entry.text for entry in row) for row in table.rows),
    )


def _exact_table(text: str) -> TableData:
    """A CSV file; columns in which every value is a number hold numbers."""
    header, *rows = csv.reader(io.StringIO(text))
    columns = [_numbers_or_texts(column) for column in zip(*rows, strict=True)]
    return TableData(columns=tuple(header), rows=tuple(zip(*columns, strict=True)))


def _numbers_or_texts(column: Sequence[str]) -> list[float | None] | list[str]:
    try:
        return [float(value) if value else None for value in column]
    except ValueError:
        return list(column)


_PARTS = ("total", "startup", "lost")
_UNITS = ("node_hours", "usd", "device_seconds")


def _ledger(rows: Sequence[LedgerRow]) -> TableData:
    """Every attempt with what it cost; of the totals, start-up and lost work are parts."""
    amounts = [f"{part}_{unit}" for part in _PARTS for unit in _UNITS]
    return TableData(
        columns=("stage", "label", "attempt", "outcome", "payer", *amounts),
        rows=tuple(
            (
                str(row.stage),
                public(row.label),
                row.number,
                row.outcome,
                row.payer,
                *(getattr(getattr(row.cost, part), unit) for part in _PARTS for unit in _UNITS),
            )
            for row in rows
        ),
    )


_AMOUNTS = ("wall_s", "node_hours", "device_bytes", "host_bytes")


def _predictions(report: PredictionReport) -> TableData:
    """What was predicted of each stage that ran, beside what it took."""
    sides = [f"{name}_{side}" for name in _AMOUNTS for side in ("predicted", "measured")]
    rows = []
    for stage in report.stages:
        numbers: list[float | None] = []
        for name in _AMOUNTS:
            amount = getattr(stage, name)
            numbers += [None, None] if amount is None else [amount.predicted, amount.measured]
        named = (str(stage.ref), public(stage.label), str(stage.kind), public(stage.basis))
        rows.append((*named, *numbers, stage.wall_s.error, stage.not_judged))
    return TableData(
        columns=("stage", "label", "kind", "basis", *sides, "wall_s_error", "not_judged"),
        rows=tuple(rows),
    )
