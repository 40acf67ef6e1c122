"""Repeated timings as median, spread and ratio to a baseline."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one thing, measured several times in turn with the others."""

    seconds: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def ratios(baseline: Timing, other: Timing) -> list[float]:
    """other / baseline, round by round: what slows a whole round does not count."""
    return [b / a for a, b in zip(baseline.seconds, other.seconds, strict=True)]


def ratio_text(baseline: Timing, other: Timing) -> str:
    """Median ratio, with the lowest and the highest of the rounds."""
    found = ratios(baseline, other)
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def print_timings(timings: Mapping[str, Timing], *, baseline: str) -> None:
    """A table: median seconds, lowest, highest, and the ratio to the baseline."""
    width = max(len(name) for name in timings)
    print(f"{'':<{width}}  {'median s':>9} {'min':>8} {'max':>8}  times {baseline} (min to max)")
    for name, timing in timings.items():
        low, high = min(timing.seconds), max(timing.seconds)
        print(
            f"{name:<{width}}  {timing.median:>9.3f} {low:>8.3f} {high:>8.3f}  "
            f"{ratio_text(timings[baseline], timing)}"
        )
