"""Question files are read whole, or refused by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalesweep.errors import ConfigError, DataError
from scalesweep.evaluate.benchmarks.mini import MiniVqa, read_questions

ROW = {"question_id": 0, "text": "what color ?", "answer": "red", "category": "color"}


def write(folder: Path, *lines: str) -> Path:
    file = folder / "vqa.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def test_questions_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    with_picture = json.dumps({**ROW, "question_id": 7, "image": "a.png"})

    questions = read_questions(write(tmp_path, with_picture, json.dumps(ROW)))

    assert [question.question_id for question in questions] == ["7", "0"]
    assert [question.image for question in questions] == [tmp_path / "images" / "a.png", None]
    assert questions[1].answer == "red"


def test_a_line_separator_inside_a_question_cuts_nothing(tmp_path: Path) -> None:
    row = json.dumps({**ROW, "text": "what\u2028color ?"}, ensure_ascii=False)

    assert read_questions(write(tmp_path, row))[0].text == "what\u2028color ?"


def without(name: str) -> str:
    return json.dumps({key: value for key, value in ROW.items() if key != name})


@pytest.mark.parametrize("line", ["{", "[]", "7", without("answer"), without("question_id"), ""])
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str) -> None:
    file = write(tmp_path, json.dumps(ROW), line)

    with pytest.raises(DataError, match=r"vqa\.jsonl, line 2: is no question"):
        read_questions(file)


def test_two_questions_with_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two questions have one question_id"):
        read_questions(write(tmp_path, json.dumps(ROW), json.dumps(ROW)))


def test_a_file_without_a_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no question"):
        read_questions(write(tmp_path))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "vqa.jsonl"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(DataError, match=r"cannot be read .* make the data set again"):
        read_questions(file)


def test_the_miniature_has_no_saved_files_to_score_again(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="score mini_vqa: no saved file of it can be scored"):
        MiniVqa.score_files([tmp_path / "vqa.jsonl"], {}, data=None, ignore=frozenset())
