"""What a point of score costs along the front, against calculation by hand."""

from __future__ import annotations

import pytest

from scalesweep.report.marginal import Price, neighbour_steps, shown_steps
from tests.report.fake_settings import fake, pairs_with, usd_of

FRONT = (fake("a", 0.50, 10), fake("b", 0.54, 30), fake("c", 0.55, 60), fake("d", 0.60, 100))


def test_a_price_is_the_extra_cost_over_the_gain_with_the_interval_of_the_gain() -> None:
    first, second, third = neighbour_steps(
        FRONT, cost=usd_of, pair=pairs_with(0.02, told_apart_from=0.04)
    )

    # 20 dollars for 4 points (2 to 6)
    assert first.per_point is not None
    assert first.per_point == Price(
        value=pytest.approx(5), low=pytest.approx(20 / 6), high=pytest.approx(10)
    )
    assert first.at_least == pytest.approx(20 / 6)
    # 30 dollars for 1 point (-1 to 3): no price, but 10 a point at least
    assert second.per_point is None
    assert second.at_least == pytest.approx(10)
    # 40 dollars for 5 points
    assert third.per_point is not None
    assert third.per_point.value == pytest.approx(8)


def test_no_lower_bound_where_the_dearer_one_is_worse_for_sure() -> None:
    worse = (fake("a", 0.50, 10), fake("b", 0.40, 30))

    (step,) = neighbour_steps(worse, cost=usd_of, pair=pairs_with(0.02, told_apart_from=0.04))

    assert step.pair is not None
    assert step.pair.is_told_apart
    assert (step.per_point, step.at_least) == (None, None)


def test_settings_whose_gain_may_be_luck_are_left_out_of_the_steps_worth_naming() -> None:
    steps = shown_steps(FRONT, cost=usd_of, pair=pairs_with(0.02, told_apart_from=0.055))

    # b gains 0.04 and c 0.05 over a: luck, perhaps; d gains 0.10 for 90 dollars.
    assert [(step.before.label, step.after.label) for step in steps] == [("a", "d")]
    assert steps[0].per_point is not None
    assert steps[0].per_point.value == pytest.approx(9)


def test_no_step_is_named_where_nothing_is_told_apart() -> None:
    assert shown_steps(FRONT, cost=usd_of, pair=pairs_with(0.5, told_apart_from=0.5)) == ()
    assert shown_steps(FRONT[:1], cost=usd_of, pair=pairs_with(0, told_apart_from=0)) == ()


def test_what_cannot_be_compared_has_no_gain() -> None:
    (step,) = neighbour_steps(FRONT[:2], cost=usd_of, pair=lambda *_: None)

    assert (step.gain, step.per_point, step.at_least) == (None, None, None)
    assert step.extra_cost == 20
