"""One call to a judge's endpoint. The only place that knows the openai package.

Nothing is raised for what an endpoint does: a call gives a reply or a failure with its kind, in
words without a secret. The package never tries again by itself, so every try is ours to count.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import enum
import json
import logging
import math
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from scalesweep.endpoints import (
    OPENAI_URL,
    URL_VARIABLES,
    is_loopback,
    needs_key,
    public_url,
    url_fault,
    url_of_environment,
)
from scalesweep.errors import StageError
from scalesweep.evaluate.judging.items import Request
from scalesweep.evaluate.judging.scrubbing import Scrubber, secrets_of_proxy, secrets_of_url

NO_KEY = "EMPTY"
"""What is sent to a server that wants no key, as vLLM's documentation has it."""
CONNECT_S = 20.0
LONGEST_WAIT_S = 1e7
"""Whatever longer wait an endpoint asks for is this one: months."""
MOST_TOKENS = 10**9
"""A larger count of one reply is none."""


class Fault(enum.StrEnum):
    """Why a call brought no reply, and so what is done about it."""

    # Tried again.
    rate_limit = "rate limit"
    server = "server error"
    timeout = "time-out"
    connection = "connection"
    broken = "broken reply"
    # Final for the item.
    refused = "content filter"
    bad_request = "bad request"
    # Final for the stage.
    quota = "quota"
    authentication = "authentication"
    permission = "permission"
    unknown_model = "unknown model"
    unsupported = "unsupported request"
    redirect = "redirect"
    address = "wrong address"
    proxy = "proxy"
    unavailable = "not available here"


AGAIN = frozenset({Fault.rate_limit, Fault.server, Fault.timeout, Fault.connection, Fault.broken})
FOR_ITEM = frozenset({Fault.refused, Fault.bad_request})

