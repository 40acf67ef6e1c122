"""Shown amounts that add up in every direction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from scalesweep.cost_model.rounding import Row, rounded


def test_thirds_of_a_cent_add_up_by_row_and_by_column() -> None:
    # 3 rows x 3 columns of 1/3: every row and column sums to exactly 1
    rows = [Row(group="g", amounts={"a": 1, "b": 1, "c": 1})] * 3

    shown = rounded(rows, unit=3)

    assert sorted(tuple(row.values()) for row in shown) == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]


def test_many_small_amounts_do_not_vanish() -> None:
    # A hundred attempts of 0.3 cents start-up and 0.7 cents work: 30 and 70 cents, not 0 and 100.
    rows = [Row(group="g", amounts={"startup": 3, "work": 7})] * 100

    shown = rounded(rows, unit=10)

    assert sum(row["startup"] for row in shown) == 30
    assert sum(row["work"] for row in shown) == 70
    assert all(sum(row.values()) == 1 for row in shown)


ROWS = st.lists(
    st.builds(
        Row,
        group=st.sampled_from("pqr"),
        amounts=st.fixed_dictionaries({name: st.integers(0, 5000) for name in "abcd"}),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(ROWS, st.sampled_from([1, 7, 100, 10_000]))
def test_every_amount_and_every_sum_is_a_neighbour_of_the_exact_one(
    rows: Sequence[Row], unit: int
) -> None:
    shown = rounded(rows, unit=unit)

    exact_sums: dict[object, int] = defaultdict(int)
    shown_sums: dict[object, int] = defaultdict(int)
    for i, (row, found) in enumerate(zip(rows, shown, strict=True)):
        for column, amount in row.amounts.items():
            for key in (
                (i, column),
                ("row", i),
                ("column", column),
                ("part", row.group, column),
                ("group", row.group),
                "all",
            ):
                exact_sums[key] += amount
                shown_sums[key] += found[column]
    for key, exact in exact_sums.items():
        assert abs(shown_sums[key] * unit - exact) < unit, key
    assert 2 * abs(shown_sums["all"] * unit - exact_sums["all"]) <= unit
