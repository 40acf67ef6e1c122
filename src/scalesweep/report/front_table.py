"""The Pareto front with what each step along it costs per point of score."""

from __future__ import annotations

from scalesweep.report import formatting as fmt
from scalesweep.report.marginal import Step
from scalesweep.report.settings import Setting
from scalesweep.report.study_report import StudyReport
from scalesweep.report.table import Column, Entry, Table

NOT_TOLD_APART = "not distinguishable"


def front_table(report: StudyReport) -> Table | None:
    """One row per setting of the front, by rising cost; None where there is no step."""
    if len(report.front) < 2:
        return None
    costs = [report.cost(setting) for setting in report.front]
    decimals = fmt.decimals_for(costs, most=5)
    steps: tuple[Step | None, ...] = (None, *report.front_steps)
    symbol = "$" if report.has_prices else "h"
    return Table(
        id="front",
        title="Steps along the Pareto front",
        columns=(
            Column(title="setting", is_number=False),
            Column(title="score", hint=f"{report.primary}, ± one standard error"),
            Column(
                title=f"a run {symbol}", hint="all stages of one run, and its judges in dollars"
            ),
            Column(title="gain", hint="of score over the row above, question by question"),
            Column(
                title="a point (0.01) costs",
                is_number=False,
                hint="extra cost over gain, with the gain's 95 % interval",
            ),
        ),
        rows=tuple(
            (
                Entry(text=setting.label),
                _score_entry(report, setting),
                Entry(text=fmt.number(cost, decimals=decimals), sort=cost),
                _gain_entry(step),
                _price_entry(report, step),
            )
            for setting, cost, step in zip(report.front, costs, steps, strict=True)
        ),
        notes=(
            "Each row against the one above. Where the two are not told apart (all "
            f"{fmt.plural(len(report.pairs), 'pair')} of settings judged together, by Holm, at "
            "5 %) a point has no price, but a lower bound. Intervals are of each step by itself; "
            "costs count as measured.",
        ),
    )


def _score_entry(report: StudyReport, setting: Setting) -> Entry:
    value = setting.score(report.primary)
    return Entry(text=fmt.score_with_error(value, report.standard_error(setting)), sort=value)


def _gain_entry(step: Step | None) -> Entry:
    if step is None or step.gain is None:
        return Entry(text=fmt.NOTHING, sort=-1.0, tone="faint")
    gain = step.gain
    return Entry(
        text=fmt.signed(gain.value),
        sort=gain.value,
        hint=f"95 % {fmt.plain_signed(gain.low)} to {fmt.plain_signed(gain.high)}",
    )


def _price_entry(report: StudyReport, step: Step | None) -> Entry:
    if step is None:
        return Entry(text=fmt.NOTHING, sort=-1.0, tone="faint")
    price, unit = step.per_point, report.unit
    if price is not None:
        value, low, high = unit.texts(price.value, price.low, price.high)
        return Entry(text=f"{value} ({low} to {high})", sort=price.value, tone="best")
    bound = step.at_least
    text = NOT_TOLD_APART if bound is None else f"{NOT_TOLD_APART} (≥ {unit.text(bound)})"
    return Entry(text=text, sort=float("inf"), tone="faint")
