"""Pictures of questions, looked at before anything is spent on answers."""

from __future__ import annotations

from collections.abc import Iterable

from scalesweep.data.images import picture_defect
from scalesweep.evaluate.questions import Question


def broken_picture(questions: Iterable[Question]) -> str | None:
    """The first question whose picture is missing or damaged, and what is wrong; or None.

    A picture that several questions share (MMBench's passes) is looked at once.
    """
    seen: dict[object, str | None] = {}
    for question in questions:
        picture = question.image
        if picture is None:
            continue
        if picture not in seen:
            seen[picture] = picture_defect(picture)
        if (defect := seen[picture]) is not None:
            where = "" if isinstance(picture, bytes) else f" {picture}"
            return f"question {question.question_id}: picture{where} {defect}"
    return None
