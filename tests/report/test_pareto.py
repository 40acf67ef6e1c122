"""The Pareto front."""

from __future__ import annotations

import pytest

from scalesweep.report.pareto import pareto_front


@pytest.mark.parametrize(
    ("points", "front"),
    [
        pytest.param([(1, 0.5), (2, 0.4), (3, 0.9)], [0, 2], id="a dearer, worse one is off"),
        pytest.param([(2, 0.5), (2, 0.7)], [1], id="of one cost the best"),
        pytest.param([(1, 0.5), (2, 0.5)], [0], id="of one score the cheapest"),
        pytest.param([(1, 0.5), (1, 0.5)], [0], id="of equals the first"),
        pytest.param([(3, 0.9), (1, 0.1)], [1, 0], id="by rising cost"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_pareto_front(points: list[tuple[float, float]], front: list[int]) -> None:
    assert pareto_front(points) == front