WAY_OUT = {
    Fault.quota: "the account has no credit left: raise its limit, then go on",
    Fault.authentication: "the endpoint does not take the key in {variable}: set the right one",
    Fault.permission: "the key in {variable} may not use this model: ask for access, or choose "
    "another judge",
    Fault.unknown_model: "the endpoint does not know this model: it may be retired; choose another "
    "judge (`judge calibrate` says how far off it is), or correct judge.base_url or "
    "judge.deployments",
    Fault.unsupported: "the model does not take the official rule's request: choose another judge",
    Fault.address: "nothing at this address takes such requests: correct judge.base_url, which "
    "mostly ends in /v1",
    Fault.proxy: "the proxy wants a user and a password: set them in HTTPS_PROXY or HTTP_PROXY, or "
    "name the endpoint in NO_PROXY",
    Fault.unavailable: "the endpoint may not reply here by law: choose another judge",
    Fault.redirect: "the address moved and a key is not sent after it: correct judge.base_url",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """A reply as the endpoint gave it."""

    text: str
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    model: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A call that brought no reply."""

    fault: Fault
    text: str
    """One line for people, without a secret."""
    retry_after_s: float | None = None
    """How long the endpoint asks to wait."""
    may_cost: bool = False
    """The endpoint may have worked for it, and charge for that."""


class JudgeClient:
    """Calls one endpoint; an asynchronous context manager.

    Raises:
        StageError: the openai package, the address or the key is missing.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """settings: Execution.judge."""
        self._endpoint = str(settings["endpoint"])
        self._deployments = dict(settings.get("deployments") or {})
        self._timeout_s = float(settings["timeout_s"])
        self._variable = str(settings["api_key_variable"])
        url = _whole_url(self._endpoint, settings.get("base_url"))
        key = _key(self._endpoint, url, self._variable)
        self.host = urlsplit(public_url(url)).netloc
        self._scrubber = Scrubber(
            {*secrets_of_url(url), *_custom_header_values(), *_proxy_secrets()} - {NO_KEY},
            keys={key} - {NO_KEY},
        )
        self._openai = _package()
        try:
            self._client = self._made(url, key, settings.get("api_version"))
        except StageError:
            raise
        except Exception as error:  # of address, proxy and certificate variables, each its own
            said = self._scrubber.line(f"{type(error).__name__}: {error}")
        else:
            return
        raise StageError(
            f"judge.base_url={public_url(url)}: no client can be made for it ({said}); correct it, "
            "or what HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or SSL_CERT_FILE say"
        )

    def _made(self, url: str, key: str, api_version: str | None) -> Any:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        plain = parts._replace(query="", fragment="").geturl()
        # A proxy would be asked for a machine that it does not see, and be told the request. It is
        # the environment that names proxies; Python's own context still reads its SSL_CERT_FILE.
        direct: dict[str, Any] = (
            {"trust_env": False, "verify": ssl.create_default_context()} if is_loopback(url) else {}
        )
        timeout = self._openai.Timeout(self._timeout_s, connect=min(CONNECT_S, self._timeout_s))
        shared: dict[str, Any] = {
            "api_key": key,
            "max_retries": 0,
            "timeout": timeout,
            "default_query": query or None,
            # A redirect would take the key along.
            "http_client": self._openai.DefaultAsyncHttpxClient(
                timeout=timeout, follow_redirects=False, **direct
            ),
        }
        if self._endpoint == "azure":
            version = api_version or os.environ.get("OPENAI_API_VERSION")
            if not version:
                raise StageError("judge.api_version=null: Azure needs it, as in 2024-10-21")
            return self._openai.AsyncAzureOpenAI(
                azure_endpoint=plain, api_version=version, **shared
            )
        return self._openai.AsyncOpenAI(base_url=plain, **shared)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def send(self, model: str, request: Request) -> Received | Failure:
        """One try."""
        caught: Exception
        try:
            async with asyncio.timeout(self._timeout_s):
                raw = await self._client.chat.completions.with_raw_response.create(
                    model=self._deployments.get(model, model), **request.to_json()
                )
            return self._received(raw.http_response.content)
        except Exception as error:  # whatever it is: none may leave this method, for it has the key
            caught = error
        try:
            return self._failure(caught)
        except Exception as error:
            words = f"{type(caught).__name__} that cannot be read ({type(error).__name__})"
        return Failure(fault=Fault.bad_request, text=words, may_cost=True)

    def way_out(self, fault: Fault) -> str:
        """What a person can do about a fault that ends the stage."""
        return WAY_OUT[fault].format(variable=self._variable)

    def _received(self, content: bytes) -> Received | Failure:
        try:
            data = json.loads(content)
            choice = data["choices"][0]
            message = choice["message"]
            text = message.get("content")
            text = (message.get("refusal") or "") if text is None else text
            usage = data.get("usage") or {}
            if not isinstance(text, str):
                raise TypeError("content is no text")
            received = Received(
                text=self._scrubber.known(text),
                finish_reason=_text(choice.get("finish_reason"), self._scrubber),
                input_tokens=_count(usage.get("prompt_tokens")),
                output_tokens=_count(usage.get("completion_tokens")),
                model=_text(data.get("model"), self._scrubber),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            about = self._scrubber.line(content[:2000].decode("utf-8", "replace"))
            return Failure(
                fault=Fault.broken,
                text=f"no chat completion ({type(error).__name__}): {about[:80]}",
                may_cost=True,
            )
        if received.finish_reason == "content_filter":
            return Failure(
                fault=Fault.refused, text="the endpoint's filter cut the reply off", may_cost=True
            )
        return received

    def _failure(self, error: Exception) -> Failure:
        openai = self._openai
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            cause = type(error.__cause__).__name__
            return Failure(
                fault=Fault.timeout,
                text=f"no reply within {self._timeout_s:g} s",
                may_cost=cause not in _NOT_SENT,
            )
        if isinstance(error, openai.APIStatusError):
            return self._status(error)
        below = error.__cause__ or error
        kind = type(below).__name__
        words = self._scrubber.line(str(below))
        if not isinstance(error, openai.APIConnectionError | OSError):
            # No fault of the way to the endpoint: the same would come of it again.
            return Failure(
                fault=Fault.bad_request,
                text=f"bad request, {kind}: {words}",
                may_cost=not isinstance(error, UnicodeError),
            )
        if kind == "ProxyError" and str(below).startswith("407"):
            return Failure(fault=Fault.proxy, text=words)
        half = kind == "RemoteProtocolError"
        return Failure(
            fault=Fault.broken if half else Fault.connection,
            text=f"{'half a reply' if half else kind}: {words}",
            may_cost=kind not in _NOT_SENT,
        )

    def _status(self, error: Any) -> Failure:
        body = error.body if isinstance(error.body, dict) else {}
        fault = fault_of(error.status_code, body)
        said = str(body.get("message") or body.get("detail") or "")
        if isinstance(error.body, str):
            said = error.body
        # The endpoint's words about a key may quote it.
        words = "" if fault is Fault.authentication else self._scrubber.line(said)
        return Failure(
            fault=fault,
            text=f"{error.status_code} {fault}{f': {words}' if words else ''}",
            retry_after_s=retry_after_s(error.response.headers),
            may_cost=error.status_code in (408, 504),
        )


_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_FILTERED = ("content_filter", "content_policy_violation", "invalid_prompt")


def fault_of(status: int, error: Mapping[str, Any]) -> Fault:
    """What an HTTP status and the error object in its body mean.

    Source: OpenAI's page "Error codes", Azure OpenAI's pages on content filtering and quotas.
    """
    inner = error.get("innererror")
    codes = {
        str(code)
        for code in (
            error.get("code"),
            error.get("type"),
            inner.get("code") if isinstance(inner, dict) else None,
        )
    }
    if codes & {*_NO_CREDIT} or status == 402:
        return Fault.quota
    if codes & {*_FILTERED, "ResponsibleAIPolicyViolation"}:
        return Fault.refused
    if codes & {"model_not_found", "DeploymentNotFound"} or status in (404, 410):
        return Fault.unknown_model
    if codes & {"unsupported_parameter", "unsupported_value"}:
        return Fault.unsupported
    named = {401: Fault.authentication, 403: Fault.permission, 408: Fault.timeout,
             405: Fault.address, 407: Fault.proxy, 451: Fault.unavailable,
             409: Fault.server, 425: Fault.server, 429: Fault.rate_limit}  # fmt: skip
    if status in named:
        return named[status]
    if status >= 500:
        return Fault.server
    return Fault.redirect if status < 400 else Fault.bad_request


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for, given as milliseconds, seconds or a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return min(max(0.0, seconds), LONGEST_WAIT_S)
    try:
        then = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        if then.tzinfo is None:
            then = then.replace(tzinfo=datetime.UTC)
        seconds = (then - datetime.datetime.now(datetime.UTC)).total_seconds()
    except (TypeError, ValueError, LookupError, OverflowError):
        return None
    return min(max(0.0, seconds), LONGEST_WAIT_S)


def _whole_url(endpoint: str, written: str | None) -> str:
    """The address with all that is secret in it, which only the environment knows.

    Raises:
        StageError: there is none.
    """
    here = url_of_environment(endpoint)
    if written is None or (here and url_fault(here) is None and public_url(here) == written):
        url = here or (OPENAI_URL if endpoint == "openai" else None)
    else:
        url = written
    if url is None:
        raise StageError(
            f"judge.base_url=null: endpoint={endpoint} needs an address; set it, or "
            f"{URL_VARIABLES[endpoint]}"
        )
    if (fault := url_fault(url)) is not None:
        named = "judge.base_url" if url == written else URL_VARIABLES[endpoint]
        raise StageError(f"{named}=(hidden): {fault}")
    return url


def _key(endpoint: str, url: str, variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise StageError(
            f"judge.api_key_variable={variable}: what the variable holds is no key (it has a line "
            "break or letters that no key has); export it anew"
        )
    if key:
        return key
    if not needs_key(endpoint, url):
        return NO_KEY
    hint = f" ({NO_KEY} where the server wants none)" if endpoint == "compatible" else ""
    raise StageError(
        f"judge.api_key_variable={variable}: the environment has no such variable; export "
        f"{variable} with the key of the endpoint{hint} and type the line again"
    )


def _custom_header_values() -> set[str]:
    """Of headers that the package takes from its environment variable."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    return {line.partition(":")[2].strip() for line in lines}


def _proxy_secrets() -> set[str]:
    """Of the proxies that the environment names, by the names that HTTP libraries read."""
    names = ("http_proxy", "https_proxy", "all_proxy")
    proxies = [os.environ.get(form, "") for name in names for form in (name, name.upper())]
    return {secret for proxy in proxies for secret in secrets_of_proxy(proxy)}


def _package() -> Any:
    try:
        import openai
    except ImportError:
        raise StageError(
            "judge.scorer=openai: the package openai is not installed; pip install "
            "'scalesweep[judge]'"
        ) from None
    for name in ("httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)  # below, they tell whole addresses
    return openai


def _text(value: object, scrubber: Scrubber) -> str | None:
    return scrubber.known(value) if isinstance(value, str) else None


def _count(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS:
        return value
    return None
