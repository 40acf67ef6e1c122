"""Rows as LLaVA's scripts read them; the same answer gives the same bytes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from scalesweep.evaluate.judge_stage import read_answers
from scalesweep.evaluate.published_answers import answer_row, model_id, write_answers
from scalesweep.evaluate.questions import Answer, Question
from scalesweep.specs import Method
from tests.models.checkpoints import generate_spec

# LLaVA eval/model_vqa.py writes these, in this order.
OFFICIAL = ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
QUESTION = Question(
    question_id="3", text="Who?", category="conv", answer="A cat.", row={"question_id": 3}
)
ANSWER = Answer(question_id="3", text="A dog\u2028.", num_tokens=4)


def test_a_row_begins_with_llavas_fields() -> None:
    row = answer_row(QUESTION, ANSWER, model_id="m")

    assert list(row)[:6] == OFFICIAL
    assert (row["question_id"], row["prompt"], row["text"]) == (3, "Who?", "A dog\u2028.")
    assert (row["model_id"], row["metadata"]) == ("m", {})
    assert (row["category"], row["reference"], row["num_tokens"]) == ("conv", "A cat.", 4)
    assert "log_probs" not in row


def test_compared_letters_say_how_likely_each_was() -> None:
    answer = Answer(question_id="3", text="B", log_probs={"A": -2.0, "B": -0.2}, shots=5)

    row = answer_row(QUESTION, answer, model_id="m")

    assert (row["log_probs"], row["shots"]) == ({"A": -2.0, "B": -0.2}, 5)


@pytest.mark.parametrize(
    ("question_id", "row", "official"),
    [
        pytest.param("3", {"question_id": 3}, 3, id="a number in the file"),
        pytest.param("3", {"question_id": "3"}, "3", id="text in the file"),
        pytest.param("1000241", {"index": "1000241"}, 1000241, id="a table"),
        pytest.param("v1_0", {"imagename": "v1_0.png"}, "v1_0", id="MM-Vet"),
        pytest.param("007", {}, "007", id="no number"),
    ],
)
def test_ids_are_those_of_the_official_file(
    question_id: str, row: dict[str, object], official: object
) -> None:
    question = Question(question_id=question_id, text="?", row=row)

    assert answer_row(question, ANSWER, model_id="m")["question_id"] == official


def test_an_answer_id_looks_like_llavas_and_follows_from_the_answer() -> None:
    first, again = (answer_row(QUESTION, ANSWER, model_id="m")["answer_id"] for _ in range(2))
    other = answer_row(QUESTION, replace(ANSWER, text="A cat."), model_id="m")["answer_id"]

    assert re.fullmatch("[2-9A-HJ-NP-Za-km-z]{22}", first)
    assert first == again != other


@pytest.mark.parametrize(
    ("method", "changes", "name"),
    [
        (Method.lora, {}, "mini_xs-clip_32px-lora"),
        (Method.full, {"num_beams": 5, "blind": True}, "mini_xs-clip_32px-full-blind-beams5"),
        (None, {}, "mini_xs-base"),
    ],
)
def test_a_model_is_named_by_what_it_is(
    method: Method | None, changes: dict[str, object], name: str
) -> None:
    assert model_id(generate_spec(method, **changes)) == name


def test_published_answers_are_read_by_the_judge_stage(tmp_path: Path) -> None:
    write_answers(tmp_path / "b.jsonl", [QUESTION], {"3": ANSWER}, model_id="m")

    assert read_answers(tmp_path / "b.jsonl") == {"3": "A dog\u2028."}
