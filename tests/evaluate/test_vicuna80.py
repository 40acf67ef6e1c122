"""Vicuna-80 by its three methods: what is asked, and what the verdicts are worth."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scalesweep.benchmark_options import option_values
from scalesweep.errors import DataError
from scalesweep.evaluate.benchmarks.vicuna80 import Vicuna80, official_category
from scalesweep.evaluate.fastchat import points
from scalesweep.evaluate.judging.items import Reply
from scalesweep.evaluate.questions import Answer
from scalesweep.evaluate.scores import BenchmarkScore
from tests.evaluate.official import SAMPLES, official_samples

ROOT = SAMPLES / "vicuna80"
ANSWERS = {"1": "Try {eggs}.", "61": "a + b", "68": "Six.", "71": ""}
IDS = list(ANSWERS)


def vicuna(root: Path = ROOT, file: str = "question.jsonl", **options: Any) -> Vicuna80:
    return Vicuna80(root, file, option_values("vicuna80", options))


def again(file: Path, *more: Path, data: Path | None = None, **options: Any) -> BenchmarkScore:
    return Vicuna80.score_files(
        [file, *more], option_values("vicuna80", options), data=data, ignore=frozenset()
    )


def replies(texts: dict[str, str | None]) -> dict[str, Reply]:
    return {item: Reply(text=text, valid=text is not None) for item, text in texts.items()}


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def changed(tmp_path: Path, name: str, line: int, **changes: Any) -> Path:
    lines = rows(SAMPLES / name)
    lines[line] |= changes
    file = tmp_path / "saved.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    return file


# ---------------------------------------------------------------- questions and answers


def test_both_question_formats_ask_the_same() -> None:
    new, old = vicuna().questions, vicuna(file="question_v1.jsonl").questions

    assert [(q.question_id, q.text, q.category) for q in new] == [
        (q.question_id, q.text, q.category) for q in old
    ]
    assert new[0].image is None


def test_a_question_of_two_turns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "question.jsonl").write_text(
        json.dumps({"question_id": 1, "category": "writing", "turns": ["a", "b"]}) + "\n"
    )

    with pytest.raises(DataError, match="line 1: turns must hold one text"):
        _ = vicuna(tmp_path).questions


def test_answers_are_written_in_fastchats_format_and_read_back(tmp_path: Path) -> None:
    answers = {item: Answer(question_id=item, text=text) for item, text in ANSWERS.items()}

    vicuna().write_answers(tmp_path, answers, model_id="small")

    (file,) = tmp_path.iterdir()
    first = rows(file)[0]
    assert list(first) == ["question_id", "answer_id", "model_id", "choices", "tstamp"]
    assert (first["question_id"], first["model_id"]) == (1, "small")
    assert first["choices"] == [{"index": 0, "turns": ["Try {eggs}."]}]
    beside = vicuna(reference=str(file)).references
    assert {question: a.text for question, a in beside.items()} == ANSWERS


# ---------------------------------------------------------------- relative


def test_the_reviewer_is_asked_as_llavas_without_a_context() -> None:
    generic, coding, math, writing = (item.request for item in vicuna().judge_items(ANSWERS))

    system, user = generic.messages
    assert system[1].startswith("You are a helpful and precise assistant for checking")
    assert user[1].startswith(
        "[Question]\nHow can I learn to cook?\n\n"
        "[Assistant 1]\nBegin with soup.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nTry {eggs}.\n\n[End of Assistant 2]\n\n"
        "[System]\nWe would like to request your feedback on the performance of two AI assistants"
    )
    assert user[1].endswith("the responses were presented does not affect your judgment.\n\n")
    assert "evaluate the coding abilities" in coding.messages[1][1]
    assert "mathematical proficiency" in math.messages[1][1]
    assert writing.messages[1][1].split("[System]")[1] == user[1].split("[System]")[1]
    assert {(r.temperature, r.max_tokens) for r in (generic, coding, math, writing)} == {
        (0.2, 1024)
    }


def test_a_relative_score_names_its_reference_and_prints_both_readings() -> None:
    run = replies({"1": "9 8.5", "61": "8 0", "68": "10 2", "71": "7 9"})

    score = vicuna().score(ANSWERS, [run])

    # 19.5 / 34: 4.875 / 8.5
    assert score.whole.official == 57.4
    assert score.also["reference mean x 10"] == 85.0
    assert score.also["candidate mean x 10"] == 48.8  # 48.75 in binary is exact: half to even
    assert score.notes[0] == "reference: answers of gpt-3.5-turbo:20230327 (answer_gpt35.jsonl)"
    assert "the paper does not say how its Vicuna-80 numbers are made" in score.notes[1]
    assert score.num_empty == 1
    assert list(score.categories) == ["coding", "generic", "math", "writing"]


def test_the_tuple_on_the_last_line_is_an_option_for_math_alone() -> None:
    solved = "Let us solve it.\nThe scores are (10, 2)."
    run = replies({"1": solved, "61": "8 0", "68": solved, "71": "7 9"})

    first, last = (vicuna(math=math).score(ANSWERS, [run]) for math in ("first_line", "last_line"))

    assert (first.whole.num_unparsable, last.whole.num_unparsable) == (2, 1)
    assert first.whole.official == 53.8  # (9 - 2) / (15 - 2): 1.75 / 3.25
    assert last.whole.official == 41.7  # (11 - 1) / (25 - 1): 2.5 / 6
    assert "of math questions else the tuple on the last line" in last.rule
    assert vicuna(math="last_line").judge_items(ANSWERS)[2].is_valid(solved)
    assert not vicuna(math="last_line").judge_items(ANSWERS)[0].is_valid(solved)


def test_scores_entered_by_hand_count_and_are_told() -> None:
    score = again(SAMPLES / "vicuna80_review.jsonl", data=ROOT)

    assert score.whole.official == 57.4  # 19.5 / 34, math 10 and 2 by hand
    assert score.whole.num_unparsable == 0
    assert "1 scores are not what the review's text gives (questions 68)" in score.notes[0]
    # The tuple on the last line is what was entered by hand.
    by_tuple = again(SAMPLES / "vicuna80_review.jsonl", data=ROOT, math="last_line")
    assert by_tuple.whole == score.whole
    assert not any("by hand" in note for note in by_tuple.notes)


def test_old_reviews_get_the_official_categories_by_number() -> None:
    score = again(SAMPLES / "vicuna80_review.jsonl")

    assert list(score.categories) == ["coding", "generic", "math", "writing"]
    assert score.categories["coding"].official == 0.0
    assert any("4 reviews; the official file has 80 questions" in note for note in score.notes)
    assert "reference" not in score.options


def test_relative_reviews_are_written_and_score_as_the_replies_did(tmp_path: Path) -> None:
    run = replies({"1": "9 8.5\nx", "61": "8 0", "68": "Solve.", "71": "7 9"})
    score = vicuna().score(ANSWERS, [run])

    vicuna().write_reviews(tmp_path, ANSWERS, [run], judge_model="gpt-4")

    (file,) = tmp_path.iterdir()
    assert file.name == "vicuna80_gpt-4_run1.jsonl"
    assert (rows(file)[1]["category"], rows(file)[1]["answer1_id"]) == ("coding", "g61")
    assert again(file, data=ROOT).whole == score.whole


# ---------------------------------------------------------------- single


def test_a_rating_is_asked_as_fastchat_does() -> None:
    generic, coding, *_ = (item.request for item in vicuna(method="single").judge_items(ANSWERS))

    assert generic.messages[0] == ("system", "You are a helpful assistant.")
    assert generic.messages[1][1].endswith(
        "[Question]\nHow can I learn to cook?\n\n[The Start of Assistant's Answer]\n"
        "Try {eggs}.\n[The End of Assistant's Answer]"
    )
    assert (
        "[The Start of Reference Answer]\ndef add(a, b):\n    return a + b\n"
        "[The End of Reference Answer]" in coding.messages[1][1]
    )
    assert {(r.temperature, r.max_tokens) for r in (generic, coding)} == {(0.0, 2048)}


def test_the_mean_rating_leaves_unreadable_ones_out_in_either_mode() -> None:
    run = replies({"1": "[[8]]", "61": "[[9.5]]", "68": "[0]", "71": "none"})

    for unparsable in ("strict", "exclude"):
        score = vicuna(method="single", unparsable=unparsable).score(ANSWERS, [run])
        assert score.whole.official == 58.3  # 17.5 / 3
        assert score.also == {"mean rating, 1 to 10": 5.83}
        assert (score.whole.num_unparsable, score.categories["writing"].official) == (1, None)
        assert score.items == pytest.approx({"1": 0.8, "61": 0.95, "68": 0.0})


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        ("relative", {"method", "unparsable", "math", "reference"}),
        ("single", {"method", "solutions"}),
        ("pairwise", {"method", "reference", "solutions"}),
    ],
)
def test_only_options_that_the_method_reads_are_named(method: str, shown: set[str]) -> None:
    assert set(vicuna(method=method).score(ANSWERS, []).options) == shown


def test_saved_ratings_score_as_their_file_says() -> None:
    score = again(SAMPLES / "vicuna80_single.jsonl", data=ROOT, method="single")

    assert (score.whole.official, score.judge_model, score.notes) == (58.3, "gpt-4", [])


def test_ratings_are_written_as_fastchats_records(tmp_path: Path) -> None:
    run = replies({"1": "[[8]]", "61": "[[9.5]]", "68": None, "71": "none"})
    rules = vicuna(method="single")

    rules.write_reviews(tmp_path, ANSWERS, [run], judge_model="gpt-4")

    (file,) = tmp_path.iterdir()
    assert file.name == "vicuna80_gpt-4_single_run1.jsonl"
    written = rows(file)
    assert list(written[0]) == [
        "question_id",
        "model",
        "judge",
        "user_prompt",
        "judgment",
        "score",
        "turn",
        "tstamp",
    ]
    assert [(row["question_id"], row["score"]) for row in written] == [(1, 8), (61, 9.5), (71, -1)]
    assert written[1]["judge"] == ["gpt-4", "single-math-v1"]
    assert written[0]["user_prompt"] == rules.judge_items(ANSWERS)[0].request.messages[1][1]
    score = again(file, data=ROOT, method="single")
    assert score.whole == rules.score(ANSWERS, [run]).whole


# ---------------------------------------------------------------- pairwise


def test_each_question_is_played_twice_with_sides_swapped() -> None:
    first, second, *_ = vicuna(method="pairwise").judge_items(ANSWERS)

    assert (first.item, second.item) == ("1 g1", "1 g2")
    assert first.request.messages[1][1] == (
        "[User Question]\nHow can I learn to cook?\n\n"
        "[The Start of Assistant A's Answer]\nTry {eggs}.\n[The End of Assistant A's Answer]\n\n"
        "[The Start of Assistant B's Answer]\nBegin with soup.\n[The End of Assistant B's Answer]"
    )
    assert second.request.messages[1][1] == (
        "[User Question]\nHow can I learn to cook?\n\n"
        "[The Start of Assistant A's Answer]\nBegin with soup.\n[The End of Assistant A's Answer]"
        "\n\n[The Start of Assistant B's Answer]\nTry {eggs}.\n[The End of Assistant B's Answer]"
    )
    assert first.request.messages[0][1].startswith("Please act as an impartial judge")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("model_1", "model_1", 1.0),
        ("model_2", "model_2", 0.0),
        ("model_1", "model_2", 0.5),
        ("tie", "model_1", 0.5),
        ("model_1", "tie", 0.5),
        ("tie", "tie", 0.5),
        (None, "model_1", None),
        ("tie", None, None),
    ],
)
def test_what_two_games_are_worth(first: str | None, second: str | None, expected: Any) -> None:
    assert points(first, second) == expected


def test_the_win_rate_counts_ties_as_halves_and_drops_errors() -> None:
    run = replies(
        {
            "1 g1": "[[A]]",
            "1 g2": "[[B]]",  # won on both sides
            "61 g1": "[[A]]",
            "61 g2": "[[A]]",  # A twice: a disagreement
            "68 g1": "[[B]]",
            "68 g2": None,  # no reply to the second game
            "71 g1": "[[C]]",
            "71 g2": "unsure",
        }
    )

    score = vicuna(method="pairwise").score(ANSWERS, [run])

    assert score.whole.official == 75.0  # (1 + 0.5) / 2
    assert score.also == {"win rate": 50.0, "loss rate": 0.0, "tie rate": 50.0}
    assert (score.whole.num_missing, score.whole.num_unparsable) == (1, 1)
    assert score.notes[0] == "baseline: answers of gpt-3.5-turbo:20230327 (answer_gpt35.jsonl)"


def test_saved_games_score_as_fastchat_prints_them() -> None:
    score = again(SAMPLES / "vicuna80_pair.jsonl", data=ROOT, method="pairwise")

    assert score.whole.official == 50.0  # won, tie, lost; one error
    assert score.also == {"win rate": 33.3, "loss rate": 33.3, "tie rate": 33.3}
    assert score.whole.num_unparsable == 1


def test_games_are_written_as_fastchats_records(tmp_path: Path) -> None:
    texts = {f"{item} {game}": "[[A]]" for item in IDS for game in ("g1", "g2")}
    run = replies(texts | {"71 g2": "unsure"})
    rules = vicuna(method="pairwise")

    rules.write_reviews(tmp_path, ANSWERS, [run], judge_model="gpt-4")

    (file,) = tmp_path.iterdir()
    first, *_, last = rows(file)
    assert file.name == "vicuna80_gpt-4_pair_run1.jsonl"
    assert (first["g1_winner"], first["g2_winner"]) == ("model_1", "model_2")
    assert (last["g1_winner"], last["g2_winner"]) == ("model_1", "error")
    assert first["model_2"] == "gpt-3.5-turbo:20230327"
    assert again(file, data=ROOT, method="pairwise").whole == rules.score(ANSWERS, [run]).whole


# ---------------------------------------------------------------- saved files that do not fit


def test_a_file_of_another_method_is_told_apart() -> None:
    with pytest.raises(DataError, match="method single, not relative; add --option method=single"):
        again(SAMPLES / "vicuna80_single.jsonl")
    with pytest.raises(DataError, match="method relative, not pairwise"):
        again(SAMPLES / "vicuna80_review.jsonl", method="pairwise")


def test_records_of_several_models_are_refused(tmp_path: Path) -> None:
    file = changed(tmp_path, "vicuna80_single.jsonl", 1, model="large")

    with pytest.raises(DataError, match="model is large, small; keep the lines of one model"):
        again(file, method="single")


@pytest.mark.parametrize(
    ("name", "method", "changes", "message"),
    [
        ("vicuna80_single.jsonl", "single", {"score": "8"}, "line 2: score is '8', no number"),
        ("vicuna80_single.jsonl", "single", {"turn": 2}, "line 2: turn 2: Vicuna-80 has one turn"),
        ("vicuna80_pair.jsonl", "pairwise", {"g1_winner": "A"}, "line 2: winner A is none of"),
        ("vicuna80_pair.jsonl", "pairwise", {"question_id": 5}, "question 5 is not among the 4"),
    ],
)
def test_a_bad_record_is_named(
    tmp_path: Path, name: str, method: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as error:
        again(changed(tmp_path, name, 1, **changes), data=ROOT, method=method)

    assert message in str(error.value)


def test_a_rating_that_its_text_does_not_give_is_taken_and_told(tmp_path: Path) -> None:
    score = again(changed(tmp_path, "vicuna80_single.jsonl", 1, score=10), method="single")

    assert score.whole.official == 60.0  # 18 / 3
    assert "1 scores are not what the judgment's text gives (questions 61)" in score.notes[1]


# ---------------------------------------------------------------- real files


def test_the_official_question_files_agree_and_have_80_questions() -> None:
    root = official_samples() / "vicuna80"

    new, old = vicuna(root).questions, vicuna(root, "question_v1.jsonl").questions

    assert [(q.question_id, q.text, q.category) for q in new] == [
        (q.question_id, q.text, q.category) for q in old
    ]
    assert [q.question_id for q in new] == [str(number) for number in range(1, 81)]
    assert Counter(q.category for q in new) == {
        **dict.fromkeys(
            ("generic", "knowledge", "roleplay", "common-sense", "fermi", "counterfactual"), 10
        ),
        "coding": 7,
        "math": 3,
        "writing": 10,
    }
    assert all(official_category(q.question_id) == q.category for q in new)


@pytest.mark.parametrize("reference", ["answer_gpt35", "answer_llama-13b", "answer_alpaca-13b"])
@pytest.mark.parametrize("method", ["relative", "single", "pairwise"])
def test_all_official_files_fit_each_other(reference: str, method: str) -> None:
    rules = vicuna(official_samples() / "vicuna80", reference=f"{reference}.jsonl", method=method)
    answers = {question: a.text for question, a in rules.references.items()}

    items = rules.judge_items(answers)

    assert len(items) == (160 if method == "pairwise" else 80)
    assert sorted(rules.solutions) == [str(number) for number in range(61, 71)]


def test_the_reviewer_of_the_published_reviews_was_asked_the_same() -> None:
    """Their prompt.jsonl says in templates what LLaVA's rule.json says in pieces."""
    root = official_samples() / "vicuna80"
    prompts = {row["prompt_id"]: row for row in rows(root / "prompt.jsonl")}
    rules = vicuna(root, reference="answer_llama-13b.jsonl")
    answers = {q.question_id: f"answer {q.question_id}" for q in rules.questions}

    for question, item in zip(rules.questions, rules.judge_items(answers), strict=True):
        prompt = prompts[{"coding": 2, "math": 3}.get(question.category, 1)]
        (_, system), (_, user) = item.request.messages
        assert system == prompt["system_prompt"]
        assert user == prompt["prompt_template"].format(
            question=question.text,
            answer_1=rules.references[question.question_id].text,
            answer_2=answers[question.question_id],
            prompt=prompt["defaults"]["prompt"],
        )


def test_the_published_reviews_score_as_published() -> None:
    root = official_samples() / "vicuna80"

    score = again(root / "review_llama_alpaca-13b.jsonl", data=root)

    assert score.whole.official == 115.2
    assert score.also["reference mean x 10"] == 65.6
    assert score.also["candidate mean x 10"] == 75.6
    assert "3 scores are not what the review's text gives (questions 68, 69, 70)" in score.notes[0]
