"""The miniature benchmark: held-out questions about pictures, and questions without one.

A question file has one JSON object a line: question_id, text, answer, category, and image where
there is one (a name in images/ beside the file).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from scalesweep.errors import DataError

NAMES = ("mini_vqa", "mini_text")
IMAGE_FOLDER = "images"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question, and what the answer must be."""

    question_id: str
    text: str
    answer: str
    category: str
    image: Path | None


def read_questions(file: Path) -> list[Question]:
    """All questions of a file, in its order.

    Raises:
        DataError: the file is missing or a line is no question; the message names the line.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); make the data set again") from error
    # Not splitlines(): a question may hold U+2028, at which that would cut too.
    lines = text.removesuffix("\n").split("\n") if text else []
    questions = [_question(file, number, line) for number, line in enumerate(lines, start=1)]
    if len({question.question_id for question in questions}) < len(questions):
        raise DataError(f"{file}: two questions have one question_id")
    if not questions:
        raise DataError(f"{file}: holds no question")
    return questions


def _question(file: Path, number: int, line: str) -> Question:
    try:
        row = json.loads(line)
        image = row.get("image")
        return Question(
            question_id=str(row["question_id"]),
            text=str(row["text"]),
            answer=str(row["answer"]),
            category=str(row["category"]),
            image=None if image is None else file.parent / IMAGE_FOLDER / image,
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}, line {number}: is no question ({error!r})") from error


def is_correct(answer: str, reference: str) -> bool:
    """Exact match of the whole answer, white space aside."""
    return answer.split() == reference.split()
