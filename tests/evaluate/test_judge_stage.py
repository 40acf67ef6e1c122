"""Answers become scores, or it is said which one is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scalesweep import stages
from scalesweep.errors import StageError
from scalesweep.evaluate.benchmarks.registry import benchmark
from scalesweep.evaluate.judge_stage import run
from scalesweep.rundir import read_json
from scalesweep.specs import BenchmarkSpec
from tests.evaluate.official import SAMPLES
from tests.evaluate.small_stages import VQA, judge_stage, rows

ASKED = [
    {"question_id": 0, "text": "?", "answer": "red", "category": "color"},
    {"question_id": 1, "text": "?", "answer": "top left", "category": "where"},
    {"question_id": 2, "text": "?", "answer": "blue", "category": "color"},
    {"question_id": 3, "text": "?", "answer": "4", "category": "read"},
]


def write(file: Path, lines: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def judged(root: Path, said: dict[int, str], **changes: Any) -> stages.StageContext:
    """The context of a stage that judges these answers to ASKED."""
    answers = [{"question_id": str(number), "text": text} for number, text in said.items()]
    write(root / "questions" / "vqa.jsonl", ASKED)
    write(root / "generated" / "answers" / "mini_vqa.jsonl", answers)
    inputs = {"answers": root / "generated", "data:test": root / "questions"}
    stage = judge_stage(root / "stage", inputs, **{"benchmarks": [VQA], **changes})
    return stage.context()


def test_answers_are_scored_by_category_with_standard_errors(tmp_path: Path) -> None:
    context = judged(tmp_path, {3: " 4 ", 2: "red", 1: "top left", 0: ""})

    stages.run(context)

    scores = read_json(context.attempt.output / "scores.json")["benchmarks"]["mini_vqa"]
    assert (scores["score"], scores["num_questions"]) == (0.5, 4)
    assert scores["standard_error"] == pytest.approx(0.25)  # sqrt(0.5 * 0.5 / 4)
    assert (scores["num_empty"], scores["num_missing"]) == (1, 0)
    assert {name: c["score"] for name, c in scores["categories"].items()} == {
        "color": 0.0,
        "read": 1.0,
        "where": 1.0,
    }
    items = rows(context.attempt.output / "items" / "mini_vqa.jsonl")
    assert [(row["question_id"], row["value"]) for row in items] == [
        ("0", 0),
        ("1", 1),
        ("2", 0),
        ("3", 1),
    ]


def test_an_item_is_a_question_of_mmbench_and_not_one_of_its_passes(tmp_path: Path) -> None:
    asked = benchmark("mmbench", SAMPLES / "mmbench", "own_dev.tsv", {})
    given = {question.question_id: question.answer for question in asked.questions}
    answers = [{"question_id": item, "text": text} for item, text in given.items()]
    write(tmp_path / "generated" / "answers" / "mmbench.jsonl", answers)
    inputs = {"answers": tmp_path / "generated", "data:test": SAMPLES / "mmbench"}
    spec = BenchmarkSpec(name="mmbench", dataset="test", file="own_dev.tsv")
    context = judge_stage(tmp_path / "stage", inputs, benchmarks=[spec]).context()

    stages.run(context)

    scores = read_json(context.attempt.output / "scores.json")["benchmarks"]["mmbench"]
    items = rows(context.attempt.output / "items" / "mmbench.jsonl")
    assert len(items) == scores["num_questions"] < len(answers)
    assert [row["value"] for row in items] == [1.0] * len(items)
    assert all(int(row["question_id"]) < 1_000_000 for row in items)


def test_a_missing_answer_is_refused_and_not_counted_as_wrong(tmp_path: Path) -> None:
    context = judged(tmp_path, {0: "red", 2: "blue"})

    with pytest.raises(StageError, match="2 of 4 questions have no answer, 1 the first"):
        run(context)

    assert not (context.attempt.output / "scores.json").exists()


def test_an_unknown_benchmark_is_refused_by_name(tmp_path: Path) -> None:
    unknown = BenchmarkSpec(name="quiz", dataset="test", file="f")

    with pytest.raises(StageError, match="quiz: no such benchmark; known are mini_vqa"):
        run(judged(tmp_path, {}, benchmarks=[unknown]))


def test_judging_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, openai, scalesweep.evaluate.judge_stage;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'transformers')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
