"""A table before it is laid out: texts, and what to sort them by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One field of a table."""

    text: str
    sort: float | None = None
    """What to sort by instead of the text."""
    hint: str = ""
    """More, for who points at it."""
    tone: str = ""
    """shown | not_shown | contrary | cannot_judge | best | faint: how it is coloured."""


@dataclass(frozen=True, kw_only=True)
class Column:
    title: str
    is_number: bool = True
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...] = ()
