"""Answers survive a kill, and are taken only by a stage that read the same."""

from __future__ import annotations

from pathlib import Path

from scalesweep.evaluate import answer_log
from scalesweep.evaluate.generation import Answer


def answer(number: int, text: str = "red") -> Answer:
    return Answer(number=number, text=text, num_tokens=2)


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    answer_log.append(tmp_path, "mini_vqa", [answer(3), answer(1)], inputs="a")
    answer_log.append(tmp_path, "mini_text", [answer(0)], inputs="a")
    answer_log.append(tmp_path, "mini_vqa", [answer(2, "two\nlines\u2028")], inputs="a")

    found = answer_log.read([tmp_path], "mini_vqa", inputs="a")

    assert sorted(found) == [1, 2, 3]
    assert found[2] == answer(2, "two\nlines\u2028")
    assert found[3] == answer(3)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    answer_log.append(tmp_path, "mini_vqa", [answer(0), answer(1)], inputs="a")
    file = tmp_path / answer_log.FILE
    content = file.read_bytes()

    for length in range(len(content)):
        file.write_bytes(content[:length])
        whole = content[:length].count(b"\n")
        assert len(answer_log.read([tmp_path], "mini_vqa", inputs="a")) == whole


def test_a_later_attempt_counts_and_a_missing_file_is_no_answer(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for folder, text in ((first, "red"), (second, "blue")):
        folder.mkdir()
        answer_log.append(folder, "mini_vqa", [answer(0, text)], inputs="a")

    found = answer_log.read([tmp_path / "0", first, second], "mini_vqa", inputs="a")

    assert found == {0: answer(0, "blue")}


def test_answers_of_another_checkpoint_are_left_out(tmp_path: Path) -> None:
    answer_log.append(tmp_path, "mini_vqa", [answer(0)], inputs="a")
    answer_log.append(tmp_path, "mini_vqa", [answer(1)], inputs="b")

    assert list(answer_log.read([tmp_path], "mini_vqa", inputs="b")) == [1]
