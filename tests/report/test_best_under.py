"""The best setting under a ceiling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesweep.errors import ConfigError
from scalesweep.report.best_under import Ceiling, best_under, parsed_ceiling
from scalesweep.report.cost_unit import CostUnit
from tests.report.fake_settings import fake, pairs_with, value_of

SETTINGS = (
    fake("dear", 0.70, 100),
    fake("good", 0.60, 40),
    fake("as good", 0.59, 30),
    fake("twin", 0.60, 45),
    fake("poor", 0.40, 10),
)
PAIR = pairs_with(0.05, told_apart_from=0.05)


def usd(value: float) -> Ceiling:
    return Ceiling(value=value, unit=CostUnit.usd)


def test_the_best_that_costs_no_more_and_what_is_cheaper_and_as_good() -> None:
    found = best_under(SETTINGS, usd(50), score=value_of, pair=PAIR)

    assert found.best is not None
    assert found.best.label == "good"
    assert [setting.label for setting in found.alike] == ["as good"]
    assert [s.label for s in found.affordable] == ["poor", "as good", "good", "twin"]


def test_a_ceiling_is_what_may_be_spent_to_the_cent() -> None:
    found = best_under(SETTINGS, usd(40), score=value_of, pair=PAIR)
    below = best_under(SETTINGS, usd(39.99), score=value_of, pair=PAIR)

    assert found.best is not None
    assert found.best.label == "good"
    assert below.best is not None
    assert below.best.label == "as good"


def test_node_hours_are_a_ceiling_of_their_own() -> None:
    found = best_under(
        SETTINGS, Ceiling(value=3.0, unit=CostUnit.node_hours), score=value_of, pair=PAIR
    )

    assert found.best is not None
    assert found.best.label == "as good"


def test_a_ceiling_below_all_names_the_cheapest() -> None:
    found = best_under(SETTINGS, usd(5), score=value_of, pair=PAIR)

    assert (found.best, found.alike, found.affordable) == (None, (), ())
    assert found.cheapest is not None
    assert found.cheapest.label == "poor"


def test_a_cheaper_setting_that_cannot_be_compared_is_not_told_apart() -> None:
    settings = [fake("cheap", 0.2, 1), fake("best", 0.9, 5)]

    found = best_under(settings, usd(9), score=value_of, pair=lambda *_: None)

    assert [setting.label for setting in found.alike] == ["cheap"]


_SETTINGS = st.lists(
    st.builds(
        fake,
        st.text(max_size=3),
        st.floats(0, 1).map(lambda v: round(v, 2)),
        st.integers(1, 100),
    ),
    min_size=1,
    max_size=6,
)


@given(_SETTINGS, st.integers(1, 100), st.integers(0, 100))
def test_more_money_never_buys_a_worse_best(settings: list, ceiling: int, more: int) -> None:  # type: ignore[type-arg]
    small = best_under(settings, usd(ceiling), score=value_of, pair=PAIR)
    large = best_under(settings, usd(ceiling + more), score=value_of, pair=PAIR)

    assert all(s.usd <= ceiling for s in small.affordable)  # type: ignore[attr-defined]
    if small.best is not None:
        assert large.best is not None
        assert value_of(large.best) >= value_of(small.best)
        assert value_of(small.best) == max(s.value for s in settings if s.usd <= ceiling)


@pytest.mark.parametrize(
    ("text", "ceiling"),
    [
        ("150", usd(150)),
        ("usd=0.5", usd(0.5)),
        ("node_hours=6.5", Ceiling(value=6.5, unit=CostUnit.node_hours)),
    ],
)
def test_ceilings_are_read(text: str, ceiling: Ceiling) -> None:
    assert parsed_ceiling(text, has_prices=True) == ceiling


@pytest.mark.parametrize(
    ("text", "has_prices", "said"),
    [
        ("cheap", True, r"--under=cheap: takes a number above 0"),
        ("0", True, r"--under=0: takes a number above 0"),
        ("nan", True, r"--under=nan: takes a number above 0"),
        ("eur=5", True, r"--under=eur=5: eur is no unit; choose usd or node_hours"),
        ("150", False, r"--under=150: this study was run without prices .*say node_hours=\.\.\."),
    ],
)
def test_what_is_no_ceiling_is_refused(text: str, has_prices: bool, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parsed_ceiling(text, has_prices=has_prices)
