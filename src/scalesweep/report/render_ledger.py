"""What a study paid, attempt by attempt, in the terminal, as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from scalesweep.cost_model.cost import NOTHING, total
from scalesweep.errors import ConfigError
from scalesweep.records import SCHEMA
from scalesweep.report import formatting as fmt
from scalesweep.report import summary
from scalesweep.report.costs import JudgePay
from scalesweep.report.ledger import LedgerRow, Part, by_part
from scalesweep.report.shown_ledger import ShownLedger
from scalesweep.report.study_report import StudyReport
from scalesweep.report.table import Column, Entry, Table

FORMATS = ("terminal", "md", "csv", "json")
WIDE = 150
"""Columns from which on a terminal shows where and when each attempt ran."""
_PARTS = {
    Part.work: ("work", "of it, what stands of data, base, align and tune stages"),
    Part.evaluation: ("evaluation", "of it, the same of generate and judge stages"),
    Part.startup: ("start-up", "of it, before the first sample was worked on"),
    Part.lost: ("lost", "of it, work done again or that ended in an error"),
    Part.judges: ("judges", "of it, what judges were paid"),
}


def render(report: StudyReport, format: str, *, width: int = 80, color: bool = False) -> str:
    """The ledger as text.

    Raises:
        ConfigError: no such format.
    """
    if format in ("terminal", "md") and not report.results.ledger:
        return f"Nothing of study {report.results.plan.study} was tried yet.\n"
    if format == "terminal":
        from scalesweep.report.render_terminal import table_text

        found = tables(report, is_narrow=width < WIDE)
        return "\n".join(table_text(table, width=width, color=color) for table in found)
    if format == "md":
        from scalesweep.report.render_markdown import markdown_section

        return "\n".join(markdown_section(table) for table in tables(report))
    if format == "csv":
        return _csv(report)
    if format == "json":
        return json.dumps(ledger_json(report), indent=2, allow_nan=False) + "\n"
    raise ConfigError(
        f"--format={format}: --ledger comes as {', '.join(FORMATS)}; the page of the whole report "
        "has it too"
    )


def tables(report: StudyReport, *, is_narrow: bool = False) -> list[Table]:
    """Every attempt, then who paid what; none where nothing was tried.

    is_narrow: without what does not fit 80 columns.
    """
    rows = report.results.ledger
    if not rows:
        return []
    shown = ShownLedger(rows=rows, has_prices=report.has_prices)
    return [
        ledger_table(report, shown, is_narrow=is_narrow),
        payers_table(report, shown),
    ]


def payer_words(report: StudyReport, payer: str) -> str:
    if payer == report.results.plan.study:
        return "here"
    return payer or "unknown"


def ledger_table(report: StudyReport, shown: ShownLedger, *, is_narrow: bool = False) -> Table:
    """One row per attempt, and their sum."""
    parts = [part for part in shown.parts if not is_narrow or part in _NARROW]
    has_payers = not is_narrow or len(shown.by_payer) > 1
    columns = (
        Column(title="stage", is_number=False),
        Column(title="try", hint="number of the attempt; none: a job's run without one"),
        *(() if is_narrow else _WHERE),
        Column(title="ended", is_number=False, hint="how, with the class of the failure"),
        *(() if is_narrow else (Column(title="device-h", hint="devices x hours held"),)),
        Column(title="node-h", hint="allocated devices / devices of a node x hours"),
        *([Column(title="all $", hint="with judges")] if shown.has_prices else []),
        *(Column(title=_PARTS[part][0], hint=_PARTS[part][1]) for part in parts),
        *([Column(title="paid by", is_number=False)] if has_payers else []),
    )
    rows = []
    for i, row in enumerate(shown.rows):
        amounts = shown.amounts[i]
        paid = sum(amounts.values())
        rows.append(
            (
                Entry(text=fmt.public(row.label), hint=_whereabouts(row)),
                Entry(text=fmt.NOTHING if row.number is None else str(row.number), sort=row.number),
                *(() if is_narrow else _where(row)),
                _outcome(row),
                *([_hours(shown.device_hours[i], row.cost.total.device_ms)] * (not is_narrow)),
                _hours(
                    shown.node_hours[i] if shown.has_prices else shown.measure.text(paid),
                    row.cost.total.node_ms,
                ),
                *([_amount(shown, paid, of=row)] if shown.has_prices else []),
                *(_amount(shown, amounts[part], of=row, part=part) for part in parts),
                *([Entry(text=payer_words(report, row.payer))] if has_payers else []),
            )
        )
    whole = shown.total
    sign = "≥" if any(row.is_running for row in shown.rows) else ""
    rows.append(
        tuple(
            Entry(text=text, tone="best")
            for text in (
                "all",
                str(sum(row.number is not None for row in shown.rows)),
                *([] if is_narrow else ["", ""]),
                "",
                *([shown.device_hours[-1]] * (not is_narrow)),
                *([shown.node_hours[-1]] * shown.has_prices),
                sign + shown.measure.text(sum(whole.values())),
                *(shown.measure.text(whole[part]) for part in parts),
                *([""] * has_payers),
            )
        )
    )
    return Table(
        id="ledger",
        title=f"Every attempt of study {report.results.plan.study}, and what it cost",
        columns=columns,
        rows=tuple(rows),
        notes=tuple(_row_notes(report, shown)),
    )


_NARROW = (Part.startup, Part.lost, Part.judges)
_WHERE = (
    Column(title="where", is_number=False, hint="cluster and device"),
    Column(title="began (UTC)", is_number=False),
)


def _where(row: LedgerRow) -> tuple[Entry, Entry]:
    return (
        Entry(text=_place(row) or fmt.NOTHING, hint=row.job),
        Entry(text=_when(row.began) or fmt.NOTHING, sort=row.began),
    )


def _place(row: LedgerRow) -> str:
    return " ".join(filter(None, (row.cluster, row.device)))


def _whereabouts(row: LedgerRow) -> str:
    """For who points at it."""
    when = f"began {_when(row.began)} UTC" if row.began else ""
    job = f"job {row.job}" if row.job else ""
    return ", ".join(filter(None, (str(row.stage), _place(row), job, when)))


def _when(began: float | None) -> str:
    return f"{datetime.fromtimestamp(began, UTC):%Y-%m-%d %H:%M:%S}" if began else ""


def _outcome(row: LedgerRow) -> Entry:
    text = f"{row.outcome}: {row.failure}" if row.failure else row.outcome
    bad = row.outcome in ("failed", "killed", "unknown")
    return Entry(text=text.replace("_", " "), tone="contrary" if bad else "")


def _hours(text: str, milliseconds: int) -> Entry:
    return Entry(text=text, sort=milliseconds, tone="" if milliseconds else "faint")


def _amount(shown: ShownLedger, units: int, *, of: LedgerRow, part: Part | None = None) -> Entry:
    """≥: the attempt still runs; 0: nothing at all was paid. part: None is the whole."""
    is_nothing = not shown.exact(of) if part is None else not shown.amount(of.parts[part])
    text = "0" if is_nothing else shown.measure.text(units)
    return Entry(
        text=f"≥{text}" if units and of.is_running else text,
        sort=units,
        tone="" if units else "faint",
    )


def payers_table(report: StudyReport, shown: ShownLedger) -> Table:
    """Totals by who paid, and by what for."""
    unit = "$" if shown.has_prices else "h"
    running = {row.payer for row in shown.rows if row.is_running}
    rows = [
        (
            Entry(text=_payer_title(report, payer)),
            *(_sum(shown, paid[part]) for part in shown.parts),
            _sum(shown, sum(paid.values()), is_so_far=payer in running),
        )
        for payer, paid in shown.by_payer.items()
    ]
    whole = shown.total
    rows.append(
        (
            Entry(text="all", tone="best"),
            *(_sum(shown, whole[part], tone="best") for part in shown.parts),
            _sum(shown, sum(whole.values()), is_so_far=bool(running), tone="best"),
        )
    )
    return Table(
        id="payers",
        title="Who paid, and what for",
        columns=(
            Column(title="paid by", is_number=False),
            *(Column(title=f"{_PARTS[p][0]} {unit}", hint=_PARTS[p][1]) for p in shown.parts),
            Column(title=f"all {unit}"),
        ),
        rows=tuple(rows),
        notes=tuple(_sum_notes(report, shown)),
    )


def _payer_title(report: StudyReport, payer: str) -> str:
    if payer == report.results.plan.study:
        return f"{payer} (this study)"
    return f"{payer} (reused)" if payer else "not told apart"


def _sum(
    shown: ShownLedger, units: int, *, is_so_far: bool = False, tone: str | None = None
) -> Entry:
    text = shown.measure.text(units) if units or tone else "0"
    return Entry(
        text=f"≥{text}" if is_so_far else text,
        sort=units,
        tone=tone if tone is not None else "" if units else "faint",
    )


def _row_notes(report: StudyReport, shown: ShownLedger) -> list[str]:
    whole = "all $" if shown.has_prices else "node-h (there are no prices)"
    parts = "Start-up, lost and judges" if Part.judges in shown.parts else "Start-up and lost"
    return [
        f"{parts} are parts of {whole}; the rest is work that stands. What is shown adds up by "
        "row, by column and by who paid; nothing is off by one in its last digit.",
        *summary.running_notes(report),
    ]


def _sum_notes(report: StudyReport, shown: ShownLedger) -> list[str]:
    notes = [
        "Work and evaluation: what stands of data, base, align and tune stages, and of generate "
        "and judge stages. Start-up, of all stages: before the first sample, and jobs' runs "
        "without an attempt. Lost: done again, or ended in an error.",
        *summary.price_notes(report),
        *summary.account_notes(report),
    ]
    if "" in shown.by_payer:
        notes.append(
            "Not told apart: attempts from before it was written down which study's command began "
            "them."
        )
    unknown = sum(row.usd_per_node_hour is None for row in shown.rows)
    if unknown:
        notes.append(
            f"{fmt.plural(unknown, 'attempt')} left no record of what was held: not counted."
        )
    judging = report.results.judging
    if judging is not None:
        notes.append(summary.judging_note(judging))
    return notes


def _csv(report: StudyReport) -> str:
    """Dollars to the millionth, seconds to the thousandth: as they are counted, nothing rounded."""
    text = io.StringIO()
    rows = [_plain_row(report, row) for row in report.results.ledger]
    names = ["study", *(rows[0] if rows else ("stage", "attempt"))]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        texts = {name: "" if value is None else value for name, value in row.items()}
        writer.writerow({"study": report.results.plan.study, **texts})
    return text.getvalue()


def _plain_row(report: StudyReport, row: LedgerRow) -> dict[str, Any]:
    cost = row.cost.total
    return {
        "stage": str(row.stage),
        "label": fmt.public(row.label),
        "kind": str(row.stage.kind),
        "attempt": row.number,
        "cluster": row.cluster,
        "device": row.device,
        "job": row.job or None,
        "began": _when(row.began) or None,
        "outcome": row.outcome,
        "failure": row.failure or None,
        "is_so_far": int(row.is_running),
        "paid_by": row.payer or None,
        "paid_here": int(row.payer == report.results.plan.study) if row.payer else None,
        "usd_per_node_hour": row.usd_per_node_hour,
        "device_seconds": f"{cost.device_ms / 1e3:.3f}",
        "node_seconds": f"{cost.node_ms / 1e3:.3f}",
        "node_hours": f"{cost.node_hours:.9f}",
        "usd": f"{(cost.micro_usd + row.judges.micro_usd) / 1e6:.6f}",
        **{f"{part}_usd": f"{paid.usd:.6f}" for part, paid in row.parts.items()},
        "judges_unsure_usd": _usd(row.judges.unsure_usd) if row.judges.num_asked else None,
        "judges_without_price": row.judges.num_unpriced,
    }


def _usd(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}"


_TEXTS = ("usd", "_seconds", "node_hours")


def ledger_json(report: StudyReport) -> dict[str, Any]:
    """Rows and totals, as they are counted."""
    rows = report.results.ledger
    payers = dict.fromkeys(row.payer for row in rows)
    return {
        "schema": SCHEMA,
        "study": report.results.plan.study,
        "rows": [
            {
                name: float(value)
                if isinstance(value, str) and name.endswith(_TEXTS)
                else bool(value)
                if name in ("is_so_far", "paid_here") and value is not None
                else value
                for name, value in _plain_row(report, row).items()
            }
            for row in rows
        ],
        "by_payer": {payer: _totals(r for r in rows if r.payer == payer) for payer in payers},
        "total": _totals(rows),
        "is_so_far": any(row.is_running for row in rows),
        "prices": [
            {"usd_per_node_hour": p.usd_per_node_hour, "cluster": p.cluster}
            for p in report.results.prices
        ],
        "notes": [*summary.running_notes(report), *_sum_notes_of(report)],
    }


def _sum_notes_of(report: StudyReport) -> list[str]:
    shown = ShownLedger(rows=report.results.ledger, has_prices=report.has_prices)
    return _sum_notes(report, shown)


def _totals(rows: Iterable[LedgerRow]) -> dict[str, Any]:
    rows = list(rows)
    held = total(row.cost.total for row in rows)
    judges = sum((row.judges for row in rows), JudgePay())
    paid = by_part(rows)
    return {
        "attempts": sum(row.number is not None for row in rows),
        "device_seconds": held.device_ms / 1e3,
        "node_hours": round(held.node_hours, 9),
        "usd": sum(paid.values(), NOTHING).usd,
        **{f"{part}_usd": cost.usd for part, cost in paid.items()},
        **{
            f"{part}_node_hours": round(cost.node_hours, 9)
            for part, cost in paid.items()
            if part is not Part.judges
        },
        "judges_unsure_usd": judges.unsure_usd,
        "judges_without_price": judges.num_unpriced,
    }
