"""Which pairs of settings a study tells apart, all pairs judged together.

Each pair is tested over the questions that both answered and the spread between seeds and judge
runs (statistics.contrast, two-sided). Of many tests some come out by luck, so their p-values are
corrected by Holm's step-down method: the chance that even one pair is told apart which is not
different is at most 5 %, however the tests depend on each other. That two settings are not told
apart does not make them equal: with few questions hardly any are.

Of very many settings not every pair is tested; p-values are corrected as if all were.

Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from scalesweep.report.settings import Setting
from scalesweep.report.statistics import CONFIDENCE, Contrast, Estimate, p_value

Difference = Callable[[Setting, Setting], Contrast | None]
"""Score of the first minus that of the second; None where too few questions are common."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    one: Setting
    other: Setting
    difference: Estimate
    """Score of one minus that of other; the interval is of this pair by itself."""
    p: float
    """Of this pair by itself."""
    corrected_p: float
    """Of all pairs together, by Holm."""

    @property
    def is_told_apart(self) -> bool:
        return self.corrected_p <= 1 - CONFIDENCE

    def seen_from(self, setting: Setting) -> Pair:
        """The same pair with this setting first."""
        if setting is self.one:
            return self
        turned = dataclasses.replace(
            self.difference,
            value=-self.difference.value,
            low=-self.difference.high,
            high=-self.difference.low,
        )
        return dataclasses.replace(self, one=self.other, other=self.one, difference=turned)


def holm(p_values: Sequence[float], *, num_tests: int | None = None) -> list[float]:
    """Corrected p-values, in the order given.

    num_tests: how many there could have been, where these are not all.
    """
    most = len(p_values) if num_tests is None else num_tests
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (most - rank) * p_values[i]))
        corrected[i] = highest
    return corrected


def all_pairs(
    settings: Sequence[Setting], difference: Difference, *, num_pairs: int | None = None
) -> tuple[Pair, ...]:
    """Every two settings that can be compared, the earlier one first.

    num_pairs: to correct for, where there are more settings than these.
    """
    found = [
        (one, other, contrast)
        for one, other in combinations(settings, 2)
        if (contrast := difference(one, other)) is not None
    ]
    each = [p_value(contrast) for _, _, contrast in found]
    return tuple(
        Pair(one=one, other=other, difference=contrast.estimate, p=p, corrected_p=corrected)
        for (one, other, contrast), p, corrected in zip(
            found, each, holm(each, num_tests=num_pairs), strict=True
        )
    )
