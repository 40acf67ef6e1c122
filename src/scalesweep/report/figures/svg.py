"""What all figures share: scales, ticks, axes, and places for labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scalesweep.report.markup import Child, Markup, number, tag

LETTER = 0.56
"""Width of an average letter, in font sizes; a little generous, so that labels stay apart."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def linear_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round values within [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * f for f in (1, 2, 2.5, 5, 10) if size * f >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float, *, most: int = 7) -> list[float]:
    """Round values within [low, high], as dense as there is room."""
    ticks: list[float] = []
    choices: list[tuple[float, ...]] = [(1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)]
    if high / low < 2.2:
        choices.append((1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9))
    for factors in choices:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [
            round(f * 10.0**d, 12) for d in decades for f in factors if low <= f * 10.0**d <= high
        ]
        if len(found) > most:
            break
        if len(found) >= len(ticks):
            ticks = found
    return ticks


def padded(values: Sequence[float], *, share: float, least: float = 0.0) -> tuple[float, float]:
    """Lowest and highest value with some room around."""
    low, high = min(values), max(values)
    room = max((high - low) * share, least)
    return low - room, high + room


def svg(
    *children: Child,
    width: float,
    height: float,
    label: str,
    only: str = "",
    data_axes: str | None = None,
) -> Markup:
    """A figure. only: "wide" or "narrow" shows it on such screens alone.

    data_axes: low, high, start and end of the x and the y scale.
    """
    return tag(
        "svg",
        *children,
        viewbox=f"0 0 {number(width)} {number(height)}",
        class_=f"figure {only}".strip(),
        role="img",
        aria_label=label,
        data_axes=data_axes,
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str, *, style: str | None = None) -> Markup:
    """A line through points."""
    d = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return tag("path", d=d, class_=class_, style=style)


def label(x: float, y: float, words: str, class_: str = "", *, anchor: str = "start") -> Markup:
    return tag("text", words, x=x, y=y, class_=f"t {class_}".strip(), text_anchor=anchor)


def text_width(words: str, size: float) -> float:
    return len(words) * size * LETTER


@dataclass(frozen=True)
class Box:
    """A rectangle that something takes."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Area that both take."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0

    def within(self, other: Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True)
class PlacedLabel:
    x: float
    y: float
    """Of the base line."""
    anchor: str
    box: Box
    is_far: bool
    """So far from its point that a line should lead to it."""


_PLACES = (
    (1.0, 0.0, "start"),
    (-1.0, 0.0, "end"),
    (0.7, -0.9, "start"),
    (0.7, 0.9, "start"),
    (-0.7, -0.9, "end"),
    (-0.7, 0.9, "end"),
    (0.0, -1.1, "middle"),
    (0.0, 1.1, "middle"),
)
"""Directions to look for room in, the best first, with the label's anchor there."""


def place_label(
    x: float,
    y: float,
    words: str,
    *,
    size: float,
    gap: float,
    taken: Sequence[Box],
    thin: Sequence[Box],
    inside: Box,
) -> PlacedLabel | None:
    """The best free place around a point, or None where there is no room.

    gap: radius of the point's mark.
    taken: what no label may cover; thin: lines that it had better not cross.
    """
    width = text_width(words, size)
    best: tuple[float, PlacedLabel] | None = None
    for ring, reach in enumerate((gap + 4, gap + size * 1.6, gap + size * 3, gap + size * 4.4)):
        for rank, (dx, dy, anchor) in enumerate(_PLACES):
            up = max(reach, gap + size * 0.8)
            left = x + dx * reach - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            top = y + dy * up - size / 2
            box = Box(left, top, left + width, top + size)
            if not box.within(inside) or any(box.overlap(other) for other in taken):
                continue
            crossed = sum(box.overlap(other) > 0 for other in thin)
            cost = 4 * ring + 3 * crossed + 0.3 * rank
            if best is None or cost < best[0]:
                placed = PlacedLabel(x + dx * reach, top + size * 0.85, anchor, box, ring > 0)
                best = (cost, placed)
    return best[1] if best is not None else None


def spread_apart(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, a gap apart, in the same order and within [low, high].

    Where there is no room for so wide a gap, it is as wide as fits.
    """
    if len(wanted) > 1:
        gap = min(gap, (high - low) / (len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    # Neighbours that are too near merge into a block centred on what its members want.
    blocks: list[list[int]] = []
    centres: list[float] = []
    for i in order:
        blocks.append([i])
        centres.append(wanted[i])
        while len(blocks) > 1:
            reach = gap * (len(blocks[-2]) + len(blocks[-1])) / 2
            if centres[-1] - centres[-2] >= reach:
                break
            merged = blocks[-2] + blocks[-1]
            blocks[-2:] = [merged]
            centres[-2:] = [sum(wanted[j] for j in merged) / len(merged)]
    places = [0.0] * len(wanted)
    lowest = low
    for block, centre in zip(blocks, centres, strict=True):
        for place, i in enumerate(block):
            places[i] = max(centre + gap * (place - (len(block) - 1) / 2), lowest)
            lowest = places[i] + gap
    highest = high
    for i in reversed(order):
        places[i] = min(places[i], highest)
        highest = places[i] - gap
    return places
