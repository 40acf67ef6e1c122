"""When each attempt of each stage ran, side by side as the machine had room for them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from scalesweep.records import Outcome
from scalesweep.report import formatting as fmt
from scalesweep.report.figures.svg import Scale, label, line, linear_ticks, svg, text_width
from scalesweep.report.markup import Child, Markup, tag
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


@dataclass(frozen=True)
class Pause:
    at: float
    """Where it stands on the shortened axis."""
    seconds: float


def attempt_spans(report: StudyReport) -> list[Span]:
    """All attempts that say when they ran, by start."""
    found = []
    for stage in report.results.stages.values():
        for attempt in stage.attempts:
            usage = attempt.usage
            if usage is None or usage.started_at <= 0 or usage.wall_s <= 0:
                continue
            again = f", attempt {attempt.number}" if len(stage.attempts) > 1 else ""
            bad = usage.outcome in (Outcome.failed, Outcome.killed, Outcome.interrupted)
            outcome = f", {usage.outcome}" if bad else ""
            found.append(
                Span(
                    start=usage.started_at,
                    end=usage.started_at + usage.wall_s,
                    kind=str(stage.kind),
                    label=stage.label.removeprefix(f"{stage.kind} "),
                    words=f"{stage.label}: {fmt.duration(usage.wall_s)}{again}{outcome}",
                    ended_badly=bad,
                )
            )
    return sorted(found, key=lambda span: span.start)


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
        moved.append(
            Span(
                start=span.start - by,
                end=span.end - by,
                kind=span.kind,
                label=span.label,
                words=span.words,
                ended_badly=span.ended_badly,
            )
        )
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
    while name and text_width(name, 11.5) > end - start - 10:
        name = name.rpartition(" ")[0]
    return tag(
        "g",
        tag("title", span.words),
        tag(
            "rect",
            x=start,
            y=top,
            width=max(end - start - 1.0, 1.0),
            height=_BAR,
            rx=3,
            class_=f"span {span.kind}" + (" bad" if span.ended_badly else ""),
        ),
        label(start + 5, top + 16, name, f"on-bar {span.kind}") if name else None,
        class_="mark",
    )


def _time_ticks(seconds: float, *, most: int) -> list[float]:
    for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200):
        if seconds / step <= most:
            return [float(step * i) for i in range(int(seconds / step) + 1)]
    return linear_ticks(0.0, seconds, most=most)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d} h" if hours else f"{minutes}:{rest:02d}"
