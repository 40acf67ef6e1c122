"""The page's ledger: totals in sight, every attempt below them on a click."""

from __future__ import annotations

from scalesweep.report import formatting as fmt
from scalesweep.report.html_figures import section
from scalesweep.report.html_table import html_table
from scalesweep.report.markup import Markup, joined, tag
from scalesweep.report.render_ledger import tables
from scalesweep.report.study_report import StudyReport


def ledger_section(report: StudyReport) -> Markup | None:
    """None where nothing was tried."""
    found = tables(report, is_narrow=True)  # where and when an attempt ran is told by pointing
    if not found:
        return None
    attempts, totals = found
    return joined(
        [
            section(totals.title, html_table(totals, is_sortable=False), _notes(totals.notes)),
            section(
                attempts.title,
                tag(
                    "details",
                    tag("summary", fmt.plural(len(report.results.ledger), "row")),
                    html_table(attempts, is_sortable=False),
                ),
                _notes(attempts.notes),
            ),
        ]
    )


def _notes(notes: tuple[str, ...]) -> Markup:
    return tag("ul", (tag("li", note) for note in notes), class_="notes")
