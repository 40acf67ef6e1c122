"""Marks told apart by shape as well as colour, for readers and printers without colours."""

from __future__ import annotations

from scalesweep.report.markup import Markup, number, tag

_CORNERS = {
    "triangle": ((0.0, -1.25), (1.15, 0.85), (-1.15, 0.85)),
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "diamond": ((0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)),
    "wedge": ((0.0, 1.25), (1.15, -0.85), (-1.15, -0.85)),
}
"""Corners in radii; the areas are about that of the circle."""

OF_TONE = {
    "full": "circle",
    "lora": "triangle",
    "qlora": "square",
    "blind": "diamond",
    "data": "diamond",
    "base": "wedge",
    "align": "square",
    "tune": "circle",
    "generate": "triangle",
    "judge": "wedge",
}
"""Tuning methods, then kinds of stages."""


def shape(tone: str, x: float, y: float, radius: float, class_: str) -> Markup:
    """A mark at (x, y) in the tone's shape; a circle where it has none of its own."""
    corners = _CORNERS.get(OF_TONE.get(tone, "circle"))
    if corners is None:
        return tag("circle", cx=x, cy=y, r=radius, class_=class_)
    points = " ".join(f"{number(x + radius * dx)},{number(y + radius * dy)}" for dx, dy in corners)
    return tag("polygon", points=points, class_=class_)


def swatch(tone: str, *, radius: float = 5.0, class_: str = "") -> Markup:
    """The mark beside its name in a legend."""
    mark = shape(tone, 9.0, 9.0, radius, f"dot {class_ or tone}")
    return tag("svg", mark, viewbox="0 0 18 18", class_="swatch-mark", aria_hidden="true")
