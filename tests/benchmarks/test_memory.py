"""The memory that is predicted is the memory that a step's tensors take."""

from __future__ import annotations

import pytest

from benchmarks.memory import CASES, Case, measured


@pytest.mark.slow  # a process with DeepSpeed, 12 s
def test_predicted_bytes_are_within_a_tenth_of_those_counted() -> None:
    for one in measured(CASES):
        case = Case(**one["case"])
        for name, counted in one["counted"].items():
            ratio = one["predicted"][name] / counted
            assert 0.9 <= ratio <= 1.1, f"{case}: {name} {ratio:.3f}"
