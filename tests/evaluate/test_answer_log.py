"""Answers survive a kill, and are taken only by a stage that read the same."""

from __future__ import annotations

from pathlib import Path

from scalesweep.evaluate.answer_log import Answered, AnswerLog, AnswerLogs
from scalesweep.evaluate.questions import Answer


def answered(question_id: str, text: str = "red", benchmark: str = "mini_vqa") -> Answered:
    return Answered(
        benchmark=benchmark,
        answer=Answer(question_id=question_id, text=text, num_tokens=2),
        batch_seconds=0.5,
        batch_size=2,
    )


def read(*folders: Path, source: str = "a") -> AnswerLogs:
    logs = AnswerLogs(folders=list(folders), source=source)
    logs.update()
    return logs


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, replica=0, source="a")
    log.append([answered("3"), answered("1")])
    log.append([answered("0", benchmark="mini_text")])
    log.append([answered("2", "two\nlines\u2028")])

    found = read(tmp_path).of("mini_vqa")

    assert sorted(found) == ["1", "2", "3"]
    assert found["2"] == answered("2", "two\nlines\u2028")
    assert found["3"] == answered("3")


def test_compared_letters_are_read_as_they_were(tmp_path: Path) -> None:
    answer = Answer(
        question_id="7", text="B", log_probs={"A": -1.2345678901234567, "B": -0.5}, shots=3
    )
    one = Answered(benchmark="mmlu", answer=answer, batch_seconds=1.0, batch_size=1)
    AnswerLog(tmp_path, replica=0, source="a").append([one])

    assert read(tmp_path).of("mmlu") == {"7": one}


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, replica=0, source="a")
    log.append([answered("0"), answered("1")])
    content = log.path.read_bytes()

    for length in range(len(content)):
        log.path.write_bytes(content[:length])
        assert len(read(tmp_path).of("mini_vqa")) == content[:length].count(b"\n")


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, replica=0, source="a")
    log.append([answered("0"), answered("1")])
    content = log.path.read_bytes()
    log.path.write_bytes(content[:-5])
    logs = read(tmp_path)
    before = set(logs.of("mini_vqa"))

    log.path.write_bytes(content)
    logs.update()

    assert (before, set(logs.of("mini_vqa"))) == ({"0"}, {"0", "1"})


def test_all_replicas_logs_are_read_and_each_says_when_it_is_done(tmp_path: Path) -> None:
    first, second = (AnswerLog(tmp_path, replica=n, source="a") for n in (0, 1))
    first.append([answered("0")])
    second.append([answered("1")])
    second.finish()

    logs = read(tmp_path)

    assert set(logs.of("mini_vqa")) == {"0", "1"}
    assert logs.finished == {second.path}


def test_a_later_attempt_counts_and_a_missing_folder_is_no_answer(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("0", "1", "2")]
    for folder, text in zip(folders[1:], ("red", "blue"), strict=True):
        folder.mkdir()
        AnswerLog(folder, replica=0, source="a").append([answered("0", text)])

    assert read(*folders).of("mini_vqa") == {"0": answered("0", "blue")}


def test_answers_from_another_source_are_left_out(tmp_path: Path) -> None:
    AnswerLog(tmp_path, replica=0, source="a").append([answered("0")])
    AnswerLog(tmp_path, replica=0, source="b").append([answered("1")])
    AnswerLog(tmp_path, replica=1, source="a").finish()

    logs = read(tmp_path, source="b")

    assert list(logs.of("mini_vqa")) == ["1"]
    assert logs.finished == set()
