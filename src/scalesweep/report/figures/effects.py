"""What each axis does to the score: bars with 95 % intervals, all else equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalesweep.report.figures.cost_score import tone
from scalesweep.report.figures.svg import Scale, label, line, linear_ticks, svg, text_width
from scalesweep.report.labels import value_at
from scalesweep.report.markup import Child, Markup, tag
from scalesweep.report.settings import Setting
from scalesweep.report.study_report import StudyReport

AXES = ("model", "resolution", "data mix", "tuning", "variant", "picture")
"""A variant is what a label says beyond the other axes: rank, alpha, learning rate, ..."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Settings that differ along one axis alone."""

    axis: str
    fixed: str
    """What they have in common."""
    rows: tuple[tuple[str, Setting], ...]
    """Value on the axis, and the setting."""


def effect_panels(report: StudyReport) -> list[Panel]:
    """For each axis, the largest set of scored settings that differ along it alone."""
    scored = [s for s in report.settings if report.interval(s) is not None]
    points = [_point(setting) for setting in scored]
    panels = []
    for axis in AXES:
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, point in enumerate(points):
            others = tuple(point[name] for name in AXES if name != axis)
            groups.setdefault(others, []).append(i)
        largest = max(groups.values(), key=len, default=[])
        if len({points[i][axis] for i in largest}) < 2:
            continue
        panels.append(
            Panel(
                axis=_TITLES[axis],
                fixed=", ".join(
                    points[largest[0]][name]
                    for name in AXES
                    if name not in (axis, "picture") and points[largest[0]][name] != "usual"
                ),
                rows=tuple((points[i][axis], scored[i]) for i in _ordered(largest, points, axis)),
            )
        )
    return panels


_TITLES = {
    "model": "Model size",
    "resolution": "Resolution",
    "data mix": "Data mix",
    "tuning": "Tuning method",
    "variant": "Hyperparameters",
    "picture": "Blind baseline",
}


def _point(setting: Setting) -> dict[str, str]:
    config = setting.config
    mix = str(value_at(config, "data_mix.name") or "")
    point = {
        "model": str(value_at(config, "model.name") or ""),
        "resolution": str(value_at(config, "resolution.name") or ""),
        "data mix": mix,
        "tuning": str(value_at(config, "tuning.method") or ""),
        "picture": "blind" if setting.is_blind else "sighted",
    }
    said = {*point.values(), f"mix={mix}"}
    rest = [word for word in setting.label.split() if word not in said]
    return {**point, "variant": " ".join(rest) or "usual"}


def _ordered(chosen: Sequence[int], points: Sequence[dict[str, str]], axis: str) -> list[int]:
    """By resolution as a number; otherwise as in the plan."""
    if axis == "resolution":
        return sorted(
            chosen, key=lambda i: int("0" + "".join(filter(str.isdigit, points[i][axis])))
        )
    return list(chosen)


def name_width(panels: Sequence[Panel]) -> float:
    """Room for the longest name, the same in all panels so that bars can be compared."""
    return min(max(text_width(name, 13) for panel in panels for name, _ in panel.rows), 170.0)


def effect_figure(report: StudyReport, panel: Panel, *, most: float, room: float) -> Markup:
    """One panel as bars.

    most: the highest score of all panels, so that they share a scale.
    room: width for names.
    """
    row_height, top, width, right = 30.0, 4.0, 400.0, 46.0
    left = 12 + room
    height = top + row_height * len(panel.rows) + 22
    x = Scale(low=0.0, high=most, start=left, end=width - right)
    floor = top + row_height * len(panel.rows)
    parts: list[Child] = []
    for tick in linear_ticks(0.0, most, most=4):
        parts.append(line(x(tick), top, x(tick), floor, "grid"))
        parts.append(label(x(tick), floor + 15, f"{tick:.1f}", "tick", anchor="middle"))
    for i, (name, setting) in enumerate(panel.rows):
        value = report.interval(setting)
        assert value is not None
        middle = top + row_height * (i + 0.5)
        parts.append(
            tag(
                "g",
                tag(
                    "title",
                    f"{setting.label}: {value.value:.3f}, 95 % {value.low:.3f} to {value.high:.3f}",
                ),
                tag(
                    "rect",
                    x=x(0.0),
                    y=middle - 9,
                    width=max(x(value.value) - x(0.0), 0.5),
                    height=18.0,
                    rx=2,
                    class_=f"bar {tone(setting)}",
                ),
                line(x(value.low), middle, x(value.high), middle, "interval"),
                line(x(value.low), middle - 4, x(value.low), middle + 4, "interval"),
                line(x(value.high), middle - 4, x(value.high), middle + 4, "interval"),
                label(left - 8, middle + 4.5, name, "row", anchor="end"),
                label(width - 2, middle + 4.5, f"{value.value:.3f}", "value", anchor="end"),
                class_="mark",
            )
        )
    parts.append(line(x(0.0), top, x(0.0), floor, "axis"))
    return svg(*parts, width=width, height=height, label=f"Score by {panel.axis.lower()}")
