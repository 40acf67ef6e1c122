"""A report for the terminal, 80 columns or more."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from scalesweep.report import formatting as fmt
from scalesweep.report import summary
from scalesweep.report.answer_text import answer_sentences
from scalesweep.report.front_table import front_table
from scalesweep.report.pairs_table import pairs_table
from scalesweep.report.sizes_table import sizes_table
from scalesweep.report.study_report import StudyReport
from scalesweep.report.table import Table
from scalesweep.report.tables import (
    cost_table,
    grid_table,
    interval,
    kinds_table,
    language_table,
    threshold,
    unfinished_table,
)
from scalesweep.report.verdicts import Judged, Verdict

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_VERDICT_STYLES = {
    Verdict.shown: "bold green",
    Verdict.not_shown: "bold yellow",
    Verdict.contrary: "bold magenta",
    Verdict.cannot_judge: "dim",
}
WIDE = 100
"""Columns from which on a terminal shows the wait in the queue as a column."""
_TONE_STYLES = {"best": "bold", "faint": "dim", "contrary": "magenta"}


def render_terminal(report: StudyReport, *, width: int = 80, color: bool = False) -> str:
    """The report as text; color adds terminal colours."""
    console = _console(width, color)
    _print_head(console, report)
    for table in (
        cost_table(report),
        front_table(report),
        pairs_table(report),
        sizes_table(report),
        unfinished_table(report),
        grid_table(report),
        language_table(report),
    ):
        if table is not None:
            _print_table(console, table)
    _print_findings(console, report)
    _print_table(console, kinds_table(report, is_narrow=width < WIDE))
    _print_notes(console, [*map(fmt.public, report.results.plan.notes), *_warnings(report)])
    return _text(console)


def table_text(table: Table, *, width: int = 80, color: bool = False) -> str:
    """One table with its notes as text."""
    console = _console(width, color)
    _print_table(console, table)
    return _text(console).lstrip("\n")


def _console(width: int, color: bool) -> Console:
    from rich.console import Console

    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )


def _text(console: Console) -> str:
    output = console.file
    assert isinstance(output, io.StringIO)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def _warnings(report: StudyReport) -> list[str]:
    return [f"Note: {fmt.public(warning)}." for warning in report.results.warnings]


def _print_head(console: Console, report: StudyReport) -> None:
    from rich.text import Text

    asked, more = summary.question(report)
    console.print(Text(asked, style="bold"))
    if more:
        console.print(Text(more, style="dim"))
    console.print()
    if text := summary.progress(report):
        console.print(Text(text, style="yellow"))
    for text in answer_sentences(report):
        console.print(Text(text))
    if text := summary.findings_summary(report):
        console.print(Text(text))


def _print_table(console: Console, table: Table) -> None:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    console.print()
    console.print(Text(table.title, style="bold"))
    grid = RichTable(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="dim",
    )
    for i, column in enumerate(table.columns):
        grid.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            # Numbers stay whole; names give way.
            no_wrap=column.is_number and " " not in column.title,
            overflow="fold" if i == 0 else "ellipsis" if column.is_number else "fold",
        )
    for row in table.rows:
        grid.add_row(
            *(
                Text(entry.text.replace(" ± ", "±"), style=_TONE_STYLES.get(entry.tone, ""))
                for entry in row
            )
        )
    console.print(grid)
    _print_notes(console, table.notes)


def _print_notes(console: Console, notes: list[str] | tuple[str, ...]) -> None:
    from rich.text import Text

    for note in notes:
        console.print(Text(note, style="dim"))


def _print_findings(console: Console, report: StudyReport) -> None:
    from rich.padding import Padding
    from rich.text import Text

    if not report.findings:
        return
    console.print()
    console.print(Text("The paper's findings, here", style="bold"))
    for judged in report.findings:
        if judged.verdict is not Verdict.cannot_judge:
            console.print(_claim(judged))
            console.print(Padding(_numbers(judged), (0, 0, 0, 7)))
    if unjudged := [f for f in report.findings if f.verdict is Verdict.cannot_judge]:
        console.print(Text("Cannot be judged:", style=_VERDICT_STYLES[Verdict.cannot_judge]))
        for judged in unjudged:
            text = f"{judged.finding.claim} ({judged.reason})"
            console.print(Padding(Text(text, style="dim"), (0, 0, 0, 7)))
    console.print()
    _print_notes(console, summary.method_notes(report)[1:])


def _claim(judged: Judged) -> RenderableType:
    from rich.table import Table as RichTable
    from rich.text import Text

    line = RichTable.grid(padding=(0, 1, 0, 0))
    line.add_column(width=6)
    line.add_column()
    line.add_row(Text(judged.finding.paper, style="dim"), Text(judged.finding.claim))
    return line


def _numbers(judged: Judged) -> RenderableType:
    from rich.text import Text

    text = Text(str(judged.verdict), style=_VERDICT_STYLES[judged.verdict])
    value = judged.estimate
    details = []
    if value is not None:
        details.append(
            f"{fmt.signed(value.value)}, SE {value.standard_error:.3f}, "
            f"df {fmt.degrees_of_freedom(value.df)}, 95 % {interval(judged)}, "
            + (f"margin {threshold(judged)}" if judged.threshold else "above 0")
        )
    if judged.reason:
        details.append(judged.reason)
    return text.append(": " + "; ".join(details), style="default not bold")
