"""What the planner expected of each stage against what it took, on logarithmic axes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scalesweep.report import formatting as fmt
from scalesweep.report.figures.shapes import shape
from scalesweep.report.figures.svg import Scale, label, line, log_ticks, path, svg
from scalesweep.report.markup import Child, Markup, tag
from scalesweep.report.predictions import Amount, PredictionReport

BAND = 0.2
"""Shaded: measured within this share of what was predicted."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One stage: what was predicted of it and what it took."""

    kind: str
    label: str
    amount: Amount
    basis: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    about: str
    pairs: tuple[Pair, ...]
    words: Callable[[float], str]

    @property
    def median_error(self) -> float:
        """Median of the absolute errors, as a share."""
        return statistics.median(abs(pair.amount.error) for pair in self.pairs)


def prediction_panels(predictions: PredictionReport) -> list[Panel]:
    """Time, device memory and host memory of the judged stages; those that have pairs."""
    found: dict[str, list[Pair]] = {"time": [], "device": [], "host": []}
    for stage in predictions.judged:
        amounts = {"time": stage.wall_s, "device": stage.device_bytes, "host": stage.host_bytes}
        for name, amount in amounts.items():
            if amount is not None:
                pair = Pair(
                    kind=str(stage.kind), label=stage.label, amount=amount, basis=stage.basis
                )
                found[name].append(pair)
    titles = (
        ("time", "Time", "of stages that ran in one go, start-up included", fmt.duration),
        ("device", "Device memory", "peak of the fullest device", _memory),
        ("host", "Host memory", "resident, the interpreter included; a node's ranks", _memory),
    )
    return [
        Panel(title=title, about=about, pairs=tuple(found[name]), words=words)
        for name, title, about, words in titles
        if found[name]
    ]


def _memory(value: float) -> str:
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def predicted_figure(panel: Panel) -> Markup:
    """The diagonal is a prediction that came true; the band is 20 % to either side."""
    width, height, left, right, top, bottom = 420.0, 340.0, 62.0, 14.0, 22.0, 44.0
    values = [v for pair in panel.pairs for v in (pair.amount.predicted, pair.amount.measured)]
    low, high = min(values) / 1.4, max(values) * 1.4
    x = Scale(low=low, high=high, start=left, end=width - right, is_log=True)
    y = Scale(low=low, high=high, start=height - bottom, end=top, is_log=True)
    parts: list[Child] = [_band(x, y)]
    for value in _ticks(low, high, panel.words):
        words = _tick(value, panel.words)
        parts.append(line(x.start, y(value), x.end, y(value), "grid"))
        parts.append(label(left - 8, y(value) + 4, words, "tick", anchor="end"))
        parts.append(label(x(value), y.start + 18, words, "tick", anchor="middle"))
    parts.append(line(x.start, y.start, x.end, y.start, "axis"))
    parts.append(path([(x(low), y(low)), (x(high), y(high))], "diagonal"))
    parts.append(label(x.end, height - 6, "predicted, log scale", "name", anchor="end"))
    parts.append(label(4, 10, "measured, log scale", "name"))
    parts += [_mark(panel, pair, x, y) for pair in panel.pairs]
    return svg(
        *parts,
        width=width,
        height=height,
        label=f"{panel.title}: predicted against measured for {len(panel.pairs)} stages",
    )


_TIMES = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36_000.0, 360_000.0)
"""Seconds that read as round: 10 s, 1 min, 10 min, 1 h, ..."""


def _ticks(low: float, high: float, words: Callable[[float], str]) -> list[float]:
    if words is fmt.duration:
        found = [tick for tick in _TIMES if low < tick < high]
        return found if len(found) > 1 else log_ticks(low, high, most=5)
    # Memory reads in powers of two.
    found, size = [], 2.0**10
    while size < high:
        if size > low:
            found.append(size)
        size *= 2
    stride = max(1, -(-len(found) // 5))
    return found[::stride] or [(low * high) ** 0.5]


def _tick(value: float, words: Callable[[float], str]) -> str:
    """Shorter than in words: 10 s, 1 min, 10 h."""
    if words is not fmt.duration:
        return words(value)
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g} s"


def _band(x: Scale, y: Scale) -> Markup:
    low, high = x.low, x.high

    def edge(at: float, share: float) -> tuple[float, float]:
        """Where the line measured = share x predicted is at that prediction, or leaves."""
        value = at * share
        if value > high:
            return x(high / share), y(high)
        if value < low:
            return x(low / share), y(low)
        return x(at), y(value)

    corners: Sequence[tuple[float, float]] = [
        (x(low), y(low)),
        edge(low, 1 + BAND),
        edge(high, 1 + BAND),
        (x(high), y(high)),
        edge(high, 1 - BAND),
        edge(low, 1 - BAND),
    ]
    return path(corners, "band")


def _mark(panel: Panel, pair: Pair, x: Scale, y: Scale) -> Markup:
    words = (
        f"{pair.label}\npredicted {panel.words(pair.amount.predicted)} ({pair.basis})\n"
        f"measured {panel.words(pair.amount.measured)}\noff by "
        + f"{pair.amount.error * 100:+.0f} %".replace("-", "−")
    )
    return tag(
        "g",
        tag("title", words),
        shape(
            pair.kind, x(pair.amount.predicted), y(pair.amount.measured), 5.0, f"dot {pair.kind}"
        ),
        class_="mark",
        data_kind=pair.kind,
    )
