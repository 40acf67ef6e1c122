"""How fast an endpoint may be asked: one pace for all calls to it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

LONGEST_TIMES = 60
"""The longest wait, in first waits."""


@dataclass(kw_only=True)
class Pace:
    """Shared by all calls. A rate limit stops them all for a while, and halves how many go at once.

    With each reply one more goes at once again after as many replies as go at once now.
    """

    max_concurrent: int
    backoff_s: float
    in_flight: int = 0
    allowed: float = 0.0
    """How many may go at once now."""
    clock: Callable[[], float] = time.monotonic
    dice: random.Random = field(default_factory=random.Random)
    _resume_at: float = float("-inf")
    _slowed_at: float = float("-inf")
    _strikes: int = 0

    def __post_init__(self) -> None:
        self.allowed = float(self.max_concurrent)

    def wait_s(self) -> float:
        """Until the next call may go, as far as time decides it."""
        return max(0.0, self._resume_at - self.clock())

    def has_room(self) -> bool:
        return self.in_flight < int(self.allowed)

    def replied(self) -> None:
        self._strikes = 0
        self.allowed = min(float(self.max_concurrent), self.allowed + 1 / self.allowed)

    def limited(self, *, sent_at: float, retry_after_s: float | None) -> None:
        """The endpoint asks for less. Calls that were under way together count once."""
        now = self.clock()
        if sent_at >= self._slowed_at:
            self._strikes += 1
            self._slowed_at = now
            self.allowed = max(1.0, self.allowed / 2)
        wait = self.backoff(self._strikes)
        if retry_after_s is not None:  # 0, or a date that is past, is no leave to hurry
            asked = retry_after_s + self.dice.uniform(0, min(0.1 * retry_after_s, 1.0))
            wait = max(wait, asked)
        self._resume_at = max(self._resume_at, now + wait)

    def backoff(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        doubled = min(2.0 ** min(failures - 1, 30), LONGEST_TIMES)
        return float(self.backoff_s * doubled * self.dice.uniform(0.5, 1.0))
