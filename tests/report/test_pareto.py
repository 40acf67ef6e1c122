"""The Pareto front."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_the_front_is_what_no_other_point_dominates(points: list[tuple[int, int]]) -> None:
    front = pareto_front(points)

    def dominates(one: tuple[int, int], other: tuple[int, int]) -> bool:
        return one[0] <= other[0] and one[1] >= other[1] and one != other

    assert not any(dominates(point, points[i]) for i in front for point in points)
    kept = [points[i] for i in front]
    assert len(set(kept)) == len(kept)
    for point in points:
        assert point in kept or any(dominates(best, point) for best in kept)
