"""MMBench's table: tab-separated, with pictures in base64. Cells are plain text, as they are.

A question has one row for each pass of the circular evaluation; in each pass its options stand one
letter later. Its rows are those whose index is the same modulo 1,000,000: there are questions with
four options and three passes, so nothing is derived from the number of options.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalesweep.errors import DataError

LETTERS = ("A", "B", "C", "D")
PASSES_APART = 1_000_000
REQUIRED = ("index", "question", "A", "B", "image")
# VLMEvalKit: a shorter text in the place of a picture is the index of the row that has it.
_LONGEST_INDEX = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One pass of one question."""

    index: int
    cells: Mapping[str, str]
    """Of the table, unchanged and in its order; without the picture."""
    image: bytes
    """The picture's file; one object for all rows that show it."""

    @property
    def group(self) -> int:
        """Index of the question, which is that of its first pass."""
        return self.index % PASSES_APART

    @property
    def options(self) -> dict[str, str]:
        """Letter -> text of all options; a cell without text is none, the word None is one."""
        return {letter: self.cells[letter] for letter in LETTERS if self.cells.get(letter)}

    @property
    def answer(self) -> str:
        """Letter; empty where the table has no answers, as that of the test split."""
        return self.cells.get("answer", "")


def is_none(text: str) -> bool:
    """What LLaVA's model_vqa_mmbench.py takes for no text; pandas reads an empty cell as NaN."""
    return text.lower() in ("", "nan", "none")


def read_table(file: Path) -> list[Row]:
    """All rows, in the table's order.

    Raises:
        DataError: the file is missing or not in the official format; names the line.
    """
    # Lines of pictures are longer than the csv module allows by default.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = _Table(file).read(csv.reader(opened, delimiter="\t", strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error
    finally:
        csv.field_size_limit(limit)
    indices = {row.index for row in rows}
    for row in rows:
        if row.group not in indices:
            raise DataError(
                f"{file}: row {row.index} is a pass of question {row.group}, which is not there"
            )
    return rows


class _Table:
    """Reads rows one by one, so that only one picture is there in base64 at a time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._pictures: dict[bytes, bytes] = {}
        """Digest of the base64 -> picture: files may repeat it in each pass."""
        self._picture_of: dict[int, bytes | int] = {}
        """Index -> picture, or the index of the row that has it."""

    def read(self, reader: Any) -> list[Row]:
        columns: list[str] = next(reader, [])
        if missing := [name for name in REQUIRED if name not in columns]:
            raise DataError(
                f"{self._file}: has no column {', '.join(missing)}; the official table has "
                "index, question, hint, A to D, answer, category, image, l2-category and split"
            )
        found: list[dict[str, str]] = []
        for values in reader:
            if values:
                found.append(self._cells(columns, values, reader.line_num))
        if not found:
            raise DataError(f"{self._file}: holds no question")
        return [
            Row(index=index, cells=cells, image=self._picture(index))
            for index, cells in zip(self._picture_of, found, strict=True)
        ]

    def _cells(self, columns: Sequence[str], values: Sequence[str], line: int) -> dict[str, str]:
        if len(values) != len(columns):
            raise DataError(
                f"{self._file}, line {line}: {len(values)} cells in place of {len(columns)}"
            )
        cells = dict(zip(columns, values, strict=True))
        if not cells["index"].isdecimal() or len(cells["index"]) > _LONGEST_INDEX:
            raise DataError(f"{self._file}, line {line}: index {cells['index']!r:.80} is no number")
        index = int(cells["index"])
        if index in self._picture_of:
            raise DataError(f"{self._file}, line {line}: index {index} is there twice")
        if cells.get("answer", "") not in ("", *LETTERS):
            raise DataError(
                f"{self._file}, line {line}: answer {cells['answer']!r} is none of A, B, C, D"
            )
        self._picture_of[index] = self._picture_or_index(cells.pop("image"), line)
        return cells

    def _picture_or_index(self, text: str, line: int) -> bytes | int:
        if len(text) <= _LONGEST_INDEX:
            if not text.isdecimal():
                raise DataError(
                    f"{self._file}, line {line}: image {text!r} is neither a picture in base64 "
                    "nor the index of the row that has it"
                )
            return int(text)
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if digest not in self._pictures:
            try:
                self._pictures[digest] = base64.b64decode(text)
            except (binascii.Error, ValueError) as error:
                raise DataError(
                    f"{self._file}, line {line}: image is no base64 ({error})"
                ) from error
        return self._pictures[digest]

    def _picture(self, index: int) -> bytes:
        place = self._picture_of[index]
        found = self._picture_of.get(place) if isinstance(place, int) else place
        if isinstance(found, bytes):
            return found
        raise DataError(
            f"{self._file}: the picture of row {index} is said to be in row {place!r}, where there "
            "is none"
        )
