"""Dollars of a judge, against sums done by hand."""

from __future__ import annotations

import pytest

from scalesweep.evaluate.judging.price import (
    Estimate,
    Meter,
    Price,
    input_tokens,
    most_usd,
    price_of,
    usd_text,
)
from tests.evaluate.judging.panels import request

GPT4 = Price(input=30.0, output=60.0)


def test_prompt_tokens_are_estimated_as_a_fourth_of_its_characters_rounded_up() -> None:
    # "Judge." is 6 characters, 35 more make 41: 10.25 tokens.
    assert input_tokens(request("x" * 35)) == 11


def test_the_estimate_is_of_each_request_with_its_expected_reply() -> None:
    wanted = [(request("x" * 394), 50), (request("x" * 794, max_tokens=20), 50)]

    estimate = Estimate.of(wanted, GPT4)

    assert (estimate.requests, estimate.input_tokens) == (2, 100 + 200)
    assert estimate.output_tokens == 50 + 20  # no reply is longer than it may be
    assert estimate.usd == pytest.approx(300 * 30e-6 + 70 * 60e-6)  # 0.0132


def test_a_model_without_a_price_costs_an_unknown_sum_never_0() -> None:
    prices = {"gpt-4-0314": {"input": 30.0, "output": 60.0}}
    meter = Meter(price=price_of("gpt-5", prices))
    meter.replied(request("?"), "8 9", (100, 10))

    assert price_of("gpt-4-0314", prices) == GPT4
    assert Estimate.of([(request("?"), 5)], price_of("gpt-5", prices)).usd is None
    assert meter.usd is None
    assert meter.to_json()["usd"] is None
    assert meter.to_json()["input_tokens"] == 100
    assert "unknown" in usd_text(meter.usd)


def test_any_is_the_price_of_every_model_that_has_none_of_its_own() -> None:
    prices = {"any": {"input": 0.0, "output": 0.0}, "m": {"input": 1.0, "output": 2.0}}

    assert price_of("whatever", prices) == Price(input=0.0, output=0.0)
    assert price_of("m", prices) == Price(input=1.0, output=2.0)


def test_the_meter_takes_the_endpoints_count_and_estimates_where_there_is_none() -> None:
    meter = Meter(price=GPT4)

    meter.replied(request("x" * 394), "8 9 " * 10, (120, 12))
    meter.replied(request("x" * 394), "8 9 " * 10, (None, None))

    assert meter.replies_without_usage == 1
    assert (meter.input_tokens, meter.output_tokens) == (120 + 100, 12 + 10)
    assert meter.usd == pytest.approx(220 * 30e-6 + 22 * 60e-6)


def test_no_call_costs_more_than_a_token_a_byte_and_the_longest_reply() -> None:
    # 6 + 2 bytes ("é" has two) and 8 for each of the two messages; 64 tokens back.
    assert most_usd(request("é"), GPT4) == pytest.approx((8 + 16) * 30e-6 + 64 * 60e-6)


def test_what_broke_off_may_have_been_charged_and_counts_apart() -> None:
    meter = Meter(price=GPT4)
    meter.broke_off(request("é"))

    assert meter.usd == 0.0
    assert meter.most_usd == meter.unsure_usd == most_usd(request("é"), GPT4)


@pytest.mark.parametrize(
    ("usd", "text"), [(12.345, "$12.35"), (0.01234, "$0.0123"), (0.0, "$0.00")]
)
def test_small_sums_are_not_shown_as_nothing(usd: float, text: str) -> None:
    assert usd_text(usd) == text
