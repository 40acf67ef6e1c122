"""The miniature benchmark: held-out questions about pictures, and questions without one.

A question file has one JSON object a line: question_id, text, answer, category, and image where
there is one (a name in images/ beside the file).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from scalesweep.errors import DataError
from scalesweep.evaluate.benchmarks.base import Benchmark
from scalesweep.evaluate.judging.items import Replies
from scalesweep.evaluate.questions import Question
from scalesweep.evaluate.scores import BenchmarkScore
from scalesweep.evaluate.scoring import share_right

IMAGE_FOLDER = "images"


class _Mini(Benchmark):
    def _read_questions(self) -> list[Question]:
        return read_questions(self.root / self.file)

    def score(self, answers: Mapping[str, str], replies: Sequence[Replies]) -> BenchmarkScore:
        questions = self.questions
        right = {
            q.question_id: int(is_correct(answers[q.question_id], q.answer)) for q in questions
        }
        categories = sorted({question.category for question in questions})
        return BenchmarkScore(
            benchmark=self.name,
            rule="exact match of the whole answer, white space aside",
            options=self.options,
            whole=share_right(list(right.values())),
            categories={
                name: share_right([right[q.question_id] for q in questions if q.category == name])
                for name in categories
            },
            num_empty=sum(not answers[q.question_id].strip() for q in questions),
            items={item: float(value) for item, value in right.items()},
        )


class MiniVqa(_Mini):
    name = "mini_vqa"
    title = "miniature, questions about pictures"


class MiniText(_Mini):
    name = "mini_text"
    title = "miniature, questions without a picture"


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
            row=row,
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}, line {number}: is no question ({error!r})") from error


def is_correct(answer: str, reference: str) -> bool:
    """Exact match of the whole answer, white space aside."""
    return answer.split() == reference.split()
