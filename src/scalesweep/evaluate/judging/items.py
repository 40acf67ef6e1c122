"""What a judge is asked about one answer, and when a reply counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One call, but for the model's name."""

    messages: tuple[tuple[str, str], ...]
    """(role, content), in order."""
    temperature: float
    max_tokens: int

    def to_json(self) -> dict[str, Any]:
        return {
            "messages": [{"role": role, "content": text} for role, text in self.messages],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }


def _never(request: Request, reask: int) -> None:
    """No rule to ask again by: whatever comes is the reply."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeItem:
    """One answer to be judged, in each of the judge's runs."""

    item: str
    """question_id."""
    request: Request
    is_valid: Callable[[str], bool]
    """Whether a reply has a verdict in it."""
    asked_again: Callable[[Request, int], Request | None] = _never
    """(first request, 1, 2, ...) -> what is asked after that many invalid replies; None: nothing
    more is asked. The last reply is kept as it is, invalid."""
    expected_reply_tokens: int = 200
    """For the price before anything is asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What came of one item in one run."""

    text: str | None
    """The last reply; None: none came (refused by the endpoint for good)."""
    valid: bool
    reasks: int = 0
    """How often it was asked again."""
    cause: str = ""
    """Why there is no reply, in one line."""


Replies = Mapping[str, Reply]
"""Item -> reply, of one run."""


def silent_runs(runs: Sequence[Replies]) -> list[str]:
    """A sentence for readers of the score where whole runs brought no reply; else empty."""
    silent = sum(all(reply.text is None for reply in replies.values()) for replies in runs)
    verb = "has" if silent == 1 else "have"
    return [f"{silent} of {len(runs)} judge runs {verb} no reply"] if silent else []
