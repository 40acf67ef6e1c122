"""LLaVA-Bench: what the judge is asked, and what its reviews are worth."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scalesweep.benchmark_options import option_values
from scalesweep.errors import ConfigError, DataError
from scalesweep.evaluate.benchmarks.llava_bench import LlavaBench, LlavaBenchCoco
from scalesweep.evaluate.judging.items import Reply
from scalesweep.evaluate.scores import BenchmarkScore
from tests.evaluate.official import SAMPLES, official_samples

ANSWERS = {"0": "A mug.", "1": "A cup on a table.", "2": "Dawn.", "3": ""}
REVIEWS = [SAMPLES / f"llava_bench_review_{number}.jsonl" for number in (1, 2)]
PROMPT = (
    "We would like to request your feedback on the performance of two AI assistants in response "
    "to the user question displayed above. The user asks the question on observing an image. For "
    "your reference, the visual content in the image is represented with a few sentences "
    "describing the image. \nPlease rate the helpfulness, relevance, accuracy, level of details "
    "of their responses. Each assistant receives an overall score on a scale of 1 to 10, where a "
    "higher score indicates better overall performance.\nPlease first output a single line "
    "containing only two values indicating the scores for Assistant 1 and 2, respectively. The "
    "two scores are separated by a space.\nIn the subsequent line, please provide a comprehensive "
    "explanation of your evaluation, avoiding any potential bias and ensuring that the order in "
    "which the responses were presented does not affect your judgment."
)


def wild(root: Path = SAMPLES / "llava_bench", **options: Any) -> LlavaBench:
    return LlavaBench(root, "questions.jsonl", option_values("llava_bench", options))


def coco(root: Path = SAMPLES / "llava_bench_coco") -> LlavaBenchCoco:
    return LlavaBenchCoco(root, "qa90_questions.jsonl", option_values("llava_bench_coco", {}))


def again(
    files: list[Path], *, data: Path | None = None, ignore: str = "", **options: Any
) -> BenchmarkScore:
    return LlavaBench.score_files(
        files,
        option_values("llava_bench", options),
        data=data,
        ignore=frozenset(filter(None, ignore.split(","))),
    )


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def write(file: Path, lines: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLES / "llava_bench", tmp_path / "copied"))


# ---------------------------------------------------------------- questions and requests


def test_a_question_is_asked_as_it_stands_with_its_picture() -> None:
    first = wild().questions[0]

    assert (first.question_id, first.text) == ("0", "What stands on the table?")
    assert (first.category, first.image) == ("conv", SAMPLES / "llava_bench/images/001.jpg")


def test_the_judge_is_asked_to_the_letter() -> None:
    item = wild().judge_items(ANSWERS)[2]

    assert item.item == "2"
    assert item.request.to_json() == {
        "messages": [
            {
                "role": "system",
                "content": "You are a helpful and precise assistant for checking the quality of "
                "the answer.",
            },
            {
                "role": "user",
                "content": "[Context]\nA street at dawn.\nNo one is about.\n\n"
                "[Question]\nWhy might the street be empty?\n\n"
                "[Assistant 1]\nIt is early.\n\n[End of Assistant 1]\n\n"
                "[Assistant 2]\nDawn.\n\n[End of Assistant 2]\n\n"
                f"[System]\n{PROMPT}\n\n",
            },
        ],
        "temperature": 0.2,
        "max_tokens": 1024,
    }
    assert item.is_valid("8 9\nfine")
    assert not item.is_valid("8, 9\nfine")
    assert item.asked_again(item.request, 1) is None


def test_what_the_judge_is_told_of_a_coco_picture_is_its_captions_and_boxes() -> None:
    (_, user) = coco().judge_items({"0": "Two", "1": "Food", "2": "Us"})[1].request.messages

    assert user[1].startswith(
        "[Context]\nTwo bowls of food.\nA meal in bowls.\n\n"
        "bowl: [0.0, 0.39, 0.5, 1.0]\norange: [0.587, 0.025, 0.7, 0.136]\n\n"
        "[Question]\nWhat is this photo about?\n\n"
        "[Assistant 1]\nTwo bowls of food.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nFood\n\n[End of Assistant 2]\n\n[System]\n"
    )
    assert "five descriptive sentences" in user[1]


@pytest.mark.parametrize(
    "place",
    ["images/000000000009.jpg", "val2014/COCO_val2014_000000000009.jpg"],
)
def test_a_coco_picture_is_found_by_either_name(tmp_path: Path, place: str) -> None:
    root = Path(shutil.copytree(SAMPLES / "llava_bench_coco", tmp_path / "coco"))
    (root / place).parent.mkdir()
    (root / place).touch()

    assert coco(root).questions[0].image == root / place


def test_files_are_joined_by_question_and_not_by_line(copied: Path) -> None:
    expected = wild().judge_items(ANSWERS)
    file = copied / "answers_gpt4.jsonl"
    write(file, rows(file)[::-1])

    found = wild(copied).judge_items(ANSWERS)

    assert [item.request for item in found] == [item.request for item in expected]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("answers_gpt4.jsonl", lambda r: r[:3], "1 of 4 questions have no answer there, 3 the"),
        ("answers_gpt4.jsonl", lambda r: [*r, r[0]], "line 5: question 0 is answered again"),
        (
            "answers_gpt4.jsonl",
            lambda r: [{**r[0], "prompt": "What is it?"}, *r[1:]],
            "line 1: question 0 is another one here: 'What is it?'",
        ),
        ("answers_gpt4.jsonl", lambda r: [{"question_id": 0}, *r[1:]], "line 1: text is missing"),
        ("context.jsonl", lambda r: r[:1], "says nothing of 002.jpg, the picture of question 2"),
        ("context.jsonl", lambda r: [{**r[0], "caption": 7}, r[1]], "line 1: caption is no text"),
    ],
)
def test_files_of_the_judge_that_do_not_fit_are_refused(
    copied: Path, name: str, change: Any, message: str
) -> None:
    write(copied / name, change(rows(copied / name)))

    with pytest.raises(DataError) as error:
        wild(copied).judge_items(ANSWERS)

    assert message in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category": "chat"}, "line 1: category chat is none of conv, detail, complex"),
        ({"text": None}, "line 1: text is missing"),
        ({"question_id": 1}, "line 2: question 1 is asked again, after line 1"),
        ({"question_id": None}, "line 1: question_id is missing"),
    ],
)
def test_a_line_that_is_no_question_is_named(
    copied: Path, change: dict[str, Any], message: str
) -> None:
    file = copied / "questions.jsonl"
    lines = rows(file)
    write(file, [{**lines[0], **change}, *lines[1:]])

    with pytest.raises(DataError) as error:
        _ = wild(copied).questions

    assert message in str(error.value)


# ---------------------------------------------------------------- scores


def replies(*texts: str | None) -> dict[str, Reply]:
    return {
        str(number): Reply(text=text, valid=text is not None) for number, text in enumerate(texts)
    }


def test_two_runs_are_scored_by_hand() -> None:
    runs = [
        replies("8 6", "8, 9", "10 7.5", "8,9"),  # (22.5 - 1) / (26 - 1) = 86.0
        replies("9 6", "8 7", "9 8", "8 7.5"),  # 28.5 / 34: 7.125 / 8.5 = 83.8
    ]

    score = wild().score(ANSWERS, runs)

    assert (score.runs, score.whole.official) == ((86.0, 83.8), 84.9)
    assert score.run_spread == pytest.approx(1.1)
    assert score.whole.score == pytest.approx((21.5 / 25 + 28.5 / 34) / 2)
    assert (score.whole.num_unparsable, score.whole.num_missing) == (1, 0)
    assert score.categories["complex"].official == 91.5  # 91.7 and 91.2: 91.45, up in binary
    assert score.num_empty == 1


def test_a_missing_reply_is_left_out_of_the_means_and_counted() -> None:
    score = wild().score(ANSWERS, [replies("8 6", None, "10 7.5", "8 9")])

    assert score.whole.official == 86.5  # 22.5 / 26
    assert (score.whole.num_missing, score.whole.num_unparsable) == (1, 0)
    assert score.categories["detail"].official is None
    assert score.categories["detail"].num_missing == 1


def test_the_options_exclude_and_lmms_eval_change_what_counts() -> None:
    runs = [replies("8 6", "8, 9", "10 7.5", "8,9")]

    exclude = wild(unparsable="exclude").score(ANSWERS, runs)
    lenient = wild(parsing="lmms_eval").score(ANSWERS, runs)

    assert exclude.whole.official == 86.5  # 22.5 / 26
    assert lenient.whole.official == 92.6  # 31.5 / 34: 7.875 / 8.5
    assert "left out, unlike there" in exclude.rule
    assert "as lmms-eval does" in lenient.rule
    assert wild(parsing="lmms_eval").judge_items(ANSWERS)[0].is_valid("8, 9")


def test_reviews_are_written_as_the_official_script_writes_them(tmp_path: Path) -> None:
    runs = [replies("8 6\nx", "8, 9", None, "8,9"), replies("9 6", "8 7", "9 8", "8 7.5")]

    wild().write_reviews(tmp_path, ANSWERS, runs, judge_model="org/judge")

    first, second = sorted(tmp_path.iterdir())
    assert first.name == "llava_bench_org_judge_run1.jsonl"
    assert len(rows(second)) == 4
    written = rows(first)
    assert list(written[0]) == [
        "id",
        "question_id",
        "answer1_id",
        "answer2_id",
        "category",
        "content",
        "tuple",
    ]
    assert [(row["id"], row["question_id"]) for row in written] == [(1, 0), (2, 1), (4, 3)]
    assert (written[0]["answer1_id"], written[0]["category"]) == ("ref0", "llava_bench_conv")
    assert [row["tuple"] for row in written] == [[8.0, 6.0], [-1.0, -1.0], [8.0, 9.0]]


def test_written_reviews_score_as_the_replies_did(tmp_path: Path) -> None:
    runs = [replies("8 6", "8, 9", None, "8,9"), replies("9 6", "8 7", "9 8", "8 7.5")]
    score = wild().score(ANSWERS, runs)
    wild().write_reviews(tmp_path, ANSWERS, runs, judge_model="judge")

    found = again(sorted(tmp_path.iterdir()), data=SAMPLES / "llava_bench")

    assert (found.whole, found.categories, found.runs) == (
        score.whole,
        score.categories,
        score.runs,
    )
    assert found.items == score.items


def test_coco_reviews_name_the_category_without_a_prefix(tmp_path: Path) -> None:
    asked = {"0": "Two", "1": "Food", "2": "Us"}

    coco().write_reviews(tmp_path, asked, [replies("8 6", "8 7", "8 8")], judge_model="judge")

    (file,) = tmp_path.iterdir()
    assert [row["category"] for row in rows(file)] == ["conv", "detail", "complex"]
    assert [row["answer1_id"] for row in rows(file)] == [0, 1, 2]  # the reference has no ids
    found = LlavaBenchCoco.score_files(
        [file],
        option_values("llava_bench_coco", {}),
        data=SAMPLES / "llava_bench_coco",
        ignore=frozenset(),
    )
    assert found.whole.official == 87.5  # 21 / 24
    assert list(found.categories) == ["complex", "conv", "detail"]


# ---------------------------------------------------------------- saved reviews


def test_saved_reviews_are_scored_by_hand() -> None:
    score = again(REVIEWS, data=SAMPLES / "llava_bench")

    assert (score.runs, score.whole.official) == ((86.0, 83.8), 84.9)
    assert (score.notes, score.num_empty) == ([], None)


def test_the_order_of_lines_changes_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "review.jsonl", rows(REVIEWS[0])[::-1])

    assert again([file]).whole == again([REVIEWS[0]]).whole


def test_a_marked_review_is_read_again_only_where_an_option_reads_more() -> None:
    assert again([REVIEWS[0]]).whole.num_unparsable == 1
    lenient = again([REVIEWS[0]], parsing="lmms_eval")

    assert (lenient.whole.num_unparsable, lenient.whole.official) == (0, 92.6)


def test_without_a_question_file_a_file_cut_short_is_still_told() -> None:
    (note,) = again([REVIEWS[0]]).notes

    assert note == (
        "llava_bench_review_1.jsonl is incomplete: 4 reviews; the official file has 60 questions"
    )


def test_a_resumed_run_that_was_cut_short_is_told_and_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "review.jsonl", rows(REVIEWS[1])[:3])

    score = again([REVIEWS[0], file], data=SAMPLES / "llava_bench")

    assert (score.whole.num_missing, score.whole.num_questions) == (1, 4)
    assert score.notes == [
        "review.jsonl is incomplete: 3 reviews; the question file has 4 questions"
    ]
    assert score.runs == (86.0, 80.8)  # 21 / 26: 7 / 8.667


def test_ignored_questions_are_left_out() -> None:
    score = again([REVIEWS[0]], ignore="1,3")

    assert (score.whole.official, score.whole.num_questions) == (75.0, 2)  # 13.5 / 18
    with pytest.raises(ConfigError, match="--ignore=77: no such question"):
        again([REVIEWS[0]], ignore="77")
    with pytest.raises(ConfigError, match="leaves no question"):
        again([REVIEWS[0]], ignore="0,1,2,3")


def changed(tmp_path: Path, line: int, **changes: Any) -> Path:
    """The first sample with one line changed; None takes a field away."""
    lines = rows(REVIEWS[0])
    lines[line] = {k: v for k, v in {**lines[line], **changes}.items() if v is not None}
    return write(tmp_path / "review.jsonl", lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuple": None, "content": None}, "line 3: is no review"),
        ({"tuple": [1]}, "line 3: is no review: its score is [1], not two numbers"),
        ({"tuple": ["8", "9"]}, "not two numbers"),
        ({"question_id": 0}, "line 3: question 0 is reviewed again, after line 1"),
        ({"question_id": 99}, "question 99 is not among the 4 of the question file"),
        ({"category": "llava_bench_conv"}, "question 2 is conv here, complex in the question"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        again([changed(tmp_path, 2, **changes)], data=SAMPLES / "llava_bench")

    assert message in str(error.value)
    assert "review.jsonl" in str(error.value)


def test_a_line_cut_in_the_middle_is_named(tmp_path: Path) -> None:
    file = tmp_path / "review.jsonl"
    file.write_text(REVIEWS[0].read_text("utf-8")[:-40], encoding="utf-8")

    with pytest.raises(DataError, match=r"line 4: is no JSON .*; the file ends there"):
        again([file])


def test_an_answer_file_is_no_review_file() -> None:
    with pytest.raises(DataError, match=r"line 1: is no review.*answers must be judged before"):
        again([SAMPLES / "llava_bench" / "answers_gpt4.jsonl"])


def test_reviews_of_two_models_are_not_runs_of_one(tmp_path: Path) -> None:
    other = changed(tmp_path, 2, answer2_id="another")

    with pytest.raises(DataError, match=r"question 2 is about other answers.*score each model"):
        again([REVIEWS[1], other])


def test_nan_is_no_score(tmp_path: Path) -> None:
    file = changed(tmp_path, 1, content="nan 9\nBoth.", tuple=[float("nan"), 9.0])

    score = again([file], unparsable="exclude")

    assert (score.whole.official, score.whole.num_unparsable) == (86.5, 1)


def test_a_score_by_hand_is_taken_and_told(tmp_path: Path) -> None:
    file = changed(tmp_path, 1, tuple=[8.0, 9.0])

    score = again([file], data=SAMPLES / "llava_bench")

    assert score.whole.official == 92.6  # 31.5 / 34
    (note,) = score.notes
    assert "1 scores are not what the review's text gives (questions 1)" in note


def test_a_mark_on_a_readable_review_is_taken_and_told(tmp_path: Path) -> None:
    score = again([changed(tmp_path, 0, tuple=[-1, -1])], data=SAMPLES / "llava_bench")

    assert score.whole.num_unparsable == 2
    (note,) = score.notes
    assert "1 reviews are marked as unreadable though their text has a score line" in note


def test_lines_without_a_category_count_in_the_whole_unless_the_question_file_knows(
    tmp_path: Path,
) -> None:
    file = changed(tmp_path, 2, category=None)

    assert again([file]).categories["complex"].num_questions == 1
    assert again([file]).whole == again([REVIEWS[0]]).whole
    known = again([file], data=SAMPLES / "llava_bench")
    assert known.categories["complex"].num_questions == 2


# ---------------------------------------------------------------- real files


def test_the_official_questions_are_60_over_24_pictures() -> None:
    rules = wild(official_samples() / "llava_bench")

    assert Counter(q.category for q in rules.questions) == {"conv": 17, "detail": 15, "complex": 28}
    assert [q.question_id for q in rules.questions] == [str(number) for number in range(60)]
    assert len({q.image for q in rules.questions}) == len(rules.contexts) == 24
    assert {a.model_id for a in rules.references.values()} == {"gpt-4-0314"}


@pytest.mark.parametrize("reference", ["answers_gpt4.jsonl", "bard_0718.jsonl"])
def test_all_official_files_of_the_wild_fit_each_other(reference: str) -> None:
    rules = wild(official_samples() / "llava_bench", reference=reference)
    answers = {question: a.text for question, a in rules.references.items()}

    items = rules.judge_items(answers)

    assert len(items) == 60
    assert all(item.request.messages[1][1].count("[Assistant ") == 2 for item in items)


def test_all_official_files_of_coco_fit_each_other() -> None:
    rules = coco(official_samples() / "llava_bench_coco")

    items = rules.judge_items({question.question_id: "yes" for question in rules.questions})

    assert len(items) == 90
    assert Counter(q.category for q in rules.questions) == {"conv": 30, "detail": 30, "complex": 30}
    # No context of a question's picture is empty.
    assert all(rules.contexts[q.row["image"]].strip() for q in rules.questions)


def test_the_published_excerpt_scores_as_its_tuples_say() -> None:
    root = official_samples() / "llava_bench"
    tuples = [row["tuple"] for row in rows(root / "review_excerpt.jsonl")]

    score = again([root / "review_excerpt.jsonl"], data=root)

    assert (sum(t[0] for t in tuples), sum(t[1] for t in tuples)) == (67.0, 42.5)
    assert score.whole.official == 63.4  # 5.312 / 8.375 = 63.43 %
    assert (score.whole.num_questions, score.whole.num_missing) == (60, 52)
    assert score.notes == [
        "review_excerpt.jsonl is incomplete: 8 reviews; the question file has 60 questions"
    ]
