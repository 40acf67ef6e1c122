"""A report as Markdown, to be mailed or pasted."""

from __future__ import annotations

from scalesweep.report import formatting as fmt
from scalesweep.report import summary
from scalesweep.report.answer_text import answer_sentences
from scalesweep.report.study_report import StudyReport
from scalesweep.report.table import Table
from scalesweep.report.tables import all_tables


def render_markdown(report: StudyReport) -> str:
    asked, more = summary.question(report)
    results = report.results
    parts = [f"# {_escaped(asked)}"]
    if more:
        parts.append(_escaped(more))
    first, *more_answers = answer_sentences(report)
    paragraphs = [
        summary.progress(report),
        f"**{_escaped(first)}**",
        *map(_escaped, more_answers),
        summary.findings_summary(report),
    ]
    parts += [text for text in paragraphs if text]
    parts += [markdown_section(table).rstrip("\n") for table in all_tables(report)]
    notes = [fmt.sentence(fmt.public(n)) for n in (*results.plan.notes, *results.warnings)]
    if notes:
        parts += ["## Notes", "\n".join(f"- {_escaped(note)}" for note in notes)]
    made = [f"Study {results.plan.study}."]
    if results.plan.command:
        made.append(f"Made by `{fmt.public(results.plan.command)}`.")
    parts += ["## Provenance", " ".join(made)]
    return "\n\n".join(parts) + "\n"


def markdown_section(table: Table) -> str:
    """A table with its title and notes."""
    parts = [f"## {_escaped(table.title)}", markdown_table(table)]
    return "\n\n".join([*parts, *(_escaped(note) for note in table.notes)]) + "\n"


def markdown_table(table: Table) -> str:
    head = [_escaped(column.title) for column in table.columns]
    rule = ["---:" if column.is_number else "---" for column in table.columns]
    rows = [[_escaped(entry.text) for entry in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def _escaped(text: str) -> str:
    """Without what Markdown would take for markup; an underscore inside a word is none."""
    for character in "\\|*<>`":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
