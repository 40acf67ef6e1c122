"""MM-Vet: what the judge is asked, once and again, and what its grades are worth."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from scalesweep.benchmark_options import option_values
from scalesweep.errors import ConfigError, DataError
from scalesweep.evaluate.benchmarks.mm_vet import MmVet, by_capability, by_set
from scalesweep.evaluate.judge_prompts import mm_vet_prompt
from scalesweep.evaluate.judging.items import Reply, Request
from scalesweep.evaluate.questions import Answer
from scalesweep.evaluate.scores import BenchmarkScore
from tests.evaluate.official import SAMPLES, official_samples

ROOT = SAMPLES / "mm_vet"
GRADES = SAMPLES / "mm_vet_grades.json"
ANSWERS = {f"v1_{number}": f"answer {number}" for number in range(5)}
SETS = "capability sets"


def mm_vet(root: Path = ROOT, file: str = "mm-vet.json", **options: Any) -> MmVet:
    return MmVet(root, file, option_values("mm_vet", options))


def again(
    *files: Path, data: Path | None = ROOT, ignore: str = "", **options: Any
) -> BenchmarkScore:
    return MmVet.score_files(
        files,
        option_values("mm_vet", options),
        data=data,
        ignore=frozenset(filter(None, ignore.split(","))),
    )


def replies(*texts: str | None) -> dict[str, Reply]:
    return {
        f"v1_{number}": Reply(text=text, valid=text is not None)
        for number, text in enumerate(texts)
    }


def changed(tmp_path: Path, question: str, **changes: Any) -> Path:
    """The sample of grades with one entry changed."""
    entries = json.loads(GRADES.read_text("utf-8"))
    entries[question] |= changes
    file = tmp_path / "grades.json"
    file.write_text(json.dumps(entries), encoding="utf-8")
    return file


# ---------------------------------------------------------------- requests


def test_the_judge_is_asked_to_the_letter() -> None:
    item = mm_vet().judge_items(ANSWERS)[0]

    assert item.request.to_json() == {
        "messages": [
            {
                "role": "user",
                "content": mm_vet_prompt() + "\nWhat is the sum? | 7 <AND> seven | answer 0 | ",
            }
        ],
        "temperature": 0.0,
        "max_tokens": 3,
    }
    assert item.request.messages[0][1].endswith(
        " | 1.0\n\nWhat is the sum? | 7 <AND> seven | answer 0 | "
    )
    assert item.is_valid("0.5")
    assert not item.is_valid("five")


def test_or_is_surrounded_by_spaces_too() -> None:
    text = mm_vet().judge_items(ANSWERS)[1].request.messages[0][1]

    assert text.endswith("\nWhich animal is it? | cat <OR> a cat | answer 1 | ")


def test_a_reply_without_a_number_is_asked_again_warmer_each_time() -> None:
    item = mm_vet().judge_items(ANSWERS)[0]
    (_, text) = item.request.messages[0]

    asked = [item.asked_again(item.request, number) for number in range(1, 6)]

    again_text = text + "\nPredict the correctness of the answer (digit): "
    assert asked[:4] == [
        Request(messages=(("user", again_text),), temperature=warmth, max_tokens=3)
        for warmth in (0.0, 0.5, 1.0, 1.5)
    ]
    # The script's fifth is asked and never read: 0.0 whatever it says.
    assert asked[4] is None


# ---------------------------------------------------------------- scores


def test_two_runs_are_scored_by_hand() -> None:
    runs = [replies("1.0", "0.0", "0.3", "1.0", "0.75"), replies("0.5", "0.0", "0.7", "0", "1")]

    score = mm_vet().score(ANSWERS, runs)

    assert score.runs == [61.0, 44.0]  # 3.05 / 5 and 2.2 / 5
    assert (score.whole.official, score.run_spread) == (52.5, 8.5)  # not 12.0, which has n - 1
    assert {name: part.official for name, part in score.categories.items()} == {
        "rec": 45.8,  # (1.75 + 1) / 6
        "math": 62.5,  # (1.3 + 1.2) / 4
        "ocr": 62.5,
        "spat": 50.0,
    }
    assert score.items["v1_0"] == 0.75
    assert score.whole.score == pytest.approx(0.525)


def test_a_capability_set_is_a_set_whatever_the_order_of_its_words() -> None:
    score = mm_vet().score(ANSWERS, [replies("1.0", "0.0", "0.3", "1.0", "0.75")])

    sets = {name: part.official for name, part in score.other_parts[SETS].items()}
    # v1_0 has ["ocr", "math"], v1_2 ["math", "ocr"]
    assert sets == {"math_ocr": 65.0, "rec": 37.5, "rec_spat": 100.0}


def test_capabilities_come_by_frequency() -> None:
    taken = {
        "a": frozenset({"ocr", "rec"}),
        "b": frozenset({"rec"}),
        "c": frozenset({"rec", "ocr"}),
        "d": frozenset({"gen"}),
    }

    assert by_capability(taken) == {"rec": ["a", "b", "c"], "ocr": ["a", "c"], "gen": ["d"]}
    assert by_set(taken) == {"rec_ocr": ["a", "c"], "rec": ["b"], "gen": ["d"]}


def test_a_reply_without_a_grade_is_missing_and_never_0() -> None:
    runs = [replies("1.0", "The", "0.3", None, "0.75")]

    for unparsable in ("strict", "exclude"):
        score = mm_vet(unparsable=unparsable).score(ANSWERS, runs)
        assert score.whole.official == 68.3  # 2.05 / 3
        assert (score.whole.num_missing, score.whole.num_questions) == (2, 5)
        assert score.categories["spat"].official is None
        assert "v1_1" not in score.items


def test_a_judge_run_without_a_grade_is_told() -> None:
    score = mm_vet().score(ANSWERS, [replies("1.0"), replies("no")])

    assert len(score.runs) == 1
    assert score.notes[-1].startswith("1 of 2 judge runs without a number")


def test_grades_are_written_in_the_official_files(tmp_path: Path) -> None:
    runs = [
        replies("1.0 yes", "0.0", "0.3", "1.0", "0.75"),
        replies("0.5", "The", "0.7", "0.0", "1.0"),
    ]

    mm_vet().write_reviews(tmp_path, ANSWERS, runs, judge_model="gpt-4-0613")

    assert {file.name for file in tmp_path.iterdir()} == {
        "mm_vet_gpt-4-0613-grade-2runs.json",
        "mm_vet_gpt-4-0613-cap-score-2runs.csv",
        "mm_vet_gpt-4-0613-cap-int-score-2runs.csv",
    }
    grades = json.loads((tmp_path / "mm_vet_gpt-4-0613-grade-2runs.json").read_text("utf-8"))
    assert grades["v1_0"] == {
        "model": ["gpt-4-0613", "gpt-4-0613"],
        "content": ["1.0", "0.5"],
        "score": [1.0, 0.5],
    }
    assert grades["v1_1"]["score"] == [0.0]  # the official script asks for the other again
    with (tmp_path / "mm_vet_gpt-4-0613-cap-score-2runs.csv").open(newline="") as file:
        header, row = csv.reader(file)
    assert header == ["", "rec", "math", "ocr", "spat", "total", "std", "runs"]
    # run 2: 2.2 / 4; totals 61 and 55
    assert row == ["mm_vet", "54.2", "62.5", "62.5", "50.0", "58.0", "3.0", "[61.0, 55.0]"]


def test_written_grades_score_as_the_replies_did(tmp_path: Path) -> None:
    runs = [replies("1", "0", "0.3", "1.0", "0.75"), replies("0.5", "0", "0.7", "0", "1")]
    mm_vet().write_reviews(tmp_path, ANSWERS, runs, judge_model="judge")

    found = again(tmp_path / "mm_vet_judge-grade-2runs.json")

    score = mm_vet().score(ANSWERS, runs)
    assert (found.whole, found.items) == (score.whole, score.items)
    assert (found.categories, found.other_parts) == (score.categories, score.other_parts)
    assert found.run_spread == score.run_spread


def test_answers_are_written_as_the_official_result_file(tmp_path: Path) -> None:
    answers = {item: Answer(question_id=item, text=text) for item, text in ANSWERS.items()}

    mm_vet().write_answers(tmp_path, answers, model_id="small")

    assert json.loads((tmp_path / "mm_vet.json").read_text("utf-8")) == ANSWERS


# ---------------------------------------------------------------- saved grades


def test_a_0_without_a_number_in_its_reply_is_unparsable() -> None:
    strict, exclude = again(GRADES), again(GRADES, unparsable="exclude")

    # v1_3 of run 2: score 0.0, reply "The"
    assert (strict.runs, strict.whole.official) == ([61.0, 44.0], 52.5)
    assert (exclude.runs, exclude.whole.official) == ([61.0, 55.0], 58.0)  # 2.2 / 4
    assert (strict.whole.num_unparsable, exclude.whole.num_unparsable) == (1, 1)
    assert strict.categories["spat"].num_unparsable == 1
    assert strict.judge_model == "gpt-4-0613"


def test_a_0_whose_reply_says_otherwise_is_the_sixth_try_that_was_never_read(
    tmp_path: Path,
) -> None:
    file = changed(tmp_path, "v1_3", content=["1.0", "0.7"])

    assert again(file).whole.num_unparsable == 1


def test_a_score_that_its_reply_does_not_say_is_taken_and_told(tmp_path: Path) -> None:
    score = again(changed(tmp_path, "v1_1", score=[0.5, 0.0]))

    assert score.runs == [71.0, 44.0]  # 3.55 / 5
    (note,) = score.notes
    assert "1 scores are not what the judge's reply says (questions v1_1)" in note


def test_runs_of_several_files_are_put_together() -> None:
    score = again(GRADES, GRADES)

    assert score.runs == [61.0, 44.0, 61.0, 44.0]


def test_missing_grades_are_counted_and_told(tmp_path: Path) -> None:
    file = changed(tmp_path, "v1_4", score=[0.75], content=["0.75"], model=["gpt-4-0613"])
    entries = json.loads(file.read_text("utf-8"))
    del entries["v1_1"]
    file.write_text(json.dumps(entries), encoding="utf-8")

    score = again(file)

    assert (score.whole.num_missing, score.whole.num_questions) == (3, 5)
    assert score.runs == [76.2, 40.0]  # 3.05 / 4 = 76.25, half to even; 1.2 / 3
    assert score.notes == [
        "grades.json is incomplete: 4 graded answers; the question file has 5 questions",
        "grades.json is incomplete: 1 questions have fewer than 2 runs, v1_4 the first",
    ]


def test_without_the_question_file_the_total_is_known_and_the_rest_is_told() -> None:
    score = again(GRADES, data=None)

    assert (score.whole.official, score.categories, score.other_parts) == (52.5, {}, {})
    assert score.notes == [
        "mm_vet_grades.json is incomplete: 5 graded answers; the official file has 218 questions",
        "capabilities are not in grade files; --data=DIR of mm-vet.json adds them",
    ]


def test_the_subset_without_people_is_an_option() -> None:
    score = again(GRADES, subset="bard_set")

    assert (score.whole.num_questions, score.runs) == (2, [50.0, 25.0])
    assert [q.question_id for q in mm_vet(subset="bard_set").questions] == ["v1_0", "v1_1"]
    with pytest.raises(DataError, match=r"subset=bard_set: needs --data"):
        again(GRADES, subset="bard_set", data=None)


def test_ignored_questions_are_left_out() -> None:
    assert again(GRADES, ignore="v1_3,v1_4").runs == [43.3, 40.0]  # 1.3 / 3 and 1.2 / 3
    with pytest.raises(ConfigError, match="--ignore=v1_9: no such question"):
        again(GRADES, ignore="v1_9")


@pytest.mark.parametrize(
    ("question", "changes", "message"),
    [
        ("v1_2", {"score": [0.3, 1.5]}, "v1_2: score 1.5 is no number from 0 to 1"),
        ("v1_2", {"score": [0.3, float("nan")]}, "v1_2: score nan is no number from 0 to 1"),
        ("v1_2", {"score": None}, "v1_2: is no grade: it has no list of scores"),
        ("v1_2", {"content": ["0.3"]}, "v1_2: content is no list as long as score"),
    ],
)
def test_a_bad_grade_is_named(
    tmp_path: Path, question: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as error:
        again(changed(tmp_path, question, **changes))

    assert message in str(error.value)
    assert "grades.json" in str(error.value)


def test_grades_of_other_questions_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "grades.json"
    file.write_text('{"v1_7": {"score": [1.0]}}', encoding="utf-8")

    with pytest.raises(DataError, match="question v1_7 is not among the 5 of the question file"):
        again(file)


def test_broken_json_is_named_by_line(tmp_path: Path) -> None:
    file = tmp_path / "grades.json"
    file.write_text(GRADES.read_text("utf-8")[:-10], encoding="utf-8")

    with pytest.raises(DataError, match=r"grades\.json, line \d+: is no JSON"):
        again(file)


def test_a_result_file_is_no_grade_file(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(ANSWERS), encoding="utf-8")

    with pytest.raises(DataError, match=r"v1_0: is no grade.*answers must be graded before"):
        again(file)


def test_an_entry_that_is_no_question_is_named(tmp_path: Path) -> None:
    (tmp_path / "mm-vet.json").write_text('{"v1_0": {"question": "?", "capability": "rec"}}')

    with pytest.raises(DataError, match="v1_0: is no question"):
        _ = mm_vet(tmp_path).questions


# ---------------------------------------------------------------- real files


def test_real_questions_keep_their_answers_as_they_are() -> None:
    rules = mm_vet(official_samples() / "mmvet", "mm-vet.sample.json")

    questions = {q.question_id: q for q in rules.questions}
    items = {item.item: item for item in rules.judge_items(dict.fromkeys(questions, "x"))}

    assert len(questions) == 12
    assert questions["v1_1"].answer == "1.25<OR>=1.25<OR>5/4"
    assert " | 1.25 <OR> =1.25 <OR> 5/4 | x | " in items["v1_1"].request.messages[0][1]
    assert " | five <OR>  5 | x | " in items["v1_79"].request.messages[0][1]


def test_real_grades_score_by_hand() -> None:
    root = official_samples() / "mmvet"

    score = again(root / "grade-3runs.sample.json", data=root / "mm-vet.sample.json")

    assert score.runs == [25.0, 25.0, 25.0]  # v1_18, v1_50 and v1_38 of 12
    assert (score.whole.official, score.run_spread) == (25.0, 0.0)
    assert {name: part.official for name, part in score.categories.items()} == {
        "ocr": 37.5,  # 3 of 8
        "rec": 0.0,
        "spat": 40.0,  # 2 of 5
        "math": 33.3,  # 1 of 3
        "know": 0.0,
        "gen": 0.0,
    }
    assert score.other_parts[SETS]["ocr_spat"].official == 50.0  # v1_18 of v1_18 and v1_32
    assert (score.whole.num_unparsable, score.notes) == (0, [])
