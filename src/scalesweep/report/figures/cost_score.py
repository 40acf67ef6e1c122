"""Cost against score: every setting with its 95 % interval, and the Pareto front."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from scalesweep.report import formatting as fmt
from scalesweep.report.figures.shapes import shape
from scalesweep.report.figures.svg import (
    Box,
    Scale,
    label,
    line,
    linear_ticks,
    log_ticks,
    padded,
    path,
    place_label,
    svg,
)
from scalesweep.report.labels import short_labels, value_at
from scalesweep.report.markup import Child, Markup, tag
from scalesweep.report.pareto import pareto_front
from scalesweep.report.settings import Setting
from scalesweep.report.statistics import Estimate
from scalesweep.report.study_report import StudyReport, comparable_settings

_LABEL_SIZE = 12.5


@dataclass(frozen=True)
class _Dot:
    setting: Setting
    cost: float
    value: Estimate
    radius: float
    on_front: bool


@dataclass(frozen=True, kw_only=True)
class View:
    """One choice of the cost axis."""

    unit: str
    """dollars | node-hours"""
    scale: str
    """log | linear"""
    figures: tuple[Markup, ...]
    """For wide and for narrow screens."""


def cost_score_views(report: StudyReport) -> list[View]:
    """Every choice of the axis, the one to begin with first; empty where nothing is scored."""
    views = []
    for unit in ("dollars", "node-hours") if report.has_prices else ("node-hours",):
        dots = _dots(report, unit)
        if not dots:
            continue
        costs = [dot.cost for dot in dots]
        # A logarithmic axis over less than that has no round ticks.
        for scale in ("log", "linear") if max(costs) / min(costs) > 1.5 else ("linear",):
            axis = _Axis(unit=unit, is_log=scale == "log")
            figures = (
                _figure(report, dots, axis, width=920, height=460, only="wide"),
                _figure(report, dots, axis, width=360, height=400, only="narrow"),
            )
            views.append(View(unit=unit, scale=scale, figures=figures))
    return views


@dataclass(frozen=True, kw_only=True)
class _Axis:
    unit: str
    is_log: bool

    def words(self, value: float, *, decimals: int | None = None) -> str:
        if self.unit == "dollars":
            return fmt.usd(value, decimals=decimals)
        return f"{value:g}"


def _dots(report: StudyReport, unit: str) -> list[_Dot]:
    sizes = sorted({s.cells[0].cell.num_params for s in report.settings})
    comparable = comparable_settings(report)
    costs = [_cost(setting, unit) for setting in comparable]
    points = [(c, s.score(report.primary) or 0.0) for c, s in zip(costs, comparable, strict=True)]
    # Clusters of different prices can have another front in hours than in dollars.
    front = [comparable[i] for i in pareto_front(points)]
    dots = []
    for setting in report.settings:
        value = report.interval(setting)
        cost = _cost(setting, unit)
        if value is not None and cost > 0 and setting.costs_are_whole:
            place = sizes.index(setting.cells[0].cell.num_params)
            radius = dot_radius(place, len(sizes))
            dots.append(_Dot(setting, cost, value, radius, setting in front))
    return dots


def dot_radius(place: int, num_sizes: int) -> float:
    """By the model's place among the study's sizes."""
    return 5.0 + 4.0 * place / (num_sizes - 1) if num_sizes > 1 else 6.5


def _cost(setting: Setting, unit: str) -> float:
    cost = setting.mean_cost("whole")
    return cost.usd if unit == "dollars" else cost.node_hours


def tone(setting: Setting) -> str:
    """Class that colours a setting: by its tuning method, the blind one grey."""
    return "blind" if setting.is_blind else str(value_at(setting.config, "tuning.method"))


def _figure(
    report: StudyReport,
    dots: Sequence[_Dot],
    axis: _Axis,
    *,
    width: float,
    height: float,
    only: str,
) -> Markup:
    is_wide = only == "wide"
    left, right, top, bottom = 46.0, 26.0, 30.0, 46.0
    costs = [dot.cost for dot in dots]
    if axis.is_log:
        reach = (max(costs) / min(costs)) ** (0.06 if is_wide else 0.1)
        x = Scale(
            low=min(costs) / reach,
            high=max(costs) * reach,
            start=left,
            end=width - right,
            is_log=True,
        )
        ticks = log_ticks(x.low, x.high, most=8 if is_wide else 5)
    else:
        low, high = padded(costs, share=0.2, least=min(costs) * 0.1)
        x = Scale(low=low, high=high, start=left, end=width - right)
        ticks = linear_ticks(low, high, most=5 if is_wide else 3)
    low, high = padded([v for d in dots for v in (d.value.low, d.value.high)], share=0.06)
    y = Scale(low=max(low, 0.0), high=high, start=height - bottom, end=top)
    inside = Box(left + 2, top - 4, width - 2, height - bottom - 2)
    lines, names = _labels(dots, x, y, inside=inside)
    parts: list[Child] = [
        _axes(report, axis, x, y, ticks, height=height),
        _front(dots, x, y),
        lines,
        [_dot(report, dot, x, y) for dot in dots],
        names,
    ]
    return svg(
        *parts,
        width=width,
        height=height,
        only=only,
        label=f"Score against standalone cost of each setting in {axis.unit}, "
        f"{'log' if axis.is_log else 'linear'} scale, with the Pareto front",
    )


def _axes(
    report: StudyReport, axis: _Axis, x: Scale, y: Scale, ticks: Sequence[float], *, height: float
) -> list[Markup]:
    parts = []
    for value in linear_ticks(y.low, y.high, most=8):
        parts.append(line(x.start, y(value), x.end, y(value), "grid"))
        parts.append(label(x.start - 8, y(value) + 4, f"{value:.1f}", "tick", anchor="end"))
    for value in ticks:
        words = axis.words(value, decimals=_digits(ticks))
        parts.append(line(x(value), y.start, x(value), y.start + 5, "axis"))
        parts.append(label(x(value), y.start + 19, words, "tick", anchor="middle"))
    parts.append(line(x.start, y.start, x.end, y.start, "axis"))
    log = ", log scale" if x.is_log else ""
    parts.append(
        label(
            x.end, height - 8, f"standalone cost of a run, {axis.unit}{log}", "name", anchor="end"
        )
    )
    parts.append(label(4, 14, f"score on {report.primary}", "name"))
    return parts


def _digits(ticks: Sequence[float]) -> int:
    """Decimals that tell all ticks apart."""
    for decimals in range(2, 7):
        if all(abs(round(tick, decimals) - tick) < tick * 1e-6 for tick in ticks):
            return decimals
    return 6


def _front(dots: Sequence[_Dot], x: Scale, y: Scale) -> Markup | None:
    """A staircase: what the best score is for at most this cost."""
    front = _by_cost(dots)
    if not front:
        return None
    steps = _steps(front, x, y)
    first, last = steps[0][0], steps[-1][0]
    return tag(
        "g",
        path([(first, y.start), *steps, (last, y.start)], "front-area"),
        path(steps, "front"),
    )


def _by_cost(dots: Sequence[_Dot]) -> list[_Dot]:
    return sorted((dot for dot in dots if dot.on_front), key=lambda dot: dot.cost)


def _steps(front: Sequence[_Dot], x: Scale, y: Scale) -> list[tuple[float, float]]:
    """Corners of the staircase, by rising cost."""
    corners: list[tuple[float, float]] = []
    for dot in front:
        if corners:
            corners.append((x(dot.cost), corners[-1][1]))
        corners.append((x(dot.cost), y(dot.value.value)))
    return [*corners, (x.end, corners[-1][1])]


def _dot(report: StudyReport, dot: _Dot, x: Scale, y: Scale) -> Markup:
    here, value = x(dot.cost), dot.value
    tone_here = tone(dot.setting)
    return tag(
        "g",
        tag("title", _words(report, dot)),
        line(here, y(value.low), here, y(value.high), f"whisker {tone_here}"),
        [
            line(here - 4, y(end), here + 4, y(end), f"whisker {tone_here}")
            for end in (value.low, value.high)
        ],
        shape(
            tone_here,
            here,
            y(value.value),
            dot.radius,
            f"dot {tone_here}" + (" on-front" if dot.on_front else ""),
        ),
        class_="mark",
        **_groups(dot.setting),
    )


def _groups(setting: Setting) -> dict[str, str]:
    """What the legend can single out."""
    model = str(value_at(setting.config, "model.name") or "")
    return {"data_tuning": tone(setting), "data_model": model}


def _words(report: StudyReport, dot: _Dot) -> str:
    setting, value = dot.setting, dot.value
    cost, judging = setting.mean_cost("standalone"), setting.mean_cost("judging")
    cell = setting.cells[0].cell
    lines = [
        setting.label,
        f"score {value.value:.3f}, 95 % {value.low:.3f} to {value.high:.3f}",
        "alone " + (f"{fmt.usd(cost.usd)}, " if report.has_prices else "")
        + f"{cost.node_hours:.4g} node-hours",
        *([f"judges {fmt.usd(judging.usd)} besides"] if judging.micro_usd else []),
        f"trains {fmt.count(cell.num_trainable_params)} of {fmt.count(cell.num_params)} parameters",
    ]  # fmt: skip
    if len(setting.cells) > 1:
        lines.append(fmt.plural(len(setting.cells), "seed"))
    if dot.on_front:
        lines.append("on the Pareto front")
    return "\n".join(lines)


def _labels(
    dots: Sequence[_Dot], x: Scale, y: Scale, *, inside: Box
) -> tuple[list[Markup], list[Markup]]:
    """Lines that lead to names, and names beside the dots; those on the front come first."""
    short = short_labels([dot.setting.label for dot in dots])
    taken, thin = [], []
    for dot in dots:
        here, there = x(dot.cost), y(dot.value.value)
        reach = dot.radius + 1
        taken.append(Box(here - reach, there - reach, here + reach, there + reach))
        thin.append(Box(here - 1, y(dot.value.high), here + 1, y(dot.value.low)))
    front = _by_cost(dots)
    corners = _steps(front, x, y) if front else []
    thin += [
        Box(min(x1, x2) - 1, min(y1, y2) - 1, max(x1, x2) + 1, max(y1, y2) + 1)
        for (x1, y1), (x2, y2) in itertools.pairwise(corners)
    ]
    lines, names = [], []
    for dot in sorted(dots, key=lambda d: (not d.on_front, -d.value.value)):
        here, there, words = x(dot.cost), y(dot.value.value), short[dot.setting.label]
        placed = place_label(
            here,
            there,
            words,
            size=_LABEL_SIZE,
            gap=dot.radius,
            taken=taken,
            thin=thin,
            inside=inside,
        )
        if placed is None:
            continue
        taken.append(placed.box)
        if placed.is_far:
            lines.append(line(here, there, placed.x, placed.y - _LABEL_SIZE * 0.35, "leader"))
        class_ = "mark-label strong" if dot.on_front else "mark-label"
        name = label(placed.x, placed.y, words, class_, anchor=placed.anchor)
        names.append(tag("g", name, class_="name-of", **_groups(dot.setting)))
    return lines, names
