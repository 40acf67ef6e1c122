"""The judge stage: answers become scores. Imports no torch, so it can run anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scalesweep.data.stage import dataset_root
from scalesweep.errors import StageError
from scalesweep.evaluate.benchmarks.registry import benchmark
from scalesweep.evaluate.judging.ask import ask
from scalesweep.evaluate.judging.items import silent_runs
from scalesweep.evaluate.questions import Question
from scalesweep.evaluate.scores import BenchmarkScore
from scalesweep.rundir import write_json
from scalesweep.specs import BenchmarkSpec, JudgeSpec
from scalesweep.stages import StageContext
from scalesweep.tracking import metric_names as names


def run(context: StageContext) -> None:
    """Score all benchmarks.

    Writes output/scores.json, output/items/<benchmark>.jsonl and, where a judge was asked,
    output/reviews/ in the official formats.

    Raises:
        StageError: a question has no answer, or the judge cannot be reached; its replies so far
            are kept.
        DataError: a question file cannot be read.
        Interrupted: a stop was asked for; replies so far are kept.
    """
    if not context.is_main:
        return
    spec = JudgeSpec.from_identity(context.spec.identity)
    output = context.attempt.output
    (output / "items").mkdir(parents=True, exist_ok=True)
    scores: dict[str, Any] = {}
    for number, asked in enumerate(spec.benchmarks, start=1):
        questions, score = _score(context, spec, asked)
        scores[asked.name] = score.to_json()
        _write_items(output / "items" / f"{asked.name}.jsonl", questions, score)
        context.log_metrics(
            {
                names.PROGRESS_DONE: number,
                names.PROGRESS_TOTAL: len(spec.benchmarks),
                names.PROGRESS_UNIT: "benchmark",
            }
        )
    write_json(output / "scores.json", {"benchmarks": scores})


def _score(
    context: StageContext, spec: JudgeSpec, asked: BenchmarkSpec
) -> tuple[Sequence[Question], BenchmarkScore]:
    root = dataset_root(context, asked.dataset)
    rules = benchmark(asked.name, root, asked.file, asked.options)
    answers = read_answers(context.inputs["answers"] / "answers" / f"{asked.name}.jsonl")
    refuse_unanswered(rules.questions, answers)
    items = rules.judge_items(answers)
    replies = ask(context, spec, asked.name, items) if items else []
    score = rules.score(answers, replies)
    if replies:
        reviews = context.attempt.output / "reviews"
        reviews.mkdir(exist_ok=True)
        model = spec.model_of(asked.name)
        assert model is not None  # ask() has asked it
        rules.write_reviews(reviews, answers, replies, judge_model=model)
        notes = [*score.notes, *silent_runs(replies)]
        score = replace(score, judge_model=model, notes=notes)
    return rules.scored_questions, score


def read_answers(file: Path) -> dict[str, str]:
    """question_id -> answer of a published answer file."""
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    rows = [json.loads(line) for line in lines if line]
    return {str(row["question_id"]): str(row["text"]) for row in rows}


def refuse_unanswered(questions: Sequence[Question], answers: Mapping[str, str]) -> None:
    """Refuse answers that belong to other questions.

    Raises:
        StageError: a question has no answer.
    """
    missing = [q.question_id for q in questions if q.question_id not in answers]
    if missing:
        raise StageError(
            f"{len(missing)} of {len(questions)} questions have no answer, {missing[0]} the first; "
            "the answers belong to other questions"
        )


def _write_items(file: Path, questions: Sequence[Question], score: BenchmarkScore) -> None:
    """{"question_id", "category", "value"} of every question; value null where it is missing.

    questions: those that the score is the mean over.
    """
    rows = [
        {
            "question_id": question.question_id,
            "category": question.category,
            "value": score.items.get(question.question_id),
        }
        for question in questions
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
