"""Loss curves: of adapters first, as in the paper's figure of LoRA hyperparameters."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scalesweep.report.figures.svg import (
    Scale,
    label,
    line,
    linear_ticks,
    log_ticks,
    path,
    spread_apart,
    svg,
)
from scalesweep.report.labels import short_labels, value_at
from scalesweep.report.markup import Child, Markup, tag
from scalesweep.report.settings import Setting
from scalesweep.report.stage_results import LossPoint
from scalesweep.report.study_report import StudyReport

NUM_TONES = 7
"""Line colours (Okabe and Ito's) before dashes tell lines apart."""


@dataclass(frozen=True)
class Curve:
    name: str
    setting: Setting
    points: tuple[tuple[float, float], ...]
    """(step, loss), smoothed."""
    is_shown: bool = True
    """Drawn until a reader chooses others."""


def loss_curves(report: StudyReport) -> list[Curve]:
    """Curves of the settings tuned with adapters, and of the full ones they compare with.

    Empty where fewer than two adapter settings have one. Of several seeds, the first.
    """
    peft = [
        s
        for s in report.settings
        if value_at(s.config, "tuning.method") in ("lora", "qlora") and s.cells[0].loss
    ]
    if len(peft) < 2:
        return []
    alike = {_picture(setting) for setting in peft}
    full = [
        s
        for s in report.settings
        if value_at(s.config, "tuning.method") == "full"
        and not s.is_blind
        and s.cells[0].loss
        and _picture(s) in alike
    ]
    chosen = [*full, *peft]
    names = short_labels([setting.label for setting in report.settings])
    return [
        Curve(names[setting.label], setting, tuple(smoothed(setting.cells[0].loss)))
        for setting in chosen
    ]


def every_curve(report: StudyReport) -> list[Curve]:
    """Curves of all cells that have one; those that loss_curves compares are shown at first.

    Where it compares none, as many are shown as there are colours.
    """
    shown = loss_curves(report)
    known = {curve.setting.cells[0].cell.name for curve in shown}
    names = short_labels([setting.label for setting in report.settings])
    others: list[Curve] = []
    for setting in report.settings:
        for cell in setting.cells:
            if not cell.loss or cell.cell.name in known:
                continue
            seed = f" seed {cell.seed}" if len(setting.cells) > 1 else ""
            others.append(
                Curve(
                    names[setting.label] + seed,
                    setting,
                    tuple(smoothed(cell.loss)),
                    is_shown=not shown and len(others) < NUM_TONES,
                )
            )
    return [*shown, *others]


def _picture(setting: Setting) -> tuple[object, ...]:
    keys = ("model.name", "resolution.pixels", "data_mix.name")
    return tuple(value_at(setting.config, key) for key in keys)


def smoothed(points: Sequence[LossPoint]) -> list[tuple[float, float]]:
    """Means over windows of a fifteenth of the curve, at most 300 points."""
    window = max(1, len(points) // 15)
    stride = max(1, len(points) // 300)
    found = []
    for i in range(window - 1, len(points), stride):
        part = points[i + 1 - window : i + 1]
        found.append(
            (
                statistics.fmean(point.step for point in part),
                statistics.fmean(point.loss for point in part),
            )
        )
    return found


def loss_figure(curves: Sequence[Curve]) -> list[Markup]:
    """For wide screens with names at the lines, for narrow ones without (there is a legend)."""
    return [
        _figure(curves, width=920, height=380, right=230, only="wide"),
        _figure(curves, width=360, height=300, right=10, only="narrow"),
    ]


def legend(curves: Sequence[Curve]) -> Markup:
    """Names of the lines; with a script each shows or hides its line."""
    all_shown = all(curve.is_shown for curve in curves)
    return tag(
        "ul",
        (
            tag(
                "li",
                tag("span", class_=f"swatch line-{i % NUM_TONES}{_dash(i)}"),
                curve.name,
                data_curve=i,
                class_=None if curve.is_shown else "off",
            )
            for i, curve in enumerate(curves)
        ),
        class_="legend curves" + (" narrow" if all_shown else ""),
        aria_label="Cells",
    )


def _dash(i: int) -> str:
    return ("", " dashed", " dotted")[i // NUM_TONES % 3]


def _figure(
    curves: Sequence[Curve], *, width: float, height: float, right: float, only: str
) -> Markup:
    left, top, bottom = 42.0, 26.0, 42.0
    steps = [step for curve in curves for step, _ in curve.points]
    losses = [loss for curve in curves for _, loss in curve.points]
    x = Scale(low=0.0, high=max(steps), start=left, end=width - right)
    # Logarithmic: what tells settings apart happens low, after the first few steps.
    lowest = max(min(losses), 1e-6)
    y = Scale(
        low=lowest / 1.08,
        high=max(max(losses), lowest * 1.2),
        start=height - bottom,
        end=top,
        is_log=True,
    )
    parts: list[Child] = []
    for value in log_ticks(y.low, y.high, most=8):
        parts.append(line(left, y(value), x.end, y(value), "grid"))
        parts.append(label(left - 8, y(value) + 4, f"{value:g}", "tick", anchor="end"))
    for value in linear_ticks(0, x.high, most=6 if only == "wide" else 4):
        parts.append(line(x(value), y.start, x(value), y.start + 5, "axis"))
        parts.append(label(x(value), y.start + 19, f"{value:g}", "tick", anchor="middle"))
    parts.append(line(left, y.start, x.end, y.start, "axis"))
    parts.append(label(x.end, height - 6, "optimizer step", "name", anchor="end"))
    parts.append(label(4, 14, "training loss, nats per answer token, log scale", "name"))
    for i, curve in enumerate(curves):
        words = f"{curve.name}\nloss {curve.points[-1][1]:.3f} at the end"
        points = [(x(step), y(max(loss, lowest))) for step, loss in curve.points]
        parts.append(
            tag(
                "g",
                tag("title", words),
                path(points, f"curve line-{i % NUM_TONES}{_dash(i)}"),
                class_="mark" if curve.is_shown else "mark off",
                data_curve=i,
                data_name=curve.name,
            )
        )
    if only == "wide":
        parts += _names(curves, x, y)
    return svg(
        *parts,
        width=width,
        height=height,
        only=only,
        label="Training loss by step",
        # What a script needs to read values off the lines.
        data_axes=f"{x.low:g} {x.high:g} {x.start:g} {x.end:g} "
        f"{y.low:.9g} {y.high:.9g} {y.start:g} {y.end:g}",
    )


def _names(curves: Sequence[Curve], x: Scale, y: Scale) -> list[Markup]:
    """Beside the ends of the lines that are shown at first; a legend has all."""
    chosen = [(i, curve) for i, curve in enumerate(curves) if curve.is_shown]
    ends = [y(curve.points[-1][1]) for _, curve in chosen]
    places = spread_apart(ends, gap=18.0, low=y.end + 6, high=y.start - 4)
    parts = []
    for (i, curve), end, place in zip(chosen, ends, places, strict=True):
        last = x(curve.points[-1][0])
        parts.append(
            tag(
                "g",
                path([(last + 3, end), (last + 22, place)], f"lead line-{i % NUM_TONES}"),
                label(last + 27, place + 4.5, curve.name, "mark-label"),
                data_curve=i,
            )
        )
    return parts
