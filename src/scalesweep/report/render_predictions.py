"""Predicted beside measured, in the terminal, as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from typing import Any

from scalesweep.errors import ConfigError
from scalesweep.report import formatting as fmt
from scalesweep.report.predictions import Amount, Errors, Graded, PredictionReport
from scalesweep.report.table import Column, Entry, Table

FORMATS = ("terminal", "md", "csv", "json")


def render(report: PredictionReport, format: str, *, width: int = 80, color: bool = False) -> str:
    """The report as text.

    Raises:
        ConfigError: no such format.
    """
    if format in ("terminal", "md") and not report.stages and not report.without:
        return f"Nothing of study {report.study} has run yet.\n"
    if format == "terminal":
        from scalesweep.report.render_terminal import table_text

        return "\n".join(table_text(table, width=width, color=color) for table in tables(report))
    if format == "md":
        from scalesweep.report.render_markdown import markdown_section

        return "\n".join(markdown_section(table) for table in tables(report))
    if format == "csv":
        return _csv(report)
    if format == "json":
        return json.dumps(_json(report), indent=2) + "\n"
    raise ConfigError(f"--format={format}: --predictions comes as {', '.join(FORMATS)}")


def tables(report: PredictionReport) -> list[Table]:
    """Errors by kind, then time and memory of each stage."""
    found = [groups_table(report)]
    if report.stages:
        found.append(times_table(report))
    found += [
        table
        for table in (
            _memory_table(report, "device_bytes", "Device memory (fullest device)", ""),
            _memory_table(
                report,
                "host_bytes",
                "Host memory (all ranks of a node)",
                "Measured: resident memory of the largest rank, times ranks; pages that they "
                "share count for each.",
            ),
        )
        if table is not None
    ]
    return found


def groups_table(report: PredictionReport) -> Table:
    """Medians per kind; its notes say what is not in them."""
    notes = [
        "Error: predicted / measured - 1, of the time that devices were held. Judged: stages that "
        "ran once, from beginning to end."
    ]
    left = len(report.stages) - len(report.judged)
    if left:
        notes.append(f"{fmt.plural(left, 'stage')} not judged; the list says why.")
    if report.without:
        number = len(report.without)
        notes.append(
            f"{fmt.plural(number, 'stage')} ran without a prediction (before predictions were "
            f"recorded, or on a device of unknown speed): {report.without[0]}"
            + (f", and {number - 1} more." if number > 1 else ".")
        )
    return Table(
        id="prediction_errors",
        title=f"Predicted against measured, study {report.study}",
        columns=(
            Column(title="kind", is_number=False),
            Column(title="speed", is_number=False, hint="declared, or of measured runs"),
            Column(title="stages"),
            Column(title="median", hint="of absolute errors"),
            Column(title="quartiles"),
            Column(title="worst"),
            Column(title="bias", hint="median of signed errors"),
        ),
        rows=tuple(_group_row(group) for group in report.groups),
        notes=tuple(notes),
    )


def _group_row(group: Errors) -> tuple[Entry, ...]:
    tone = "best" if group.name == "all" else ""
    low, high = group.quartiles
    texts = (
        group.name,
        group.basis,
        str(group.num_stages),
        fmt.percent(group.median),
        f"{low * 100:.0f}-{high * 100:.0f} %",
        _signed(group.worst),
        _signed(group.bias),
    )
    return tuple(Entry(text=text, tone=tone) for text in texts)


def times_table(report: PredictionReport) -> Table:
    rows = tuple(
        (
            Entry(text=fmt.public(stage.label), hint=stage.basis, tone=_tone(stage)),
            Entry(text=fmt.duration(stage.wall_s.predicted), sort=stage.wall_s.predicted),
            Entry(text=fmt.duration(stage.wall_s.measured), sort=stage.wall_s.measured),
            _error_entry(stage.wall_s, stage),
            Entry(text=stage.not_judged or stage.basis.partition(":")[0], tone=_tone(stage)),
        )
        for stage in report.stages
    )
    return Table(
        id="prediction_times",
        title="Time held",
        columns=(
            Column(title="stage", is_number=False),
            Column(title="predicted"),
            Column(title="measured"),
            Column(title="error"),
            Column(title="speed", is_number=False),
        ),
        rows=rows,
        notes=tuple(f"Speed {basis}." for basis in _bases(report) if basis.startswith("measured")),
    )


def _bases(report: PredictionReport) -> list[str]:
    return list(dict.fromkeys(stage.basis for stage in report.stages))


def _memory_table(report: PredictionReport, field: str, title: str, note: str) -> Table | None:
    known = [(s, amount) for s in report.stages if (amount := getattr(s, field)) is not None]
    if not known:
        return None
    return Table(
        id=f"prediction_{field}",
        title=title,
        columns=(
            Column(title="stage", is_number=False),
            Column(title="predicted GB"),
            Column(title="measured GB"),
            Column(title="error"),
        ),
        rows=tuple(
            (
                Entry(text=fmt.public(stage.label), tone=_tone(stage)),
                Entry(text=f"{amount.predicted / 1e9:.2f}", sort=amount.predicted),
                Entry(text=f"{amount.measured / 1e9:.2f}", sort=amount.measured),
                _error_entry(amount, stage),
            )
            for stage, amount in known
        ),
        notes=(note,) if note else (),
    )


def _error_entry(amount: Amount, stage: Graded) -> Entry:
    return Entry(text=_signed(amount.error), sort=amount.error, tone=_tone(stage))


def _tone(stage: Graded) -> str:
    return "faint" if stage.not_judged else ""


def _signed(share: float) -> str:
    return f"{share * 100:+.0f} %".replace("-", "−")


_AMOUNTS = ("wall_s", "node_hours", "device_bytes", "host_bytes")


def _csv(report: PredictionReport) -> str:
    text = io.StringIO()
    columns = [f"{name}_{part}" for name in _AMOUNTS for part in ("predicted", "measured", "error")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["study", "stage", "kind", "label", *columns, "basis", "not_judged"])
    for stage in report.stages:
        numbers: list[str] = []
        for name in _AMOUNTS:
            amount: Amount | None = getattr(stage, name)
            values = (amount.predicted, amount.measured, amount.error) if amount else ("", "", "")
            numbers += [v if isinstance(v, str) else f"{v:.9g}" for v in values]
        named = [report.study, str(stage.ref), str(stage.kind), fmt.public(stage.label)]
        writer.writerow([*named, *numbers, stage.basis, stage.not_judged])
    return text.getvalue()


def _json(report: PredictionReport) -> dict[str, Any]:
    return {
        "study": report.study,
        "groups": [dataclasses.asdict(group) for group in report.groups],
        "stages": [
            {
                "stage": str(stage.ref),
                "kind": str(stage.kind),
                "label": fmt.public(stage.label),
                "basis": stage.basis,
                "not_judged": stage.not_judged or None,
                **{name: _amount_json(getattr(stage, name)) for name in _AMOUNTS},
            }
            for stage in report.stages
        ],
        "without_prediction": [fmt.public(label) for label in report.without],
    }


def _amount_json(amount: Amount | None) -> dict[str, float] | None:
    if amount is None:
        return None
    return {**dataclasses.asdict(amount), "error": amount.error}
