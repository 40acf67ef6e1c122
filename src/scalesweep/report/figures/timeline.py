"""When each attempt of each stage ran, side by side as the machine had room for them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from scalesweep.records import Outcome
from scalesweep.report import formatting as fmt
from scalesweep.report.costs import lost_of
from scalesweep.report.figures.svg import (
    Scale,
    label,
    line,
    linear_ticks,
    path,
    svg,
    text_width,
)
from scalesweep.report.markup import Child, Markup, tag
from scalesweep.report.stage_results import StageResult
from scalesweep.report.study_report import StudyReport

_LANE, _BAR = 30.0, 24.0
_GAP_SHARE = 0.04
"""A pause longer than this share of the busy time is drawn this short, and marked."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """One attempt on the time axis, in seconds since the first began."""

    start: float
    end: float
    kind: str
    label: str
    words: str
    ended_badly: bool
    startup_s: float = 0.0
    """Part of it before the first sample was worked on."""
    lost_s: float = 0.0
    """Part of it at its end that was done again or came to nothing."""


@dataclass(frozen=True)
class Pause:
    at: float
    """Where it stands on the shortened axis."""
    seconds: float


def attempt_spans(report: StudyReport) -> list[Span]:
    """All attempts that say when they ran, by start."""
    found = [span for stage in report.results.stages.values() for span in _spans_of(stage)]
    return sorted(found, key=lambda span: span.start)


def _spans_of(stage: StageResult) -> list[Span]:
    known = [(a, a.usage) for a in stage.attempts if a.usage is not None]
    usages = [usage for _, usage in known]
    published = next((i for i, (attempt, _) in enumerate(known) if attempt.published), None)
    found = []
    for position, (attempt, usage) in enumerate(known):
        if usage.started_at <= 0 or usage.wall_s <= 0:
            continue
        startup_s = min(usage.startup_s, usage.wall_s)
        share = lost_of(usages, position, published=published)
        lost_s = (usage.wall_s - startup_s) * share
        bad = usage.outcome in (Outcome.failed, Outcome.killed, Outcome.interrupted)
        again = f", attempt {attempt.number} of {len(stage.attempts)}"
        lines = [
            stage.label,
            f"{fmt.duration(usage.wall_s)}, {fmt.duration(startup_s)} of it start-up"
            + (again if len(stage.attempts) > 1 else ""),
        ]
        if bad:
            lines.append(f"{usage.outcome}: {usage.cause}" if usage.cause else str(usage.outcome))
        if lost_s > 0:
            lines.append(f"{fmt.duration(lost_s)} of work lost")
        found.append(
            Span(
                start=usage.started_at,
                end=usage.started_at + usage.wall_s,
                kind=str(stage.kind),
                label=stage.label.removeprefix(f"{stage.kind} "),
                words="\n".join(lines),
                ended_badly=bad,
                startup_s=startup_s,
                lost_s=lost_s,
            )
        )
    return found


def lanes(spans: Sequence[Span]) -> list[int]:
    """For each span (sorted by start) the first row that is free by then."""
    free: list[float] = []
    rows = []
    for span in spans:
        row = next((i for i, end in enumerate(free) if end <= span.start + 0.05), len(free))
        if row == len(free):
            free.append(0.0)
        free[row] = span.end
        rows.append(row)
    return rows


def without_pauses(spans: Sequence[Span]) -> tuple[list[Span], list[Pause]]:
    """Spans from zero, long pauses shortened; and where those were."""
    busy: list[list[float]] = []
    for span in spans:
        if busy and span.start <= busy[-1][1]:
            busy[-1][1] = max(busy[-1][1], span.end)
        else:
            busy.append([span.start, span.end])
    most = _GAP_SHARE * sum(end - start for start, end in busy)
    shift, pauses, moves = busy[0][0], [], [(busy[0][0], busy[0][0])]
    for (_, end), (start, _) in itertools.pairwise(busy):
        if start - end > max(most, 1.0):
            pauses.append(Pause(end - shift + most / 2, start - end))
            shift += start - end - most
        moves.append((start, shift))
    moved = []
    for span in spans:
        by = next(by for start, by in reversed(moves) if span.start >= start)
        moved.append(dataclasses.replace(span, start=span.start - by, end=span.end - by))
    return moved, pauses


def timeline_figure(report: StudyReport) -> list[Markup]:
    """For wide and narrow screens; empty where no attempt says when it ran."""
    spans = attempt_spans(report)
    if not spans:
        return []
    rows = lanes(spans)
    moved, pauses = without_pauses(spans)
    return [
        _figure(moved, rows, pauses, width=920, only="wide"),
        _figure(moved, rows, pauses, width=360, only="narrow"),
    ]


def _figure(
    spans: Sequence[Span], rows: Sequence[int], pauses: Sequence[Pause], *, width: float, only: str
) -> Markup:
    top = 4.0
    floor = top + _LANE * (max(rows) + 1)
    x = Scale(low=0.0, high=max(span.end for span in spans), start=2.0, end=width - 8.0)
    parts: list[Child] = []
    ticks = _time_ticks(x.high, most=8 if only == "wide" else 4)
    for value in ticks:
        parts.append(line(x(value), top, x(value), floor, "grid"))
        if not any(pause.at < value for pause in pauses):  # later ones would mislead
            anchor = "start" if value == 0 else "middle"
            parts.append(label(x(value), floor + 16, _clock(value), "tick", anchor=anchor))
    for span, row in zip(spans, rows, strict=True):
        parts.append(_bar(span, x, top=top + _LANE * row + (_LANE - _BAR) / 2))
    for pause in pauses:
        parts.append(line(x(pause.at), top, x(pause.at), floor, "threshold"))
        parts.append(
            label(
                x(pause.at), floor + 16, f"pause {fmt.duration(pause.seconds)}", "tick",
                anchor="middle",
            )
        )  # fmt: skip
    return svg(
        *parts,
        width=width,
        height=floor + 24,
        only=only,
        label="When each attempt of each stage ran",
    )


def _bar(span: Span, x: Scale, *, top: float) -> Markup:
    start, end = x(span.start), max(x(span.end), x(span.start) + 1.0)
    name = span.label
    while name and text_width(name, 11.5) > end - start - 10 - (14 if span.ended_badly else 0):
        name = name.rpartition(" ")[0]
    worked = min(x(span.start + span.startup_s), end)
    kept = max(x(span.end - span.lost_s), worked)
    middle = top + _BAR / 2
    return tag(
        "g",
        tag("title", span.words),
        _rect(start, top, max(end - start - 1.0, 1.0), f"span {span.kind}"),
        _rect(start, top, worked - start, "startup") if worked - start > 1.0 else None,
        _lost(kept, end - 1.0, top) if span.lost_s > 0 else None,
        label(start + 5, top + 16, name, f"on-bar {span.kind}") if name else None,
        path([(end - 9, middle - 4), (end - 1, middle + 4)], "fault") if span.ended_badly else None,
        path([(end - 9, middle + 4), (end - 1, middle - 4)], "fault") if span.ended_badly else None,
        class_="mark",
        data_kind=span.kind,
    )


def _rect(left: float, top: float, width: float, class_: str) -> Markup:
    return tag("rect", x=left, y=top, width=width, height=_BAR, rx=2, class_=class_)


def _lost(left: float, right: float, top: float) -> list[Markup]:
    """Veiled and hatched: told apart without colours."""
    strokes = []
    at = left
    while at < right:
        reach = min(6.0, right - at)
        strokes.append(path([(at, top + _BAR), (at + reach, top)], "hatch"))
        at += 6.0
    return [_rect(left, top, max(right - left, 1.0), "lost"), *strokes]


def _time_ticks(seconds: float, *, most: int) -> list[float]:
    for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200):
        if seconds / step <= most:
            return [float(step * i) for i in range(int(seconds / step) + 1)]
    return linear_ticks(0.0, seconds, most=most)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d} h" if hours else f"{minutes}:{rest:02d}"
