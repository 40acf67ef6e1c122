"""What an endpoint does is told apart, and no secret is in what is said about it."""

from __future__ import annotations

import asyncio
import base64
import datetime
import email.utils
import json
import logging
import pickle
import sys
import traceback
from typing import Any

import pytest

from scalesweep.errors import StageError
from scalesweep.evaluate.judging.client import (
    Failure,
    Fault,
    JudgeClient,
    Received,
    fault_of,
    retry_after_s,
)
from tests.evaluate.judging.panels import MODEL, request, settings
from tests.fakes.judge_server import JudgeServer

KEY = "sk-CANARY-4e1f/77+x"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY_OF_TESTS", KEY)
    for name in ("OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)


def sent(url: str, **changes: Any) -> Received | Failure:
    """One call, as the client's user makes it."""

    async def go() -> Received | Failure:
        async with JudgeClient(settings(url, **changes)) as client:
            return await client.send(MODEL, request("what?"))

    return asyncio.run(go())


def failed(what: str, **changes: Any) -> Failure:
    with JudgeServer(everybody=(what,)) as server:
        failure = sent(server.url, **changes)
    assert isinstance(failure, Failure)
    assert len(server.requests) == 1  # the package tries nothing again by itself
    return failure


def test_a_reply_comes_with_its_usage_and_the_request_is_official_to_the_letter() -> None:
    with JudgeServer(verdict=lambda *_: "8 9\nGood.") as server:
        reply = sent(server.url)

    assert reply == Received(
        text="8 9\nGood.",
        finish_reason="stop",
        input_tokens=2,  # 11 characters / 5
        output_tokens=2,
        model=f"{MODEL}-served",
    )
    assert server.paths == ["/v1/chat/completions"]
    assert server.requests == [
        {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "Judge."},
                {"role": "user", "content": "what?"},
            ],
            "temperature": 0.2,
            "max_tokens": 64,
        }
    ]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_reply_without_usage_says_so() -> None:
    with JudgeServer(usage=False) as server:
        reply = sent(server.url)

    assert isinstance(reply, Received)
    assert (reply.input_tokens, reply.output_tokens) == (None, None)


def test_an_empty_reply_is_a_reply() -> None:
    with JudgeServer(everybody=("empty",)) as server:
        reply = sent(server.url)

    assert isinstance(reply, Received)
    assert reply.text == ""


@pytest.mark.parametrize(
    ("what", "fault", "may_cost"),
    [
        ("429", Fault.rate_limit, False),
        ("500", Fault.server, False),
        ("503", Fault.server, False),
        ("time-out", Fault.timeout, True),
        ("half", Fault.broken, True),
        ("not-json", Fault.broken, True),
        ("no-choices", Fault.broken, True),
        ("reset", Fault.connection, True),
        ("filter", Fault.refused, False),
        ("413", Fault.bad_request, False),
        ("405", Fault.address, False),
        ("407", Fault.proxy, False),
        ("451", Fault.unavailable, False),
        ("hostile-date", Fault.rate_limit, False),
        ("filtered-reply", Fault.refused, True),
        ("too-long", Fault.bad_request, False),
        ("unsupported", Fault.unsupported, False),
        ("quota", Fault.quota, False),
        ("401", Fault.authentication, False),
        ("403", Fault.permission, False),
        ("404", Fault.unknown_model, False),
        ("redirect", Fault.redirect, False),
    ],
)
def test_each_fault_is_told_apart_and_quotes_no_key(
    what: str, fault: Fault, may_cost: bool
) -> None:
    failure = failed(what)

    assert (failure.fault, failure.may_cost) == (fault, may_cost)
    for form in (repr(failure), str(failure), pickle.dumps(failure).decode("latin-1")):
        assert "CANARY" not in form
    assert "\n" not in failure.text


def test_an_endpoint_that_is_not_there_is_a_connection_fault_that_costs_nothing() -> None:
    with JudgeServer() as server:
        url = server.url

    failure = sent(url)

    assert isinstance(failure, Failure)
    assert (failure.fault, failure.may_cost) == (Fault.connection, False)


def test_a_reply_that_drips_is_ended_by_the_time_out_of_the_whole_call() -> None:
    failure = failed("drip", timeout_s=0.3)  # never so long without a byte

    assert failure.fault is Fault.timeout


