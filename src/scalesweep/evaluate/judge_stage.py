"""The judge stage: answers become scores. Imports no torch, so it can run anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scalesweep.data.stage import dataset_root
from scalesweep.errors import StageError
from scalesweep.evaluate.benchmarks.mini import NAMES, Question, is_correct, read_questions
from scalesweep.evaluate.scoring import benchmark_scores
from scalesweep.rundir import write_json
from scalesweep.specs import JudgeSpec
from scalesweep.stages import StageContext
from scalesweep.tracking import metric_names as names


def run(context: StageContext) -> None:
    """Score all benchmarks; writes output/scores.json and output/items/<benchmark>.jsonl.

    Raises:
        StageError: a question has no answer, or a benchmark has no scorer.
        DataError: a question file cannot be read.
    """
    if not context.is_main:
        return
    spec = JudgeSpec.from_identity(context.spec.identity)
    output = context.attempt.output
    (output / "items").mkdir(parents=True, exist_ok=True)
    scores: dict[str, Any] = {}
    for number, benchmark in enumerate(spec.benchmarks, start=1):
        if benchmark.name not in NAMES or spec.scorer != "exact_match":
            raise StageError(
                f"{benchmark.name} by {spec.scorer}: has no scorer in this version; known are "
                f"{', '.join(NAMES)} by exact_match"
            )
        questions = read_questions(dataset_root(context, benchmark.dataset) / benchmark.file)
        answers = read_answers(context.inputs["answers"] / "answers" / f"{benchmark.name}.jsonl")
        rows = judged(questions, answers)
        empty = sum(not answers[question.question_id].strip() for question in questions)
        scores[benchmark.name] = benchmark_scores(rows, num_empty=empty)
        _write_rows(output / "items" / f"{benchmark.name}.jsonl", rows)
        context.log_metrics(
            {
                names.PROGRESS_DONE: number,
                names.PROGRESS_TOTAL: len(spec.benchmarks),
                names.PROGRESS_UNIT: "benchmark",
            }
        )
    write_json(output / "scores.json", {"benchmarks": scores})


def read_answers(file: Path) -> dict[str, str]:
    """question_id -> answer of a published answer file."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {str(row["question_id"]): str(row["text"]) for row in rows}


def judged(questions: list[Question], answers: dict[str, str]) -> list[dict[str, Any]]:
    """{"question_id", "category", "correct": 0 | 1} of every question, in order.

    Raises:
        StageError: a question has no answer.
    """
    missing = [q.question_id for q in questions if q.question_id not in answers]
    if missing:
        raise StageError(
            f"{len(missing)} of {len(questions)} questions have no answer, {missing[0]} the first; "
            "the answers belong to other questions"
        )
    return [
        {
            "question_id": question.question_id,
            "category": question.category,
            "correct": int(is_correct(answers[question.question_id], question.answer)),
        }
        for question in questions
    ]


def _write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")
