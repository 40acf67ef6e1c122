"""What a judge costs: estimated before it is asked, metered while it replies. Pure.

Dollars are None where the model's price is not known: unknown is never 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from scalesweep.evaluate.judging.items import Request

CHARACTERS_PER_TOKEN = 4
"""Of English text. Source: OpenAI's help page "What are tokens and how to count them?"."""

TOKENS_PER_MESSAGE = 8
"""More than any chat format adds to a message; for the upper bound only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Dollars per million tokens."""

    input: float
    output: float

    def of(self, input_tokens: float, output_tokens: float) -> float:
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


def price_of(model: str, prices: Mapping[str, Mapping[str, float]]) -> Price | None:
    """Of Execution.judge["prices"]; None where the model's is not known."""
    found = prices.get(model) or prices.get("any")
    return None if found is None else Price(input=found["input"], output=found["output"])


def input_tokens(request: Request) -> int:
    """Estimated from the length of its English text."""
    return text_tokens("".join(text for _, text in request.messages))


def text_tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def most_usd(request: Request, price: Price | None) -> float:
    """No call costs more: a token is at least one byte, and max_tokens bounds the reply.

    Without a price 0: whoever sets a limit has to know the price.
    """
    if price is None:
        return 0.0
    in_bytes = sum(len(text.encode("utf-8", "replace")) for _, text in request.messages)
    return price.of(in_bytes + TOKENS_PER_MESSAGE * len(request.messages), request.max_tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Of what is not stored yet, if every first reply has a verdict."""

    requests: int
    input_tokens: int
    output_tokens: int
    usd: float | None

    @classmethod
    def of(cls, wanted: Iterable[tuple[Request, int]], price: Price | None) -> Self:
        """wanted: (request, tokens that its reply is expected to have)."""
        pairs = list(wanted)
        tokens = sum(input_tokens(request) for request, _ in pairs)
        replied = sum(min(expected, request.max_tokens) for request, expected in pairs)
        return cls(
            requests=len(pairs),
            input_tokens=tokens,
            output_tokens=replied,
            usd=None if price is None else price.of(tokens, replied),
        )

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(kw_only=True)
class Meter:
    """What was paid so far, by the endpoint's own count of tokens where it gives one."""

    price: Price | None
    replies: int = 0
    reasks: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    replies_without_usage: int = 0
    """Their tokens are estimated."""
    retries: Counter[str] = field(default_factory=Counter)
    """Cause -> tries that brought no reply and were made again."""
    unsure_usd: float = 0.0
    """At most what calls cost that broke off: the endpoint may have charged them."""

    def replied(self, request: Request, text: str, tokens: tuple[int | None, int | None]) -> None:
        given, written = tokens
        self.replies += 1
        self.replies_without_usage += given is None or written is None
        self.input_tokens += input_tokens(request) if given is None else given
        self.output_tokens += text_tokens(text) if written is None else written

    def broke_off(self, request: Request) -> None:
        self.unsure_usd += most_usd(request, self.price)

    @property
    def usd(self) -> float | None:
        return None if self.price is None else self.price.of(self.input_tokens, self.output_tokens)

    @property
    def most_usd(self) -> float:
        """That was paid at most; 0 where the price is not known."""
        return (self.usd or 0.0) + self.unsure_usd

    def to_json(self, *, ahead_usd: float = 0.0) -> dict[str, Any]:
        """ahead_usd: of calls that are not over, counted as unsure."""
        return {
            "replies": self.replies,
            "reasks": self.reasks,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "replies_without_usage": self.replies_without_usage,
            "usd": self.usd,
            "unsure_usd": None if self.price is None else self.unsure_usd + ahead_usd,
            "retries": dict(sorted(self.retries.items())),
        }


def usd_text(usd: float | None) -> str:
    """For people."""
    if usd is None:
        return "dollars unknown (no price is set for the model)"
    return f"${usd:.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"
