"""Secrets are taken out of text, whole replies are not."""

from __future__ import annotations

import base64

import pytest

from scalesweep.evaluate.judging.scrubbing import Scrubber, secrets_of_url

KEY = 'sk-pro"j/CANARY+17'


@pytest.mark.parametrize(
    "text",
    [
        f"you sent Bearer {KEY}",
        "you sent sk-pro%22j%2FCANARY%2B17",
        '{"error": "sk-pro\\"j/CANARY+17"}',
        f"{'x' * 190}{KEY}",  # cut only when it is out
    ],
)
def test_a_known_secret_is_in_no_line_in_no_form(text: str) -> None:
    line = Scrubber([KEY]).line(text)

    assert "CANARY" not in line
    assert "***" in line


@pytest.mark.parametrize("form", ["pro%22j%2fCANARY%2b17", "pro%22j/CANARY%2B17"])
def test_a_percent_encoded_secret_is_found_in_either_case_and_with_its_slash(form: str) -> None:
    assert Scrubber(['pro"j/CANARY+17']).line(f"you sent {form}") == "you sent ***"


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-abc*****CANARY.",
        "Authorization: Basic Q0FOQVJZOnB3",
        "https://CANARY:pw@host/v1 does not answer",
        "https://host/v1?code=CANARY&x=1 does not answer",
        '{"api-key": "CANARY"}',
        "api_key=CANARY",
    ],
)
def test_what_looks_like_a_secret_is_in_no_line(text: str) -> None:
    line = Scrubber([]).line(text)

    assert "CANARY" not in line
    assert "Q0FOQVJZ" not in line


def test_a_reply_loses_the_secrets_themselves_and_nothing_else() -> None:
    text = "8 9\nThe key: value pair, https://x.org?y=1, sk-y and the word EMPTY."

    assert Scrubber([KEY, "", "ab"]).known(text) == text
    assert Scrubber(["value pair"]).known(text) == text.replace("value pair", "***")


def test_an_address_hides_user_password_query_and_their_header() -> None:
    header = base64.b64encode(b"user:p@ss").decode()

    found = secrets_of_url("https://user:p%40ss@host:1/v1?code=abc&empty=")

    assert found >= {"user", "p@ss", "abc", header}


def test_a_line_is_one_and_short() -> None:
    line = Scrubber([]).line("a\nb" * 500)

    assert "\n" not in line
    assert len(line) == 200
