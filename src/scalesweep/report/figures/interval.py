"""A finding's difference with its 95 % interval, beside what it must be above."""

from __future__ import annotations

from scalesweep.report import formatting as fmt
from scalesweep.report.figures.svg import Scale, label, line, svg
from scalesweep.report.markup import Child, Markup, tag
from scalesweep.report.statistics import Estimate


def interval_figure(value: Estimate, *, threshold: float, verdict: str) -> Markup:
    """verdict: class that colours the mark."""
    width, height, middle = 370.0, 48.0, 16.0
    # Small differences look small: the scale is never finer than 0.15 to either side of zero.
    low = min(value.low, threshold, -0.15)
    high = max(value.high, 0.15)
    room = (high - low) * 0.06
    x = Scale(low=low - room, high=high + room, start=6.0, end=width - 6.0)
    parts: list[Child] = [
        tag(
            "rect",
            x=x(threshold),
            y=4.0,
            width=x.end - x(threshold),
            height=24.0,
            class_="claimed",
        ),
        line(x.start, middle, x.end, middle, "grid"),
        line(x(0.0), 4, x(0.0), 28, "axis"),
        label(x(0.0), 43, "0", "tick", anchor="middle"),
    ]
    if threshold:
        parts.append(line(x(threshold), 4, x(threshold), 28, "threshold"))
        parts.append(
            label(x(threshold), 43, fmt.plain_signed(threshold)[:5], "tick", anchor="middle")
        )
    parts += [
        line(x(value.low), middle, x(value.high), middle, f"range {verdict}"),
        tag("circle", cx=x(value.value), cy=middle, r=5.5, class_=f"dot {verdict}"),
    ]
    words = (
        f"{fmt.signed(value.value)}, 95 % interval {fmt.signed(value.low)} to "
        f"{fmt.signed(value.high)}"
    )
    return svg(tag("title", words), *parts, width=width, height=height, label=words)