@pytest.mark.parametrize(
    ("status", "error", "fault"),
    [
        (429, {"code": "rate_limit_exceeded"}, Fault.rate_limit),
        (429, {"type": "insufficient_quota"}, Fault.quota),
        (402, {}, Fault.quota),
        (400, {"code": "content_filter"}, Fault.refused),
        (400, {"innererror": {"code": "ResponsibleAIPolicyViolation"}}, Fault.refused),
        (400, {"code": "invalid_prompt"}, Fault.refused),
        (400, {"code": "context_length_exceeded"}, Fault.bad_request),
        (400, {}, Fault.bad_request),
        (400, {"code": "unsupported_value"}, Fault.unsupported),
        (401, {}, Fault.authentication),
        (404, {"code": "DeploymentNotFound"}, Fault.unknown_model),
        (408, {}, Fault.timeout),
        (502, {}, Fault.server),
        (529, {"type": "overloaded_error"}, Fault.server),
        (302, {}, Fault.redirect),
    ],
)
def test_status_and_code_decide_what_is_done(
    status: int, error: dict[str, Any], fault: Fault
) -> None:
    assert fault_of(status, error) is fault


def test_retry_after_may_be_milliseconds_seconds_or_a_date() -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)

    assert retry_after_s({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after_s({"retry-after": "2.5"}) == 2.5
    assert retry_after_s({"retry-after": "-3"}) == 0.0
    assert retry_after_s({"retry-after": "1e300"}) == 1e7
    assert retry_after_s({"retry-after": f"Mon, 01 Jan {10**20} 00:00:00 GMT"}) is None
    assert retry_after_s({"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359"}) in (None, 1e7)
    date = retry_after_s({"retry-after": email.utils.format_datetime(soon, usegmt=True)})
    assert date == pytest.approx(60, abs=2)
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({"retry-after": "inf"}) is None
    assert retry_after_s({}) is None


def test_azure_is_asked_by_deployment_and_api_version_with_its_own_header() -> None:
    with JudgeServer() as server:
        reply = sent(
            server.url.removesuffix("/v1"),
            endpoint="azure",
            api_version="2024-10-21",
            deployments={MODEL: "my-gpt4"},
        )

    assert isinstance(reply, Received)
    path = "/openai/deployments/my-gpt4/chat/completions?api-version=2024-10-21"
    assert server.paths == [path]
    assert server.headers[0]["api-key"] == KEY
    assert "authorization" not in server.headers[0]


def test_the_environments_address_keeps_its_secrets_to_the_wire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with JudgeServer(everybody=("ok", "500")) as server:
        whole = server.url.replace("//", "//me:pw-CANARY@") + "?code=q-CANARY"
        monkeypatch.setenv("OPENAI_BASE_URL", whole)
        sent(server.url)  # what was written down
        failure = sent(server.url)
        client = JudgeClient(settings(server.url))

    assert server.paths[0] == "/v1/chat/completions?code=q-CANARY"
    assert server.headers[0]["authorization"].startswith("Basic ")
    assert isinstance(failure, Failure)
    assert "you sent" in failure.text  # the server quoted the header
    assert "Basic ***" in failure.text
    assert client.host == server.url.removeprefix("http://").removesuffix("/v1")


def test_another_address_than_the_environments_gets_none_of_its_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:pw@elsewhere/v1?code=1")
    with JudgeServer() as server:
        sent(server.url)

    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_reply_that_quotes_the_key_is_kept_without_it() -> None:
    with JudgeServer(verdict=lambda *_: f"8 9\nyour key is {KEY}") as server:
        reply = sent(server.url)

    assert isinstance(reply, Received)
    assert reply.text == "8 9\nyour key is ***"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"base_url": None, "endpoint": "openai"},
            "judge.api_key_variable=JUDGE_KEY_OF_TESTS: the environment has no such variable",
        ),
        ({"base_url": "https://judge.example/v1"}, r"EMPTY where the server wants none"),
        ({"base_url": None}, "judge.base_url=null: endpoint=compatible needs an address"),
        ({"base_url": "judge.example"}, "must begin with https://"),
        ({"base_url": "http:///v1"}, r"judge\.base_url=.hidden.: has no host"),
    ],
)
def test_a_missing_key_or_address_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.delenv("JUDGE_KEY_OF_TESTS")

    with pytest.raises(StageError, match=message):
        JudgeClient({**settings("x"), **changes})


