"""What may be said about a judge, and what of it is written down."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest

from scalesweep.config.judge import JudgeConfig, PriceConfig
from scalesweep.endpoints import has_secrets, public_url
from scalesweep.errors import ConfigError
from tests.config.composing import cell


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def judge(**changes: Any) -> JudgeConfig:
    return JudgeConfig(**{"name": "mine", "scorer": "openai", "model": "m", **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"api_key_variable": "sk-CANARY"}, "judge.api_key_variable=.hidden.: must be the name"),
        ({"api_key_variable": "skcanary"}, "judge.api_key_variable=.hidden.: must be the name"),
        ({"base_url": "https://me:CANARY@host/v1"}, "judge.base_url=.hidden.: must have no user"),
        ({"base_url": "https://host/v1?code=CANARY"}, "judge.base_url=.hidden.: must have no user"),
        (
            {"prices": {"m": PriceConfig(input=0, output=0, source="a blog")}},
            "judge.prices.m=0: a price of 0 needs source='own machine'",
        ),
        (
            {"prices": {"any": PriceConfig(input=1, output=1, source="a blog")}},
            "judge.prices.any=openai: only a compatible endpoint",
        ),
        ({"backoff_s": 0.0}, "judge.backoff_s=0"),
        ({"base_url": "https://us:12/CANARY@gw/v1"}, "judge.base_url=.hidden.: has an @ after"),
        ({"base_url": "https://us:12#CANARY@gw/v1"}, "judge.base_url=.hidden.: has an @ after"),
        ({"base_url": "https://gw:CANARY/v1"}, "judge.base_url=.hidden.: is no address"),
        ({"base_url": "https://CANARY[/v1"}, "judge.base_url=.hidden.: is no address"),
        ({"base_url": "https://CANARY\u2100x/v1"}, "judge.base_url=.hidden.: is no address"),
        ({"base_url": "http:///v1"}, "judge.base_url=.hidden.: has no host"),
        ({"model": " "}, "judge.model= : name the model"),
        ({"models": {"mm_vet": ""}}, "judge.models.mm_vet=: name the model"),
        ({"name": "openai", "endpoint": "compatible"}, "judge.name=openai: .*stored as OpenAI's"),
        ({"name": "Azure", "endpoint": "compatible"}, "judge.name=Azure: .*stored as OpenAI's"),
        ({"timeout_s": 901.0}, "judge.timeout_s=901: must not be longer than judge.patience_s=900"),
    ],
)
def test_what_would_leak_a_key_or_make_a_price_up_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        judge(**changes)

    assert "CANARY" not in str(error.value)


@pytest.mark.parametrize(
    ("endpoint", "variable"), [("openai", "OPENAI_BASE_URL"), ("azure", "AZURE_OPENAI_ENDPOINT")]
)
def test_an_address_of_the_environment_that_cannot_be_read_is_refused_unquoted(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, variable: str
) -> None:
    for url in ("https://us:12/CANARY@gw/v1", "https://us:CANARY#x@gw/v1"):
        monkeypatch.setenv(variable, url)
        with pytest.raises(ConfigError, match=f"^{variable}=.hidden.: .*percent-encode") as error:
            judge(endpoint=endpoint)
        assert "CANARY" not in "".join(traceback.format_exception(error.value))


def test_of_the_environments_address_only_what_is_public_is_written_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:CANARY@host:8443/v1?code=CANARY#CANARY")

    written = judge(endpoint="compatible").execution()

    assert written["base_url"] == "https://host:8443/v1"
    assert "CANARY" not in json.dumps(written)


def test_another_servers_replies_get_among_openais_only_by_saying_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://gateway.example/v1")

    with pytest.raises(ConfigError, match=r"leads to gateway\.example; take judge"):
        judge()
    assert judge(base_url="http://gateway.example/v1").source == "openai"
    assert judge(endpoint="compatible").source == "mine"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://eu.api.openai.com/v1")
    assert judge().source == "openai"


@pytest.mark.parametrize(
    ("url", "public", "secret"),
    [
        ("https://host/v1", "https://host/v1", False),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1", False),
        ("https://key@host/v1", "https://host/v1", True),
        ("https://host/v1?a=b", "https://host/v1", True),
    ],
)
def test_an_address_is_told_apart_from_what_is_secret_in_it(
    url: str, public: str, secret: bool
) -> None:
    assert public_url(url) == public
    assert has_secrets(url) is secret


@pytest.mark.parametrize("option", ["gpt4", "gpt4o", "local"])
def test_every_shipped_judge_composes_with_a_price_for_each_of_its_models(option: str) -> None:
    config = cell(f"judge={option}").judge
    models = {config.model, *config.models.values()}

    assert config.name == option
    assert config.where == "login"
    for model in models:
        assert model in config.prices or "any" in config.prices
    assert all(price.source for price in config.prices.values())


def test_an_own_machine_is_the_only_judge_that_costs_nothing() -> None:
    (price,) = cell("judge=local").judge.prices.values()

    assert (price.input, price.output) == (0.0, 0.0)
    assert price.source.startswith("own machine")
    assert cell("judge=local").judge.source == "local"
