"""How answers become scores (conf/judge/)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from scalesweep.benchmark_options import OPTIONS
from scalesweep.config.checks import at_least, not_negative, one_of, positive, require
from scalesweep.endpoints import (
    URL_VARIABLES,
    has_secrets,
    public_url,
    url_fault,
    url_of_environment,
)

ENDPOINTS = ("openai", "azure", "compatible")
FREE = "own machine"
"""What the source of a price of 0 must say: nobody else's tokens are free."""


@dataclass(kw_only=True)
class PriceConfig:
    """Of one judge model, dollars per million tokens."""

    input: float
    output: float
    source: str
    """Where the price comes from."""


@dataclass(kw_only=True)
class JudgeConfig:
    """exact_match asks no model; openai asks one through an OpenAI-compatible endpoint.

    The key itself is never a setting: api_key_variable names the environment variable it is in.
    """

    name: str
    scorer: str
    """exact_match | openai."""
    model: str | None = None
    """Judge model; null for exact_match."""
    models: dict[str, str] = field(default_factory=dict)
    """Benchmark -> its judge model, where that is another one (MM-Vet: gpt-4-0613)."""
    temperature: float | None = None
    """null: as each benchmark's official rule has it (0.2 LLaVA-Bench, 0 MM-Vet)."""
    num_runs: int = 1
    """Judge runs that are averaged; the paper takes 3."""
    runs: dict[str, int] = field(default_factory=dict)
    """Benchmark -> its number of judge runs, where that is another one."""
    where: str = "login"
    """On Slurm: login (by `scalesweep judge` or `watch`, where there is a network) | cluster."""

    # What follows is in no key: it changes how a reply is got, not which.
    endpoint: str = "openai"
    """openai | azure | compatible (vLLM and others: needs base_url or the variable of it)."""
    base_url: str | None = None
    """null: what the environment variable OPENAI_BASE_URL says, else OpenAI's; of Azure the
    resource's endpoint, null: AZURE_OPENAI_ENDPOINT."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key."""
    api_version: str | None = None
    """Of Azure's API."""
    deployments: dict[str, str] = field(default_factory=dict)
    """Azure: judge model -> name of its deployment, where that is another one."""
    max_concurrent: int = 16
    """Requests under way at once."""
    timeout_s: float = 120.0
    """Of one request."""
    patience_s: float = 900.0
    """How long an endpoint may answer nothing at all before the stage stops; replies are kept."""
    backoff_s: float = 1.0
    """First wait after a fault; it doubles with each further one, up to 60 times this. A longer
    wait that the endpoint itself asks for (Retry-After) goes before it."""
    prices: dict[str, PriceConfig] = field(default_factory=dict)
    """Judge model -> price of its tokens; "any" is every model of an own machine."""
    max_usd: float | None = None
    """A judge stage that would pay more stops first; null: no limit."""

    @property
    def source(self) -> str | None:
        """Whose replies these are: see JudgeSpec.source."""
        if self.scorer == "exact_match":
            return None
        return self.name if self.endpoint == "compatible" else "openai"

    def execution(self) -> dict[str, Any]:
        """What a stage needs to reach the judge, as plain values; no key is among them."""
        if self.scorer == "exact_match":
            return {}
        return {
            "endpoint": self.endpoint,
            "base_url": self._public_url(),
            "api_key_variable": self.api_key_variable,
            "api_version": self.api_version,
            "deployments": dict(self.deployments),
            "max_concurrent": self.max_concurrent,
            "timeout_s": self.timeout_s,
            "patience_s": self.patience_s,
            "backoff_s": self.backoff_s,
            "prices": {
                model: {"input": price.input, "output": price.output}
                for model, price in self.prices.items()
            },
            "max_usd": self.max_usd,
        }

    def __post_init__(self) -> None:
        one_of("judge.scorer", self.scorer, ("exact_match", "openai"))
        one_of("judge.where", self.where, ("login", "cluster"))
        one_of("judge.endpoint", self.endpoint, ENDPOINTS)
        at_least(
            1,
            num_runs=("judge.num_runs", self.num_runs),
            max_concurrent=("judge.max_concurrent", self.max_concurrent),
            **{f"runs_{b}": (f"judge.runs.{b}", runs) for b, runs in self.runs.items()},
        )
        not_negative("judge.temperature", self.temperature)
        positive("judge.timeout_s", self.timeout_s)
        positive("judge.patience_s", self.patience_s)
        positive("judge.backoff_s", self.backoff_s)
        not_negative("judge.max_usd", self.max_usd)
        for group in ("models", "runs"):
            for benchmark in getattr(self, group):
                require(
                    benchmark in OPTIONS,
                    f"judge.{group}",
                    benchmark,
                    f"no such benchmark; known are {', '.join(OPTIONS)}",
                )
        for model, price in self.prices.items():
            not_negative(f"judge.prices.{model}.input", price.input)
            not_negative(f"judge.prices.{model}.output", price.output)
            require(
                FREE in price.source or (price.input > 0 and price.output > 0),
                f"judge.prices.{model}",
                0,
                f"a price of 0 needs source='{FREE}'; leave the model out where its price is not "
                "known",
            )
        require(
            "any" not in self.prices or self.endpoint == "compatible",
            "judge.prices.any",
            self.endpoint,
            "only a compatible endpoint may have one price for all models; name the model",
        )
        require(
            self.scorer == "exact_match" or bool(self.model and self.model.strip()),
            "judge.model",
            self.model,
            "name the model that judges, or take judge=exact_match",
        )
        for benchmark, model in self.models.items():
            require(
                bool(model.strip()),
                f"judge.models.{benchmark}",
                model,
                "name the model that judges",
            )
        require(
            self.endpoint != "compatible" or self.name.strip().lower() not in ENDPOINTS[:2],
            "judge.name",
            self.name,
            "with judge.endpoint=compatible its replies would be stored as OpenAI's; give "
            "the judge another name",
        )
        require(
            self.timeout_s <= self.patience_s,
            "judge.timeout_s",
            self.timeout_s,
            f"must not be longer than judge.patience_s={self.patience_s:g}, or a single slow reply "
            "ends the stage",
        )
        require(
            re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_variable) is not None,
            "judge.api_key_variable",
            "(hidden)",
            "must be the name of an environment variable in capitals, never a key itself",
        )
        self._check_url("judge.base_url", self.base_url)
        require(
            self.base_url is None or not has_secrets(self.base_url),
            "judge.base_url",
            "(hidden)",
            "must have no user, password or query, for settings are written down; give the whole "
            "address in OPENAI_BASE_URL (azure: AZURE_OPENAI_ENDPOINT)",
        )

        self._check_environment()

    def _check_environment(self) -> None:
        """Replies are stored as OpenAI's: another server's must not get among them unasked."""
        url = url_of_environment(self.endpoint)
        if self.scorer == "openai" and self.base_url is None:
            self._check_url(URL_VARIABLES[self.endpoint], url)
        if self.scorer == "openai" and self.endpoint == "openai" and self.base_url is None and url:
            host = urlsplit(url).hostname or ""
            require(
                host == "openai.com" or host.endswith(".openai.com"),
                "judge.endpoint",
                self.endpoint,
                f"OPENAI_BASE_URL leads to {host}; take judge.endpoint=compatible, or set "
                f"judge.base_url={public_url(url)} where that passes requests on to OpenAI",
            )

    @staticmethod
    def _check_url(key: str, url: str | None) -> None:
        fault = None if url is None else url_fault(url)
        require(fault is None, key, "(hidden)", fault or "")

    def _public_url(self) -> str | None:
        """The whole one is read again where the judge is asked: no secret is written down."""
        url = self.base_url or url_of_environment(self.endpoint)
        return None if url is None else public_url(url)
