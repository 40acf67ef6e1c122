"""Files of answers in the official formats: LLaVA's and FastChat's old one, FastChat's new one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scalesweep.errors import DataError
from scalesweep.evaluate.json_lines import Line, by_question, read_lines
from scalesweep.evaluate.questions import Question


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedAnswer:
    question_id: str
    text: str
    answer_id: str | int
    """Of the file, else its question_id, as LLaVA's reviewer takes it."""
    model_id: str


def read_answers(file: Path, questions: Sequence[Question]) -> dict[str, SavedAnswer]:
    """Answers of one model to these questions, joined by question_id whatever their order.

    Raises:
        DataError: a line is no answer, a question has none, or something else was asked.
    """
    lines = by_question(read_lines(file), done="answered")
    missing = [q.question_id for q in questions if q.question_id not in lines]
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(questions)} questions have no answer there, "
            f"{missing[0]} the first; it belongs to other questions"
        )
    return {q.question_id: _answer(lines[q.question_id], q) for q in questions}


def _answer(line: Line, question: Question) -> SavedAnswer:
    asked = line.row.get("prompt")
    if asked is not None and asked != question.text:
        raise line.fault(
            f"question {question.question_id} is another one here: {str(asked)[:60]!r}; the file "
            "belongs to other questions"
        )
    answer_id = line.row.get("answer_id", line.row["question_id"])
    return SavedAnswer(
        question_id=question.question_id,
        text=_text(line),
        answer_id=answer_id if isinstance(answer_id, str | int) else question.question_id,
        model_id=str(line.row.get("model_id", line.file.stem)),
    )


def _text(line: Line) -> str:
    if "choices" not in line.row:
        return line.text("text")
    try:
        text = line.row["choices"][0]["turns"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise line.fault("choices has no first turn") from error
    if not isinstance(text, str):
        raise line.fault("the first turn is no text")
    return text


def answer_id(question_id: str, text: str) -> str:
    """A name for an answer, the same for the same answer; 22 characters, as shortuuid's."""
    digest = hashlib.sha256(f"{question_id}\n{text}".encode()).digest()
    number, name = int.from_bytes(digest, "big"), ""
    while len(name) < 22:
        number, digit = divmod(number, len(_ALPHABET))
        name += _ALPHABET[digit]
    return name


_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def official_id(question: Question) -> str | int:
    """As the question file has it; where ids stand in a table, digits are a number."""
    found = question.row.get("question_id")
    if isinstance(found, str | int) and not isinstance(found, bool):
        return found
    is_number = re.fullmatch(r"0|[1-9][0-9]{0,17}", question.question_id)
    return int(question.question_id) if is_number else question.question_id