def test_a_server_on_loopback_may_be_asked_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY_OF_TESTS")
    with JudgeServer() as server:
        assert isinstance(sent(server.url), Received)

    assert server.headers[0]["authorization"] == "Bearer EMPTY"


def test_no_key_is_in_the_logs_of_the_http_libraries_at_their_most_talkative(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    with JudgeServer(everybody=("ok", "401")) as server:
        whole = server.url.replace("//", "//me:pw-CANARY@") + "?code=q-CANARY"
        monkeypatch.setenv("OPENAI_BASE_URL", whole)
        sent(server.url)
        sent(server.url)

    assert "CANARY" not in caplog.text


def test_an_error_about_the_key_or_the_address_shows_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JUDGE_KEY_OF_TESTS", f"{KEY}\nno header may hold this")
    with pytest.raises(StageError, match="is no key") as about_key:
        JudgeClient(settings("https://judge.example/v1"))

    monkeypatch.delenv("JUDGE_KEY_OF_TESTS")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:pw-CANARY@judge.example/v1?code=CANARY")
    with pytest.raises(StageError, match="no such variable") as about_address:
        JudgeClient(settings("https://judge.example/v1"))

    for error in (about_key.value, about_address.value):
        assert "CANARY" not in "".join(traceback.format_exception(error))


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)

    with pytest.raises(StageError, match=r"pip install 'scalesweep\[judge\]'"):
        JudgeClient(settings("https://judge.example/v1"))


def test_a_refusal_in_plain_words_keeps_them() -> None:
    assert failed("text").text == "400 bad request: in plain words"


def test_a_count_of_tokens_that_no_reply_has_is_none() -> None:
    content = {"choices": [{"message": {"content": "8 9"}}],
               "usage": {"prompt_tokens": 10**400, "completion_tokens": 3}}  # fmt: skip
    client = JudgeClient(settings("http://127.0.0.1:9/v1"))

    received = client._received(json.dumps(content).encode())

    assert isinstance(received, Received)
    assert (received.input_tokens, received.output_tokens) == (None, 3)


@pytest.mark.parametrize(
    "url",
    [
        "https://us:12/secretCANARY@gw/v1",
        "https://us:p#CANARY@gw/v1",
        "https://us:p?CANARY@gw/v1",
        "https://us:CANARY[@gw/v1",
        "https://us:CANARY\u2100@gw/v1",
    ],
)
def test_an_address_of_the_environment_that_cannot_be_read_is_quoted_nowhere(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)

    with pytest.raises(StageError, match=r"^OPENAI_BASE_URL=.hidden.: .*percent-encode") as error:
        JudgeClient({**settings("x"), "base_url": None})

    assert "CANARY" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTPS_PROXY", "socks5://me:pw-CANARY@proxy:1080"),
        ("HTTPS_PROXY", "gopher://me:pw-CANARY@proxy:1"),
        ("HTTPS_PROXY", "http://me:pw-CANARY@proxy:port"),
        ("SSL_CERT_FILE", "/not/there.pem"),
    ],
)
def test_an_environment_that_no_client_can_be_made_of_is_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(StageError, match="no client can be made for it") as error:
        JudgeClient(settings("https://judge.example/v1"))

    said = "".join(traceback.format_exception(error.value))
    assert "CANARY" not in said
    assert "\n" not in str(error.value)


def test_a_server_on_loopback_is_never_asked_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with JudgeServer() as server:
        assert isinstance(sent(server.url), Received)


def test_what_a_proxy_wants_is_in_nothing_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:p%40w-CANARY@127.0.0.1:9")
    header = base64.b64encode(b"me:p@w-CANARY").decode()
    client = JudgeClient(settings("https://judge.example/v1"))

    line = client._scrubber.line(f"proxy took p@w-CANARY, p%40w-CANARY, {header} not")

    assert line == "proxy took ***, ***, *** not"


def test_a_short_key_is_a_secret_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY_OF_TESTS", "k3yZ")
    with JudgeServer(verdict=lambda *_: "8 9\nyour key is k3yZ") as server:
        reply = sent(server.url)

    assert isinstance(reply, Received)
    assert reply.text == "8 9\nyour key is ***"
