"""A report as one self-contained page: it loads nothing, and nothing private is in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from scalesweep.report import formatting as fmt
from scalesweep.report import summary
from scalesweep.report.answer_text import answer_sentences
from scalesweep.report.cells_table import cells_table
from scalesweep.report.figures.interval import interval_figure
from scalesweep.report.findings import Measure
from scalesweep.report.front_table import front_table
from scalesweep.report.html_figures import (
    cost_score_section,
    effects_section,
    loss_section,
    predictions_section,
    section,
    timeline,
)
from scalesweep.report.html_ledger import ledger_section
from scalesweep.report.html_table import html_table
from scalesweep.report.markup import Child, Markup, tag
from scalesweep.report.pairs_table import pairs_table
from scalesweep.report.sizes_table import sizes_table
from scalesweep.report.study_report import StudyReport
from scalesweep.report.table import Table
from scalesweep.report.tables import (
    all_tables,
    category_table,
    cost_table,
    grid_table,
    interval,
    kinds_table,
    language_table,
    unfinished_table,
)
from scalesweep.report.verdicts import Judged, Verdict
from scalesweep.report.versions import known_versions

_HERE = Path(__file__).parent


def render_html(report: StudyReport) -> str:
    results = report.results
    asked, _ = summary.question(report)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{results.plan.study}: {asked}"),
        tag("style", Markup(_shipped("page.css"))),
    )
    body = tag(
        "body",
        tag(
            "main",
            _opening(report),
            cost_score_section(report),
            _table_section(cost_table(report), lead=""),
            _table_section(front_table(report), lead="", is_sortable=False),
            _table_section(pairs_table(report), lead="", is_sortable=False),
            _table_section(sizes_table(report), lead="", is_sortable=False),
            _table_section(unfinished_table(report), lead="", is_sortable=False),
            effects_section(report),
            _table_section(grid_table(report), lead="", is_sortable=False),
            loss_section(report),
            _findings(report),
            _table_section(
                language_table(report),
                lead="What a score stands on: what is guessed blind, and what tuning on pictures "
                "does to language.",
            ),
            _table_section(category_table(report), lead=""),
            _costs(report),
            ledger_section(report),
            _further_tables(report),
            predictions_section(report),
            _cells(report),
            _method(report),
            _provenance(report),
        ),
        # To a browser the marks are comments; to an XML parser they keep "<" from opening a tag.
        tag("script", Markup(f"/*<![CDATA[*/\n{_shipped('page.js')}/*]]>*/")),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _shipped(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _notes(notes: Sequence[str]) -> Markup | None:
    return tag("ul", (tag("li", note) for note in notes), class_="notes") if notes else None


def _opening(report: StudyReport) -> Markup:
    results = report.results
    asked, more = summary.question(report)
    progress = summary.progress(report)
    first, *others = answer_sentences(report)
    return tag(
        "header",
        tag("p", tag("b", "scalesweep"), f" · study {results.plan.study}", class_="eyebrow"),
        tag("h1", asked),
        tag("p", more, class_="about") if more else None,
        tag("p", _emphasised(first, report), class_="answer"),
        (tag("p", _emphasised(text, report), class_="answer more") for text in others),
        tag("p", progress, class_="progress") if progress else None,
        tag("dl", _tiles(report), class_="tiles"),
    )


def _emphasised(sentence: str, report: StudyReport) -> list[Child]:
    """The sentence with the names of settings in bold."""
    labels = sorted({s.label for s in report.settings}, key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, labels)) + ")", sentence)
    return [tag("b", part) if part in labels else part for part in parts]


def _tiles(report: StudyReport) -> list[Markup]:
    results = report.results
    scored = [s for s in report.settings if s.score(report.primary) is not None]
    sighted = [s for s in scored if not s.is_blind]
    tiles = []
    if sighted:
        best = max(sighted, key=lambda s: s.score(report.primary) or 0.0)
        tiles.append(_tile("best score", fmt.score(best.score(report.primary)), best.label))
    blind = [s for s in scored if s.is_blind]
    if blind:
        value = max(s.score(report.primary) or 0.0 for s in blind)
        tiles.append(_tile("blind baseline", fmt.score(value), "guessed without seeing"))
    counted = [f for f in report.findings if f.finding.paper != "check"]
    if counted:
        shown = sum(f.verdict is Verdict.shown for f in counted)
        tiles.append(
            _tile("findings shown", f"{shown} of {len(counted)}", "comparisons after the paper")
        )
    cost = results.total.total
    judges = results.judging
    example = any(price.is_example for price in results.prices)
    if report.has_prices:
        tiles.append(
            _tile(
                "cost so far" if any(r.is_running for r in results.ledger) else "all of it cost",
                fmt.usd(cost.usd),
                f"{cost.node_hours:.2g} node-hours"
                + (", example price" if example else "")
                + (f", judges {fmt.usd(judges.usd)} besides" if judges and judges.usd else ""),
            )
        )
    tiles.append(
        _tile(
            "cells done",
            f"{results.num_done} of {len(results.cells)}",
            f"{fmt.duration(cost.device_seconds)} of device time",
        )
    )
    return tiles


def _tile(title: str, value: str, more: str) -> Markup:
    return tag("div", tag("dt", title), tag("dd", value, tag("small", more)))


_SIGNS = {
    Verdict.shown: "✓",
    Verdict.not_shown: "≈",
    Verdict.contrary: "✕",
}


def _findings(report: StudyReport) -> Markup | None:
    if not report.findings:
        return None
    judged = [f for f in report.findings if f.verdict is not Verdict.cannot_judge]
    unjudged = [f for f in report.findings if f.verdict is Verdict.cannot_judge]
    return section(
        "The paper's findings, here",
        tag("div", map(_finding, judged), class_="findings"),
        [
            tag("p", "Cannot be judged:", class_="lead below"),
            _notes([f"{f.finding.claim} ({f.reason})" for f in unjudged]),
        ]
        if unjudged
        else None,
        lead=summary.findings_summary(report)
        + " Shaded is where the 95 % interval has to lie for a finding to show.",
    )


def _finding(judged: Judged) -> Markup:
    finding, value = judged.finding, judged.estimate
    of = "check of the study" if finding.paper == "check" else f"finding {finding.paper}"
    parts: list[Child] = [
        tag(
            "header",
            tag(
                "span",
                tag("span", _SIGNS[judged.verdict]),
                str(judged.verdict),
                class_=f"chip {judged.verdict.name}",
            ),
            tag("span", of, class_="of"),
        ),
        tag("h3", finding.claim),
    ]
    if value is not None:
        parts.append(
            interval_figure(value, threshold=judged.threshold, verdict=judged.verdict.name)
        )
        numbers = (
            f" ± {value.standard_error:.3f} (df {fmt.degrees_of_freedom(value.df)}), 95 % "
            f"{interval(judged)}"
        )
        parts.append(tag("p", tag("b", fmt.signed(value.value)), numbers))
        parts.append(tag("p", _sides(judged)))
    if judged.reason:
        parts.append(tag("p", fmt.sentence(judged.reason)))
    if judged.also_differs:
        parts.append(tag("p", f"They also differ in {', '.join(judged.also_differs)}."))
    parts.append(tag("p", f"Paper: {finding.paper_says}."))
    return tag("article", parts, class_="finding")


def _sides(judged: Judged) -> list[Child]:
    """What was compared, with its values."""
    is_cost = judged.finding.measure is Measure.cost
    parts: list[Child] = []
    for side, value in zip(judged.finding.sides, judged.values, strict=True):
        shown = f"{value * 1e3:.2f} ms" if is_cost else fmt.score(value)
        parts += [" · " if parts else None, f"{side.name} ", tag("b", shown)]
    if is_cost:
        parts.append(" of a device per sample; compared by logarithms")
    return parts


def _table_section(table: Table | None, *, lead: str, is_sortable: bool = True) -> Markup | None:
    if table is None:
        return None
    return section(
        table.title,
        html_table(table, is_sortable=is_sortable),
        _notes(table.notes),
        lead=lead,
    )


_PLACED = frozenset(
    {"cost", "front", "pairs", "unfinished", "grid", "findings", "language", "categories", "kinds"}
    | {"sizes", "ledger", "payers"}
)
"""Tables that have their place on the page, or are shown as cards."""


def _further_tables(report: StudyReport) -> list[Markup | None]:
    """What other formats show too, so that no table is missing here."""
    tables = all_tables(report)
    return [_table_section(table, lead="") for table in tables if table.id not in _PLACED]


def _cells(report: StudyReport) -> Markup:
    return section("Every cell", html_table(cells_table(report), is_filterable=True))


def _costs(report: StudyReport) -> Markup:
    table = kinds_table(report)
    when = timeline(report)
    return section(
        table.title,
        html_table(table, is_sortable=False),
        _notes(table.notes),
        tag("div", when, class_="below-table") if when else None,
    )


def _method(report: StudyReport) -> Markup:
    results = report.results
    notes = [
        *summary.method_notes(report),
        *(fmt.sentence(fmt.public(note)) for note in results.plan.notes),
        *(fmt.sentence(fmt.public(warning)) for warning in results.warnings),
    ]
    return section("How it was measured", _notes(notes))


def _provenance(report: StudyReport) -> Markup:
    results = report.results
    versions = ", ".join(f"{name} {' '.join(v)}" for name, v in known_versions(results).items())
    rows: list[tuple[str, Child]] = [("study", results.plan.study)]
    if results.plan.command:
        rows.append(("command", tag("code", fmt.public(results.plan.command))))
    if ran := _ran(report):
        rows.append(("ran", ran))
    rows.append(("versions" if results.versions else "installed now", versions))
    rows.append(("paper", "Lu et al., An Empirical Study of Scaling Instruct-Tuned Large "
                 "Multimodal Models, arXiv 2309.09958"))  # fmt: skip
    return tag(
        "footer",
        tag("dl", ((tag("dt", name), tag("dd", value)) for name, value in rows)),
        class_="provenance",
    )


def _ran(report: StudyReport) -> str:
    """Days of the first and the last attempt, in universal time."""
    starts = [
        attempt.usage.started_at
        for stage in report.results.stages.values()
        for attempt in stage.attempts
        if attempt.usage is not None and attempt.usage.started_at > 0
    ]
    if not starts:
        return ""
    days = [
        datetime.fromtimestamp(at, tz=UTC).date().isoformat() for at in (min(starts), max(starts))
    ]
    return days[0] if days[0] == days[1] else f"{days[0]} to {days[1]}"
