"""When to save, and when to stop before the job's time is over, by what was measured."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from dataclasses import dataclass, field

from scalesweep.records import Measured

LARGEST_SHARE = 0.05
"""Of the time between two saves for which a save may hold training up."""
FREE_S = 30.0
"""Of an attempt, in all: nobody misses them, and a short run is not put off by a slow call."""


@dataclass(kw_only=True)
class Pace:
    """Steps between saves, stretched so far that saving costs no more than its share.

    Medians of a few: one save on a busy file system must not put off the next for hours.
    """

    every_steps: int
    """The least: cluster.checkpoint_every_steps"""
    saved_step: int = 0
    longest: Measured = field(default_factory=Measured)
    began_at: float = field(default_factory=time.time)
    """Seconds since 1970 when the attempt began"""
    _steps: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    _held_up: deque[float] = field(default_factory=lambda: deque(maxlen=5))
    _written: deque[float] = field(default_factory=lambda: deque(maxlen=5))
    _spent_s: float = 0.0

    def step(self, seconds: float) -> None:
        """A step took so long, without saving."""
        self._steps.append(seconds)
        self.longest = self.longest.longest(Measured(longest_step_s=seconds))

    def saved(self, held_up_s: float, *, waited_s: float = 0.0) -> None:
        """A save held training up so long, besides waiting so long for the one before."""
        self._held_up.append(held_up_s)
        self._spent_s += held_up_s + waited_s

    def written(self, seconds: float) -> None:
        """A checkpoint was complete so long after its step."""
        self._written.append(seconds)
        self.longest = self.longest.longest(Measured(longest_save_s=seconds))

    @property
    def interval_steps(self) -> int:
        """From one save to the next: a multiple of every_steps."""
        if self._spent_s <= FREE_S or not self._steps:
            return self.every_steps
        needed_s = statistics.median(self._held_up) / LARGEST_SHARE
        if self._written:  # what is still being written would be waited for
            needed_s = max(needed_s, statistics.median(self._written))
        step_s = statistics.median(self._steps)
        return self.every_steps * max(1, math.ceil(needed_s / step_s / self.every_steps))

    def is_due(self, step: int) -> bool:
        since = step - self.saved_step
        return step % self.every_steps == 0 and since > self.interval_steps - self.every_steps

    def must_stop(self, *, now: float, ends_at: float | None) -> bool:
        """Whether another step may leave too little time to save; both since 1970, in seconds.

        At least half of the attempt's time is trained: one slow save would otherwise end every
        later attempt after its first step.
        """
        if ends_at is None or self.longest.lead_s <= 0:
            return False
        lead_s = min(self.longest.lead_s, (ends_at - self.began_at) / 2)
        return now + lead_s >= ends_at
