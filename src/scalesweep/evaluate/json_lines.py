"""JSON Lines in the official formats, read whole or refused by line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalesweep.errors import DataError

_BLANK = " \t\r\n"
"""White space between values of JSON."""
_LONGEST_ID = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One object of a file."""

    file: Path
    number: int
    """From 1."""
    row: Mapping[str, Any]

    def fault(self, defect: str) -> DataError:
        return DataError(f"{self.file}, line {self.number}: {defect}")

    def text(self, name: str) -> str:
        """A field that must be there and be text.

        Raises:
            DataError: it is not.
        """
        value = self.row.get(name)
        if not isinstance(value, str):
            raise self.fault(f"{name} is {'missing' if value is None else 'no text'}")
        return value

    @property
    def question_id(self) -> str:
        value = self.row.get("question_id")
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise self.fault("question_id is missing, or neither a number nor text")
        if len(str(value)) > _LONGEST_ID:
            raise self.fault(f"question_id has {len(str(value))} characters, which no id has")
        return str(value)


def read_lines(file: Path) -> list[Line]:
    """All lines of a file; empty ones at its end are left out.

    Raises:
        DataError: the file is missing or empty, or a line is no JSON object.
    """
    # Not splitlines(): a text may hold U+2028, at which that would cut too.
    lines = read_text(file).rstrip(_BLANK).split("\n")
    found = []
    for number, text in enumerate(lines, start=1):
        try:
            row = parse(text)
        except json.JSONDecodeError as error:
            cut = "; the file ends there, as one does that is still written" * (
                number == len(lines) and number > 1
            )
            raise DataError(f"{file}, line {number}: is no JSON ({error.msg}){cut}") from error
        except ValueError as error:
            raise DataError(f"{file}, line {number}: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{file}, line {number}: is no JSON object")
        found.append(Line(file=file, number=number, row=row))
    return found


def parse(text: str, *, object_of: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """JSON of anyone.

    object_of: what is made of an object's members.

    Raises:
        JSONDecodeError: it is no JSON.
        ValueError: it is, but nobody can read it.
    """
    try:
        return json.loads(text, object_pairs_hook=object_of)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise ValueError("holds too many brackets within each other") from error
    except ValueError as error:  # Python's own limit, 4300 digits
        raise ValueError("holds a number of too many digits") from error


def by_question(lines: Sequence[Line], *, done: str) -> dict[str, Line]:
    """question_id -> line, in the file's order.

    done: what a line says of its question, for the message: "answered", "reviewed".

    Raises:
        DataError: a question stands in two lines, as where two runs were written to one file.
    """
    found: dict[str, Line] = {}
    for line in lines:
        before = found.setdefault(line.question_id, line)
        if before is not line:
            raise line.fault(
                f"question {line.question_id} is {done} again, after line {before.number}; "
                "a file holds each question once"
            )
    return found


def read_text(file: Path) -> str:
    """A file that holds something.

    Raises:
        DataError: it is missing, empty or not UTF-8.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise DataError(f"{file}: cannot be read ({reason})") from error
    if not text.strip():
        raise DataError(f"{file}: is empty")
    return text


def write_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
