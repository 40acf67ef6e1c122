"""What a benchmark asks, in the form that every benchmark gives and the generate stage takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Letters:
    """A question that is answered by the likeliest of some letters, not by generating.

    The prompt is header + shots + question, as raw text without a conversation template. Where it
    is too long, shots are left out from the end.
    """

    header: str
    shots: tuple[str, ...]
    question: str
    letters: tuple[str, ...] = ("A", "B", "C", "D")


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question of a benchmark."""

    question_id: str
    """Unique in the benchmark."""
    text: str
    """What the model is asked, to the letter; the picture's mark is put in front of it later."""
    category: str = ""
    answer: str = ""
    """The reference, where the file has one."""
    image: Path | bytes | None = None
    """A picture's file, or the file's own bytes."""
    letters: Letters | None = None
    """None: the answer is generated."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The official entry, unchanged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a checkpoint said to one question."""

    question_id: str
    text: str
    num_tokens: int = 0
    """Generated, the end token included; 0 for a letter that was chosen."""
    log_probs: Mapping[str, float] | None = None
    """Letter -> log-probability as the next token, where letters were compared."""
    shots: int | None = None
    """Shots that the prompt had room for, where letters were compared."""
