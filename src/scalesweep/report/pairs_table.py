"""Which settings a study does not tell apart, each by its place in the order of scores."""

from __future__ import annotations

from collections.abc import Iterable

from scalesweep.report import formatting as fmt
from scalesweep.report.study_report import StudyReport
from scalesweep.report.table import Column, Entry, Table


def pairs_table(report: StudyReport) -> Table | None:
    """One row per comparable setting, the best first; None where there is no pair of them."""
    if not report.pairs:
        return None
    settings = report.paired
    left_out = len(report.by_score) - len(settings)
    place = {setting.label: number for number, setting in enumerate(settings, start=1)}
    alike: dict[str, set[int]] = {setting.label: set() for setting in settings}
    for pair in report.pairs:
        if not pair.is_told_apart:
            alike[pair.one.label].add(place[pair.other.label])
            alike[pair.other.label].add(place[pair.one.label])
    costs = [report.cost(setting) for setting in settings]
    decimals = fmt.decimals_for(costs, most=5)
    symbol = "$" if report.has_prices else "h"
    return Table(
        id="pairs",
        title="Which settings are told apart",
        columns=(
            Column(title="setting", is_number=False),
            Column(title="#", hint="place by score"),
            Column(title="score", hint=f"{report.primary}, ± one standard error"),
            Column(
                title=f"a run {symbol}", hint="all stages of one run, and its judges in dollars"
            ),
            Column(title="not told apart from", is_number=False, hint="places of the others"),
        ),
        rows=tuple(
            (
                Entry(text=setting.label),
                Entry(text=str(place[setting.label]), sort=place[setting.label]),
                Entry(
                    text=fmt.score_with_error(
                        setting.score(report.primary), report.standard_error(setting)
                    ),
                    sort=setting.score(report.primary),
                ),
                Entry(text=fmt.number(cost, decimals=decimals), sort=cost),
                Entry(
                    text=ranges(alike[setting.label]) or "told apart from all others",
                    sort=len(alike[setting.label]),
                ),
            )
            for setting, cost in zip(settings, costs, strict=True)
        ),
        notes=(
            f"{fmt.plural(len(report.pairs), 'pair')}, each tested over the questions that both "
            "answered, two-sided, and corrected for their number by Holm's method: the chance "
            "that even one is told apart which is not different is at most 5 %. Not told apart "
            "does not mean equal. (Findings are asked one by one and not corrected.)",
            *(
                [
                    f"The {len(settings)} settings with the highest scores and those on the front; "
                    f"{left_out} others are not compared here. Corrected as if they were."
                ]
                if left_out
                else []
            ),
        ),
    )


def ranges(numbers: Iterable[int]) -> str:
    """{1, 2, 3, 5} -> "1-3, 5", with a real dash."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(
        f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )
