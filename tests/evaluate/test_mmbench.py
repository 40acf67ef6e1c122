"""MMBench's table is read as it is, asked to the letter, and scored circularly by rows present."""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from openpyxl import Workbook, load_workbook

from scalesweep.errors import ConfigError, DataError
from scalesweep.evaluate.benchmarks.base import Benchmark
from scalesweep.evaluate.benchmarks.mmbench import MmBench
from scalesweep.evaluate.benchmarks.registry import benchmark
from scalesweep.evaluate.extraction import RULES, matching_prompt
from scalesweep.evaluate.judging.items import Reply
from scalesweep.evaluate.questions import Answer, Question
from tests.evaluate.official import SAMPLES, official_samples

ROOT = SAMPLES / "mmbench"
# Question -> (passes, options), of the own sample.
PASSES = {7: (4, 4), 12: (3, 4), 30: (2, 2), 31: (3, 3), 45: (4, 4), 60: (3, 3)}
SINGLE_LETTER = "Answer with the option's letter from the given choices directly."


def own(file: str = "own_dev.tsv", **options: str) -> Benchmark:
    return benchmark("mmbench", ROOT, file, options)


def by_id(asked: Benchmark) -> dict[str, Question]:
    return {question.question_id: question for question in asked.questions}


def all_right(asked: Benchmark, **other: str) -> dict[str, str]:
    """The right letter everywhere, but for rows named as row_<index>."""
    answers = {question.question_id: question.answer for question in asked.questions}
    return answers | {name.removeprefix("row_"): text for name, text in other.items()}


# ---- the table -----------------------------------------------------------------------------------


def test_every_row_is_a_question_in_the_tables_order() -> None:
    questions = own().questions

    ids = [question.question_id for question in questions]
    assert ids[:7] == ["7", "12", "30", "31", "45", "60", "1000007"]
    assert len(ids) == sum(passes for passes, _ in PASSES.values()) == 19
    assert questions[0].category == "attribute_recognition"
    assert questions[0].row["l2-category"] == "finegrained_perception (instance-level)"
    assert "image" not in questions[0].row


def test_line_ends_quotes_mojibake_and_the_word_none_stay_as_they_are() -> None:
    rows = {item: question.row for item, question in by_id(own()).items()}

    assert rows["30"]["question"] == 'Read the sign:\n"30Â°C"\nIs it warm?'
    assert rows["45"]["C"] == "None"
    assert rows["31"]["D"] == rows["7"]["hint"] == rows["7"]["comment"] == ""


def test_all_rows_of_a_picture_share_one_object() -> None:
    questions = by_id(own())

    picture = questions["7"].image
    assert isinstance(picture, bytes)
    assert picture.startswith(b"\x89PNG")
    # by index, and by the same base64 in another pass and in another question
    for item in ("1000007", "3000007", "31", "2000031"):
        assert questions[item].image is picture
    assert questions["2000060"].image is questions["60"].image is questions["1000030"].image
    assert questions["12"].image is not picture


def test_a_table_without_comment_and_answers_is_read() -> None:
    questions = own("own_test.tsv").questions

    assert [question.answer for question in questions] == ["", "", ""]
    assert questions[2].image is questions[0].image


PICTURE = base64.b64encode(bytes(range(90))).decode()


def table(folder: Path, *rows: Mapping[str, object] | str, name: str = "made.tsv") -> Path:
    columns = ["index", "question", "hint", "A", "B", "C", "D", "answer", "image", "split"]
    file = folder / name
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            if isinstance(row, str):
                opened.write(row)
            else:
                writer.writerow([row.get(column, "") for column in columns])
    return file


def made(index: int | str, **cells: object) -> dict[str, object]:
    return {
        "index": index,
        "question": "What?",
        "A": "this",
        "B": "that",
        "answer": "A",
        "image": PICTURE,
        "split": "dev",
        **cells,
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([made(1), made(1_000_002)], "row 1000002 is a pass of question 2, which is not there"),
        ([made(1), made(1)], "line 3: index 1 is there twice"),
        ([made("1.0")], r"line 2: index '1\.0' is no number"),
        ([made("9" * 5000)], "line 2: index '9{79} is no number"),
        ([made(1, answer="E")], "line 2: answer 'E' is none of A, B, C, D"),
        ([made(1, image="2")], "the picture of row 1 is said to be in row 2"),
        ([made(1), made(2, image="3"), made(3, image="1")], "of row 2 is said to be in row 3"),
        ([made(1, image="")], "line 2: image '' is neither a picture in base64 nor the index"),
        ([made(1, image="x" * 65)], "line 2: image is no base64"),
        (["1\tWhat?\n"], "line 2: 2 cells in place of 10"),
        (['1\t"What?\n'], "cannot be read"),
        ([], "holds no question"),
    ],
    ids=[
        "pass without question",
        "index twice",
        "index no number",
        "index beyond all numbers",
        "answer",
        "picture nowhere",
        "picture by two steps",
        "no picture",
        "no base64",
        "cells",
        "open quote",
        "empty",
    ],
)
def test_a_table_that_is_not_official_is_refused_by_line(
    tmp_path: Path, rows: list[Any], message: str
) -> None:
    file = table(tmp_path, *rows)

    with pytest.raises(DataError, match=message):
        _ = benchmark("mmbench", file.parent, file.name, {}).questions


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("index,question\n1,What?\n", encoding="utf-8")

    with pytest.raises(DataError, match="has no column index, question, A, B, image"):
        _ = benchmark("mmbench", tmp_path, "a.tsv", {}).questions


def test_a_picture_longer_than_the_csv_module_allows_is_read(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    content = bytes(range(256)) * 600
    file = table(tmp_path, made(1, image=base64.b64encode(content).decode()))

    (question,) = benchmark("mmbench", file.parent, file.name, {}).questions

    assert question.image == content
    assert csv.field_size_limit() == before


# ---- prompts -------------------------------------------------------------------------------------


def test_llavas_prompt_is_hint_question_options_and_the_wish_for_a_letter() -> None:
    questions = by_id(own(prompt="llava"))

    assert questions["1000007"].text == (
        "What color is the square?\nA. white\nB. red\nC. green\nD. blue\n" + SINGLE_LETTER
    )
    assert questions["30"].text == (
        'The sign is in the middle.\nRead the sign:\n"30Â°C"\nIs it warm?\nA. yes\nB. no\n'
        + SINGLE_LETTER
    )


def test_vlmevalkits_prompt_names_its_parts_and_ends_in_a_space_and_a_line_end() -> None:
    questions = by_id(own(prompt="vlmevalkit"))

    assert questions["30"].text == (
        'Hint: The sign is in the middle.\nQuestion: Read the sign:\n"30Â°C"\nIs it warm?\n'
        "Options:\nA. yes\nB. no\nPlease select the correct answer from the options above. \n"
    )
    assert questions["31"].text == (
        "Question: Which color is not in the picture?\nOptions:\nA. red\nB. blue\nC. red\n"
        "Please select the correct answer from the options above. \n"
    )


def test_llavas_list_of_options_ends_at_the_word_none_and_the_question_stays() -> None:
    questions = by_id(own(prompt="llava"))

    asked = "How many circles are there?"
    assert questions["45"].text == f"{asked}\nA. one\nB. two\n{SINGLE_LETTER}"
    assert questions["1000045"].text == f"{asked}\nA. three\nB. one\nC. two\n{SINGLE_LETTER}"
    assert questions["2000045"].text == f"{asked}\n{SINGLE_LETTER}"
    assert "C. None\n" in by_id(own(prompt="vlmevalkit"))["45"].text


@pytest.mark.parametrize("hint", ["nan", "None", "NONE", ""])
def test_what_llava_takes_for_no_hint_is_none(tmp_path: Path, hint: str) -> None:
    file = table(tmp_path, made(1, hint=hint))

    (question,) = benchmark("mmbench", file.parent, file.name, {}).questions

    assert question.text.startswith("What?\n")


def test_options_end_at_the_first_empty_cell(tmp_path: Path) -> None:
    file = table(tmp_path, made(1, D="more"))

    (question,) = benchmark("mmbench", file.parent, file.name, {}).questions

    assert question.text == f"What?\nA. this\nB. that\n{SINGLE_LETTER}"


# ---- the score -----------------------------------------------------------------------------------


def test_a_question_is_right_only_where_all_of_its_passes_are() -> None:
    asked = own()

    # question 7 is wrong in its last pass only, question 60 in its first only
    score = asked.score(all_right(asked, row_3000007="A", row_60="B"), [])

    assert score.items == {"7": 0.0, "12": 1.0, "30": 1.0, "31": 1.0, "45": 1.0, "60": 0.0}
    assert score.whole.score == 4 / 6
    assert score.whole.official == 66.7
    assert score.also == {
        "first pass alone, by the rules": 83.3,  # 5 of 6
        "all rows, by the rules": 89.5,  # 17 of 19
    }
    assert (score.whole.num_missing, score.whole.num_unparsable) == (0, 0)


def test_four_options_and_three_passes_are_a_whole_question() -> None:
    asked = own()

    score = asked.score(all_right(asked), [])

    assert score.items["12"] == 1.0
    assert "1 of 6 questions have fewer passes than options" in score.notes
    assert asked.score(all_right(asked, row_2000012="A"), []).items["12"] == 0.0


def test_parts_are_of_questions_in_the_papers_order() -> None:
    asked = own()

    score = asked.score(all_right(asked, row_7="B"), [])

    parts = {name: (p.official, p.num_questions) for name, p in score.categories.items()}
    assert parts == {"LR": (100.0, 1), "FP-S": (66.7, 3), "CP": (100.0, 2)}
    assert list(parts) == ["LR", "FP-S", "CP"]
    fine = {name: part.official for name, part in score.other_parts["L3"].items()}
    assert fine == {
        "attribute_recognition": 0.0,
        "future_prediction": 100.0,
        "image_scene": 100.0,
        "image_style": 100.0,
        "object_localization": 100.0,
        "ocr": 100.0,
    }
    assert score.other_parts["splits"] == {"dev": score.whole}


def test_the_overall_number_is_of_questions_and_not_the_mean_of_categories() -> None:
    asked = own()

    score = asked.score(all_right(asked, row_7="B", row_12="A", row_30="B"), [])

    assert score.whole.official == 50.0  # the mean of LR 100, FP-S 0 and CP 100 were 66.7


def test_an_answer_without_a_letter_is_wrong_and_counted() -> None:
    asked = own()

    score = asked.score(all_right(asked, row_30="maybe", row_1000030="perhaps"), [])

    assert score.items["30"] == 0.0
    assert (score.whole.num_unparsable, score.whole.num_missing) == (1, 0)
    assert score.categories["FP-S"].num_unparsable == 1
    assert "2 of 19 answers have no letter by the rules" in score.notes


def test_rule_sets_score_the_same_answers_differently_and_are_named() -> None:
    asked, first = own(), own(extraction="first_release")
    answers = all_right(asked, row_7="A square is here in red")

    assert asked.score(answers, []).items["7"] == 1.0  # by its text: red
    assert first.score(answers, []).items["7"] == 1.0  # by the article
    answers |= {"1000007": "A square is here in red"}
    assert asked.score(answers, []).items["7"] == 1.0  # B is red now
    assert first.score(answers, []).items["7"] == 0.0
    assert "e8e78f0" in asked.score(answers, []).rule
    assert "9ac258c" in first.score(answers, []).rule


def test_of_options_with_one_text_only_letters_choose() -> None:
    asked = own()

    assert asked.score(all_right(asked, row_31="blue"), []).items["31"] == 1.0
    wrong = asked.score(all_right(asked, row_31="red"), [])
    assert (wrong.items["31"], wrong.whole.num_unparsable) == (0.0, 1)


def test_a_question_with_the_option_none_is_kept_and_counted() -> None:
    asked = own()

    score = asked.score(all_right(asked, row_45="None, I see none."), [])

    # the option one is a part of none, too: no letter
    assert (score.items["45"], score.whole.num_unparsable) == (0.0, 1)
    score = asked.score(all_right(asked, row_45="C. None"), [])
    assert score.items["45"] == 1.0
    told = "1 of 6 questions have an option that reads None"
    assert any(note.startswith(told) for note in score.notes)
    plain = own(prompt="vlmevalkit")
    assert not any("None" in note for note in plain.score(all_right(plain), []).notes)


def test_a_question_of_which_an_answer_is_missing_is_missing() -> None:
    asked = own()
    answers = all_right(asked, row_7="B")
    del answers["2000007"], answers["1000031"]

    score = asked.score(answers, [])

    assert set(score.items) == {"12", "30", "45", "60"}
    assert (score.whole.score, score.whole.num_missing) == (1.0, 2)
    assert score.categories["CP"].num_missing == 1


def test_without_right_answers_there_is_no_score_but_files_to_upload(tmp_path: Path) -> None:
    asked = own("own_test.tsv")
    answers = {item: Answer(question_id=item, text="B") for item in ("7", "12", "1000007")}

    asked.write_answers(tmp_path, answers, model_id="mini")

    sheet = load_workbook(tmp_path / "mmbench" / "submission.xlsx").active
    assert next(list(row) for row in sheet.iter_rows(values_only=True)) == [
        *("index", "question", "A", "B", "C", "D", "prediction", "split")
    ]
    with pytest.raises(DataError, match=r"has no answers .*upload mmbench/submission\.xlsx"):
        asked.score(dict.fromkeys(answers, "B"), [])


def test_the_published_number_follows_from_rows_present(tmp_path: Path) -> None:
    """dev_20230712: 1,176 questions in 4,377 rows; 796 right are 67.7.

    53 of them have four options and three passes. Were they taken for incomplete, the 22 of them
    that are right here would be lost, and 774 right be 65.8.
    """
    sizes = [(4, 4)] * 938 + [(3, 4)] * 53 + [(3, 3)] * 96 + [(2, 2)] * 89
    right = set(range(774)) | set(range(938, 960))
    rows = [
        made(
            group + 1_000_000 * number,
            image=PICTURE if number == 0 else group,
            **dict(zip("CD"[: options - 2], ["more", "most"], strict=False)),
        )
        for number in range(4)
        for group, (passes, options) in enumerate(sizes)
        if number < passes
    ]
    file = table(tmp_path, *rows)
    asked = benchmark("mmbench", file.parent, file.name, {})
    answers = all_right(asked)
    answers |= {str(group): "B" for group in range(1176) if group not in right}

    score = asked.score(answers, [])

    assert len(answers) == 4377
    assert score.whole.num_questions == 1176
    assert sum(score.items.values()) == 796
    assert score.whole.official == 67.7
    assert "53 of 1176 questions have fewer passes than options" in score.notes


# ---- a language model reads what the rules cannot ------------------------------------------------


def test_only_answers_without_a_letter_of_questions_not_yet_wrong_are_asked_about() -> None:
    asked = own(extractor="judge")
    # 7: two passes unread; 30: unread, but wrong in its other pass; 31: a refusal
    answers = all_right(
        asked, row_7="Scarlet!", row_2000007="crimson", row_30="hm", row_1000030="A"
    )
    answers["31"] = "I can't process this file."

    items = asked.judge_items(answers)

    assert [item.item for item in items] == ["7", "2000007"]
    request = items[0].request
    options = {"A": "red", "B": "green", "C": "blue", "D": "white"}
    prompt = matching_prompt("What color is the square?", options, "Scarlet!", RULES["current"])
    assert request.messages == (("user", prompt),)
    assert (request.temperature, request.max_tokens) == (0.0, 2048)
    assert own().judge_items(answers) == []


def test_a_reply_without_a_letter_is_asked_for_again_twice() -> None:
    asked = own(extractor="judge")
    (item,) = asked.judge_items(all_right(asked, row_7="Scarlet!"))

    assert item.is_valid("A")
    assert item.is_valid("Z")
    assert not item.is_valid("A or B")
    assert [item.asked_again(item.request, n) for n in (1, 2)] == [item.request] * 2
    assert item.asked_again(item.request, 3) is None


def judged(**replies: Reply) -> dict[str, float]:
    """Items where question 7 is unread in two passes."""
    asked = own(extractor="judge")
    answers = all_right(asked, row_7="Scarlet!", row_2000007="crimson")
    run = {name.removeprefix("row_"): reply for name, reply in replies.items()}
    return dict(asked.score(answers, [run]).items)


def said(text: str) -> Reply:
    return Reply(text=text, valid=True)


LOST = Reply(text=None, valid=False, cause="refused")


def test_the_replies_letters_decide() -> None:
    assert judged(row_7=said("A"), row_2000007=said("Your output: C"))["7"] == 1.0
    assert judged(row_7=said("A"), row_2000007=said("D"))["7"] == 0.0
    assert judged(row_7=said("Z"), row_2000007=said("C"))["7"] == 0.0


def test_a_reply_that_never_came_is_missing_unless_the_question_is_wrong_anyway() -> None:
    assert "7" not in judged(row_7=said("A"), row_2000007=LOST)
    assert "7" not in judged(row_7=said("A"))
    assert judged(row_7=said("B"), row_2000007=LOST)["7"] == 0.0


def test_a_reply_that_stayed_without_a_letter_is_wrong_and_counted_never_drawn() -> None:
    asked = own(extractor="judge")
    answers = all_right(asked, row_7="Scarlet!", row_30="hm", row_1000030="A")

    score = asked.score(answers, [{"7": Reply(text="A or B", valid=False, reasks=2)}])

    assert score.items["7"] == 0.0
    # question 30 was wrong before anybody was asked
    assert (score.whole.num_unparsable, score.whole.num_missing) == (1, 0)


def test_several_runs_give_their_numbers_and_the_mean_of_each_question() -> None:
    asked = own(extractor="judge")
    answers = all_right(asked, row_7="Scarlet!", row_30="hm")
    runs = [
        {"7": said("A"), "30": said("A")},
        {"7": said("B"), "30": said("A")},
        {"7": said("B"), "30": LOST},
    ]

    score = asked.score(answers, runs)

    assert score.items["7"] == pytest.approx(1 / 3)
    assert score.items["30"] == 1.0
    assert score.runs == [100.0, 83.3, 80.0]  # 6 of 6, 5 of 6, 4 of 5
    assert score.run_spread == pytest.approx(8.7546, abs=1e-4)  # sqrt of 229.92 / 3
    assert score.whole.num_missing == 1


def test_a_judge_run_without_a_verdict_is_told() -> None:
    asked = own(extractor="judge")
    answers = dict.fromkeys(all_right(asked), "hm")

    score = asked.score(answers, [dict.fromkeys(answers, said("E")), dict.fromkeys(answers, LOST)])

    assert len(score.runs) == 1
    assert "1 of 2 judge runs have no verdict" in score.notes


def test_reviews_say_hit_and_log_of_each_question(tmp_path: Path) -> None:
    asked = own(extractor="judge")
    answers = all_right(asked, row_7="Scarlet!", row_12="hm", row_30="B")

    asked.write_reviews(tmp_path, answers, [{"7": said("A"), "12": LOST}], judge_model="own/judge")

    file = tmp_path / "mmbench_own_judge_result_1.tsv"
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened, delimiter="\t"))
    assert [(row["index"], row["hit"]) for row in rows] == [
        *(("7", "1"), ("12", ""), ("30", "0"), ("31", "1"), ("45", "1"), ("60", "1"))
    ]
    assert rows[0]["prediction"] == "Scarlet!"
    assert rows[0]["log"].startswith("7: judge: 'A', answer A; 1000007: B, answer B; ")


# ---- files ---------------------------------------------------------------------------------------


def test_answers_are_written_as_llava_does(tmp_path: Path) -> None:
    asked = own()
    answers = {
        question.question_id: Answer(question_id=question.question_id, text=question.answer)
        for question in asked.questions
    }

    asked.write_answers(tmp_path, answers, model_id="mini")

    text = (tmp_path / "mmbench" / "answers.jsonl").read_text(encoding="utf-8")
    first, *others = [json.loads(line) for line in text.splitlines()]
    assert {**first, "answer_id": ""} == {
        "question_id": 7,
        "round_id": 0,
        "prompt": "What color is the square?\nA. red\nB. green\nC. blue\nD. white",
        "text": "A",
        "options": ["red", "green", "blue", "white"],
        "option_char": ["A", "B", "C", "D"],
        "answer_id": "",
        "model_id": "mini",
        "metadata": {},
    }
    assert len(others) == 18


def test_nothing_in_a_submission_says_when_it_was_made(tmp_path: Path) -> None:
    own().write_answers(tmp_path, {}, model_id="mini")

    with ZipFile(tmp_path / "mmbench" / "submission.xlsx") as sheet:
        times = {part.date_time for part in sheet.infolist()}
        said = re.findall(r">(\d{4}-[^<]*)<", sheet.read("docProps/core.xml").decode())
    assert times == {(1980, 1, 1, 0, 0, 0)}
    assert set(said) == {"1980-01-01T00:00:00Z"}


def test_the_submission_has_the_official_columns_and_keeps_text_as_text(tmp_path: Path) -> None:
    asked = own()
    answers = {"7": Answer(question_id="7", text="=A1 \x0b is A")}

    asked.write_answers(tmp_path, answers, model_id="mini")

    sheet = load_workbook(tmp_path / "mmbench" / "submission.xlsx").active
    header, first, second, *others = sheet.iter_rows()
    assert [cell.value for cell in header] == [
        *("index", "question", "A", "B", "C", "D", "prediction", "answer", "split")
    ]
    assert [cell.value for cell in first] == [
        *(7, "What color is the square?", "red", "green", "blue", "white", "=A1  is A", "A", "dev")
    ]
    assert first[6].data_type == "s"
    assert second[6].value is None
    assert len(others) == 17


@pytest.mark.parametrize("kind", ["llava", "ours", "sheet"])
@pytest.mark.parametrize("folder", [True, False])
def test_saved_answers_score_as_they_would_in_a_study(
    tmp_path: Path, kind: str, folder: bool
) -> None:
    asked = own()
    texts = all_right(asked, row_7="it is green", row_30="no idea", row_60="")
    asked.write_answers(
        tmp_path, {i: Answer(question_id=i, text=t) for i, t in texts.items()}, model_id="mini"
    )
    ours = tmp_path / "mmbench.jsonl"
    ours.write_text(
        "".join(json.dumps({"question_id": i, "text": t}) + "\n" for i, t in texts.items()),
        encoding="utf-8",
    )
    files = {"llava": "mmbench/answers.jsonl", "sheet": "mmbench/submission.xlsx"}
    data = tmp_path / "data"
    data.mkdir()
    table_file = data / "dev.tsv"
    table_file.write_bytes((ROOT / "own_dev.tsv").read_bytes())

    score = MmBench.score_files(
        [tmp_path / files[kind] if kind in files else ours],
        asked.options,
        data=data if folder else table_file,
        ignore=frozenset(),
    )

    assert score == asked.score(texts, [])
    assert score.num_empty == 1


def saved(folder: Path, *rows: Mapping[str, object], name: str = "a.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_an_ignored_row_leaves_its_question_out(tmp_path: Path) -> None:
    asked = own()
    texts = all_right(asked, row_7="B")
    file = saved(tmp_path, *({"question_id": i, "text": t} for i, t in texts.items()))

    score = MmBench.score_files(
        [file], asked.options, data=ROOT / "own_dev.tsv", ignore=frozenset({"1000007"})
    )

    assert set(score.items) == {"12", "30", "31", "45", "60"}
    assert score.whole.official == 100.0
    one_pass_of_each = frozenset({"7", "12", "30", "31", "45", "60"})
    with pytest.raises(ConfigError, match="--ignore: leaves no question out of which"):
        MmBench.score_files(
            [file], asked.options, data=ROOT / "own_dev.tsv", ignore=one_pass_of_each
        )


def test_files_that_cannot_be_scored_are_refused(tmp_path: Path) -> None:
    options = own().options
    answers = saved(tmp_path, {"question_id": 7, "text": "A"})
    rounds = saved(tmp_path, {"question_id": 7, "round_id": 1, "text": "A"}, name="b.jsonl")
    other = saved(tmp_path, {"question_id": 8, "text": "A"}, name="c.jsonl")
    no_sheet, sheet = tmp_path / "no.xlsx", tmp_path / "sheet.xlsx"
    no_sheet.write_text("index", encoding="utf-8")
    book = Workbook()
    book.active.append(["index", "question"])
    book.save(sheet)

    def scored(*files: Path, data: Path | None = ROOT / "own_dev.tsv", **changes: str) -> None:
        MmBench.score_files(files, {**options, **changes}, data=data, ignore=frozenset())

    with pytest.raises(ConfigError, match=r"needs --data FILE\.tsv"):
        scored(answers, data=None)
    with pytest.raises(ConfigError, match=r"one \.tsv, found own_dev\.tsv, own_test\.tsv"):
        scored(answers, data=ROOT)
    with pytest.raises(ConfigError, match="takes one file of answers, not 2"):
        scored(answers, other)
    with pytest.raises(ConfigError, match="take extractor=exact"):
        scored(answers, extractor="judge")
    with pytest.raises(DataError, match="round_id is not 0"):
        scored(rounds)
    with pytest.raises(DataError, match="answers row 8, which the table does not have"):
        scored(other)
    with pytest.raises(DataError, match="cannot be read as a sheet"):
        scored(no_sheet)
    with pytest.raises(DataError, match="no columns index and prediction"):
        scored(sheet)


# ---- real files ----------------------------------------------------------------------------------


def test_the_real_sample_is_read_with_its_pictures() -> None:
    root = official_samples() / "mmbench"
    asked = benchmark("mmbench", root, "mmbench_sample.tsv", {})

    questions = by_id(asked)

    assert len(questions) == 54
    for item, question in questions.items():
        main = int(item) % 1_000_000
        assert question.image == (root / "images" / f"{main}.jpg").read_bytes()
        assert question.image is questions[str(main)].image
    assert questions["503"].row["B"] == "look at this cute toy sushi set \U0001f979"
    assert questions["1"].row["A"].startswith("for x in range(6):\n     print(x)\n")


def test_the_real_sample_scores_by_hand() -> None:
    asked = benchmark("mmbench", official_samples() / "mmbench", "mmbench_sample.tsv", {})
    # 14 questions: two lose one pass, one loses all; the texts of options are answers too
    answers = all_right(asked, row_2000812="A", row_1002222="D", row_318="A")
    answers |= {"1000318": "A", "2000318": "B", "2870": "It is south of it."}

    score = asked.score(answers, [])

    assert [item for item, value in score.items.items() if not value] == ["318", "812", "2222"]
    assert score.whole.official == 78.6  # 11 of 14
    assert score.also == {
        "first pass alone, by the rules": 92.9,  # 13 of 14
        "all rows, by the rules": 90.7,  # 49 of 54
    }
    parts = {name: (p.official, p.num_questions) for name, p in score.categories.items()}
    assert parts == {
        "LR": (50.0, 2),
        "AR": (100.0, 2),
        "RR": (100.0, 1),
        "FP-S": (100.0, 3),
        "FP-C": (50.0, 2),
        "CP": (75.0, 4),
    }
