"""The largest sizes from the smaller ones, beside what was measured there."""

from __future__ import annotations

from scalesweep.report import formatting as fmt
from scalesweep.report.extrapolation import Extrapolated
from scalesweep.report.size_groups import SizeExtrapolation, size_extrapolations
from scalesweep.report.study_report import StudyReport
from scalesweep.report.table import Column, Entry, Table


def sizes_table(report: StudyReport) -> Table | None:
    """Two rows for each: score, and cost of the tune stage; None where nothing is extrapolated."""
    found = size_extrapolations(report)
    if not found:
        return None
    return Table(
        id="sizes",
        title="The largest size from the smaller ones",
        columns=(
            Column(title="setting", is_number=False),
            Column(title="from", is_number=False),
            Column(title="of", is_number=False),
            Column(title="expected"),
            Column(title="95 %", is_number=False, hint="of one measurement"),
            Column(title="measured"),
            Column(title="in it", is_number=False, hint="measured in the interval"),
        ),
        rows=tuple(row for one in found for row in _rows(report, one)),
        notes=(
            "Score: a straight line in the logarithm of the parameters; its interval holds the "
            "scatter around the line, or the known error of the scores where that is larger. Three "
            "sizes leave one degree of freedom, so it is wide; a line knows no highest score."
            + _cost_form(found),
        ),
    )


def _cost_form(found: tuple[SizeExtrapolation, ...]) -> str:
    forms = dict.fromkeys(
        f"{one.cost.form} to {one.cost_basis}" for one in found if one.cost is not None
    )
    return f" Tune cost: {', or '.join(forms)}." if forms else ""


def _rows(report: StudyReport, one: SizeExtrapolation) -> list[tuple[Entry, ...]]:
    head = (Entry(text=one.target), Entry(text=", ".join(one.smaller_models)))
    rows = [(*head, Entry(text="score"), *_entries(one.score, signed=True, decimals=3))]
    if one.cost is not None:
        found = one.cost
        low = found.interval.low if found.interval is not None else found.value
        values = [found.value, low, found.measured or 0.0]
        decimals = fmt.decimals_for(values, most=9)
        symbol = "tune $" if report.has_prices else "tune h"
        rows.append((*head, Entry(text=symbol), *_entries(found, signed=False, decimals=decimals)))
    return rows


def _entries(found: Extrapolated, *, signed: bool, decimals: int) -> tuple[Entry, ...]:
    def text(value: float) -> str:
        return fmt.plain_signed(value) if signed else fmt.number(value, decimals=decimals)

    interval, is_inside = found.interval, found.is_inside
    return (
        Entry(text=text(found.value), sort=found.value),
        Entry(text=f"{text(interval.low)} to {text(interval.high)}", sort=interval.low)
        if interval is not None
        else Entry(text=f"– ({found.why_no_interval})", tone="faint"),
        Entry(text=text(found.measured), sort=found.measured)
        if found.measured is not None
        else Entry(text=fmt.NOTHING, sort=-1.0, tone="faint"),
        Entry(text=fmt.NOTHING, tone="faint")
        if is_inside is None
        else Entry(text="yes" if is_inside else "no", tone="best" if is_inside else "contrary"),
    )
