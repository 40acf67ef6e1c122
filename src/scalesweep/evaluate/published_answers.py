"""Published answers: LLaVA's answer format, with what we know besides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scalesweep.evaluate.answer_files import answer_id, official_id
from scalesweep.evaluate.questions import Answer, Question
from scalesweep.specs import GenerateSpec


def model_id(spec: GenerateSpec) -> str:
    """Names who answers, in words: "vicuna_13b-clip_336px-lora-beams5"."""
    parts = [spec.model.name]
    if spec.tower is not None:
        parts.append(spec.tower.name)
    parts.append(spec.checkpoint if spec.method is None else str(spec.method))
    parts += ["blind"] if spec.blind else []
    parts += [f"beams{spec.num_beams}"] if spec.num_beams > 1 else []
    return "-".join(parts)


def write_answers(
    file: Path,
    questions: Sequence[Question],
    answers: Mapping[str, Answer],
    *,
    model_id: str,
) -> None:
    """One line per question in the questions' order; the bytes depend on what stands in them."""
    rows = [answer_row(q, answers[q.question_id], model_id=model_id) for q in questions]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def answer_row(question: Question, answer: Answer, *, model_id: str) -> dict[str, Any]:
    """LLaVA's fields, then ours."""
    row: dict[str, Any] = {
        "question_id": official_id(question),
        "prompt": question.text,
        "text": answer.text,
        "answer_id": answer_id(question.question_id, answer.text),
        "model_id": model_id,
        "metadata": {},
        "category": question.category,
        "reference": question.answer,
        "num_tokens": answer.num_tokens,
    }
    if answer.log_probs is not None:
        row |= {"log_probs": dict(answer.log_probs), "shots": answer.shots}
    return row
