"""The verb `score`: what it takes, what it refuses, what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scalesweep import cli
from scalesweep.errors import ConfigError
from scalesweep.evaluate.benchmarks.registry import benchmark
from scalesweep.evaluate.score_command import Wanted, parsed_options, percent, run
from tests.evaluate.official import SAMPLES, official_samples

REVIEWS = [str(SAMPLES / f"llava_bench_review_{number}.jsonl") for number in (1, 2)]
DATA = ["--data", str(SAMPLES / "llava_bench")]

PAGE = """\
LLaVA-Bench (In-the-Wild): 84.9 ± 8.0 (standard error over questions)

Rule          100 x mean candidate / mean reference, both means rounded to 3
              decimals first, as LLaVA's summarize_gpt_review.py; score line
              read as LLaVA's parse_score does; reviews that cannot be read stay
              in the means as -1 and -1, as there; of several judge runs the
              mean of what each prints.
Chosen        unparsable=strict, parsing=llava
2 judge runs  86.0, 83.8; spread 1.10 (population standard deviation)
Counted       4 questions, 0 missing, 1 unparsable

          score   ± s.e.   questions   missing   unparsable
───────────────────────────────────────────────────────────
whole      84.9      8.0           4         -            1
complex    91.5     10.5           2         -            -
conv       70.8                    1         -            -
detail     87.5                    1         -            1

also      reference mean x 10   candidate mean x 10
───────────────────────────────────────────────────
whole                    73.8                  62.5
complex                  87.5                  80.0
conv                     85.0                  60.0
detail                   80.0                  70.0
"""


def score(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command line prints, which must succeed."""
    status = cli.run(["score", *words])
    shown = capsys.readouterr()
    assert (status, shown.err) == (0, "")
    return shown.out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one message of a line that must be refused."""
    status = cli.run(["score", *words])
    shown = capsys.readouterr()
    assert (status, shown.out, shown.err.count("\n")) == (2, "", 1)
    return shown.err.removeprefix("scalesweep: ").rstrip()


def test_the_page_says_rule_choices_runs_categories_and_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = score(capsys, "llava_bench", *REVIEWS, *DATA)

    assert page == PAGE
    assert all(len(line) <= 80 for line in page.splitlines())


def test_an_incomplete_file_is_told_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = score(capsys, "llava_bench", REVIEWS[0])

    assert "Note         llava_bench_review_1.jsonl is incomplete: 4 reviews; the" in page


def test_options_and_ignored_questions_are_taken_from_the_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--option", "unparsable=exclude", "--option=parsing=lmms_eval", "--ignore", "0,3"]

    page = score(capsys, "llava_bench", REVIEWS[0], *DATA, *words)

    # 1 reads (8, 9), 2 has (10, 7.5): 16.5 / 18
    assert page.startswith("LLaVA-Bench (In-the-Wild): 91.7 ")
    assert "Chosen       unparsable=exclude, parsing=lmms_eval" in page
    assert "2 questions, 0 missing, 0 unparsable" in page


def test_json_has_the_score_and_what_every_question_adds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = json.loads(score(capsys, "llava_bench", *REVIEWS, *DATA, "--json"))

    assert (found["benchmark"], found["official"], found["runs"]) == (
        "llava_bench",
        84.9,
        [86.0, 83.8],
    )
    assert set(found["items"]) == {"0", "1", "2", "3"}
    assert sum(found["items"].values()) / 4 == pytest.approx(found["score"])
    assert found["categories"]["detail"]["num_unparsable"] == 1
    assert found["num_empty"] is None


def test_each_benchmark_has_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    grades = str(SAMPLES / "mm_vet_grades.json")
    ratings = str(SAMPLES / "vicuna80_single.jsonl")

    vet = score(capsys, "mm_vet", grades, "--data", str(SAMPLES / "mm_vet" / "mm-vet.json"))
    vicuna = score(capsys, "vicuna80", ratings, "--option", "method=single")

    assert vet.startswith("MM-Vet: 52.5 ± ")
    assert "capability sets" in vet
    assert "math_ocr" in vet
    assert vicuna.startswith("Vicuna-80: 58.3 ± ")
    assert "whole" in vicuna.split("also")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "score: name a benchmark and files of one model"),
        (["llava"], "score llava: no such benchmark; did you mean llava_bench? choose one of"),
        (["mm_vet"], "score mm_vet: name the files of one model"),
        (["mm_vet", "nowhere.json"], "nowhere.json: is no file"),
        (["llava_bench", REVIEWS[0], REVIEWS[0]], "is named twice; several files are several"),
        (["llava_bench", REVIEWS[0], "--fast"], "--fast: score takes a benchmark, files, --data"),
        (["llava_bench", REVIEWS[0], "--data"], "--data: needs a value"),
        (["llava_bench", REVIEWS[0], "--data="], "--data: empty value"),
        (["llava_bench", REVIEWS[0], "--data", "nowhere"], "--data=nowhere: is not there"),
        (["llava_bench", REVIEWS[0], "--data", str(SAMPLES)], "there is no questions.jsonl"),
        (["llava_bench", REVIEWS[0], "--option", "strict"], "write --option NAME=VALUE"),
        (
            ["llava_bench", REVIEWS[0], "--option", "strict=1"],
            "--option strict=1: llava_bench has no such option; it has context, reference, unpars",
        ),
        (
            ["llava_bench", REVIEWS[0], "--option", "unparsable=zero"],
            "--option unparsable=zero: choose one of strict, exclude",
        ),
        (["mini_vqa", REVIEWS[0]], "score mini_vqa: no saved file of it can be scored"),
    ],
)
def test_a_wrong_line_is_refused_with_the_way_out(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in refused(capsys, *words)


def test_a_bad_line_of_a_file_is_named_in_one_message(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "cut.jsonl"
    file.write_text(Path(REVIEWS[0]).read_text("utf-8")[:-40], encoding="utf-8")

    assert f"{file}, line 4: is no JSON" in refused(capsys, "llava_bench", str(file))


def test_words_become_values_of_the_options_kinds() -> None:
    assert parsed_options("mmlu", {"shots": "0"}) == {"shots": 0}
    with pytest.raises(ConfigError, match="--option shots=few: must be a whole number"):
        parsed_options("mmlu", {"shots": "few"})


def test_percents_have_one_decimal_or_as_many_as_they_have() -> None:
    assert [percent(value) for value in (84.9, 50.0, 5.83, None)] == [
        "84.9",
        "50.0",
        "5.83",
        "no score",
    ]


def test_help_names_the_verb_within_80_columns() -> None:
    lines = cli.HELP.splitlines()

    at = next(number for number, line in enumerate(lines) if line.startswith("  score "))

    assert all(len(line) <= 80 for line in lines[at : at + 2])
    assert "--option NAME=VALUE" in lines[at + 1]


def test_published_reviews_print_their_published_summary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = official_samples() / "vicuna80"

    page = score(
        capsys, "vicuna80", str(root / "review_llama_alpaca-13b.jsonl"), "--data", str(root)
    )

    assert page.startswith("Vicuna-80: 115.2 ± ")
    whole = next(line for line in page.split("also")[1].splitlines() if line.startswith("whole"))
    assert whole.split() == ["whole", "65.6", "75.6"]


def test_the_same_is_printed_twice() -> None:
    wanted = Wanted(benchmark="llava_bench", files=[Path(name) for name in REVIEWS])

    assert run(wanted, as_json=True) == run(wanted, as_json=True)


# ---------------------------------------------------------------- files that do not fit


def lines_of(file: Path, *rows: dict[str, Any]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def review(question: int | str, **changes: Any) -> dict[str, Any]:
    row = {"question_id": question, "answer1_id": "r", "answer2_id": "c", "content": "8 6\nWhy."}
    return row | changes


def rating(question: int, model: str = "A", **changes: Any) -> dict[str, Any]:
    row = {"question_id": question, "model": model, "judgment": "[[9]]", "score": 9}
    return row | {"judge": ["gpt-4", "single-v1"], "turn": 1} | changes


def game(question: int, model: str, **changes: Any) -> dict[str, Any]:
    row = {"question_id": question, "model_1": model, "model_2": "gpt-3.5", "turn": 1}
    for number in ("g1", "g2"):
        row |= {f"{number}_winner": "tie", f"{number}_judgment": "[[C]]"}
    return row | changes


@pytest.mark.parametrize(
    ("method", "rows", "message"),
    [
        ("single", ([rating(1)], [rating(1, "B")]), "is of B, "),
        ("pairwise", ([game(1, "A")], [game(1, "B")]), "is of B and gpt-3.5, "),
        (
            "single",
            ([rating(1, user_prompt="x: yes")], [rating(1, user_prompt="x: no")]),
            "question 1 is about other answers than in",
        ),
        (
            "pairwise",
            ([game(1, "A", g1_user_prompt="yes")], [game(1, "A", g1_user_prompt="no")]),
            "question 1 is about other answers than in",
        ),
        ("single", ([rating(1)], [rating(2)]), "shares no question with"),
        ("relative", ([review(1)], [review(2, answer2_id="d")]), "shares no question with"),
        (
            "relative",
            ([review(1)], [review(1), review(2)], [review(1), review(2, answer2_id="d")]),
            "question 2 is about other answers than in",
        ),
    ],
)
def test_judgements_of_two_models_are_not_runs_of_one(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    method: str,
    rows: tuple[list[dict[str, Any]], ...],
    message: str,
) -> None:
    files = [lines_of(tmp_path / f"{n}.jsonl", *found) for n, found in enumerate(rows)]

    said = refused(capsys, "vicuna80", *files, "--option", f"method={method}")

    assert said.startswith(f"{files[-1]}: ")
    assert message in said
    assert "several files are judge runs of one model's answers" in said


def test_grades_of_other_questions_are_not_runs_of_one_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for number, file in enumerate(files):
        file.write_text(json.dumps({f"v1_{number}": {"score": [1.0]}}), encoding="utf-8")

    assert "b.json: shares no question with" in refused(capsys, "mm_vet", *map(str, files))


@pytest.mark.parametrize(
    ("name", "category", "known"),
    [
        ("llava_bench", "fermi", "llava_bench_conv, llava_bench_detail, llava_bench_complex"),
        ("llava_bench", "conv", "llava_bench_conv, llava_bench_detail, llava_bench_complex"),
        ("llava_bench_coco", "llava_bench_conv", "conv, detail, complex"),
        ("vicuna80", "llava_bench_conv", "generic, knowledge, roleplay"),
    ],
)
def test_reviews_of_another_benchmark_are_refused_by_their_category(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, category: str, known: str
) -> None:
    file = lines_of(tmp_path / "a.jsonl", review(1, category=category))

    said = refused(capsys, name, file)

    assert f"{file}, line 1: category {category} is none of {known}" in said
    assert "this is a review of another benchmark" in said


def test_more_reviews_than_there_are_questions_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = lines_of(tmp_path / "a.jsonl", *(review(number) for number in range(1, 81)))

    notes = json.loads(score(capsys, "llava_bench", file, "--json"))["notes"]

    assert notes == [
        "a.jsonl may be of another benchmark: 80 reviews; the official file has 60 questions"
    ]


def test_a_grade_that_is_there_twice_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"v1_0": {"score": [1.0]}, "v1_0": {"score": [0.0]}}', encoding="utf-8")

    assert f"{file}: v1_0 is there twice" in refused(capsys, "mm_vet", str(file))


LONG = "9" * 5000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("llava_bench", json.dumps(review(1, tuple=[10**400, 2])), "[1000000000"),
        ("llava_bench", json.dumps(review(1, tuple=[1e308, 1e308])), "is beyond 1000000"),
        ("llava_bench", json.dumps(review(1, tuple=[float("inf"), 1])), "is beyond 1000000"),
        ("llava_bench", f'{{"question_id": {LONG}}}', "holds a number of too many digits"),
        ("llava_bench", "[" * 100_000, "holds too many brackets within each other"),
        ("vicuna80", json.dumps(review(LONG)), "question_id has 5000 characters"),
        ("mm_vet", f'{{"v1_0": {{"score": [{LONG}]}}}}', "holds a number of too many digits"),
        ("mm_vet", "[" * 100_000, "holds too many brackets within each other"),
        ("mm_vet", '{"v1_0": {"score": [%s]}}' % ("9" * 400), "is no number from 0 to 1"),
    ],
)
def test_a_number_or_a_depth_that_nobody_means_is_one_short_message(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, text: str, message: str
) -> None:
    file = tmp_path / "a.json"
    file.write_text(text + "\n", encoding="utf-8")

    said = refused(capsys, name, str(file))

    assert said.startswith(f"{file}")
    assert message in said
    assert len(said) < len(str(file)) + 200


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 10**400, 1e7])
def test_a_rating_that_is_no_judgement_is_refused_by_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, value: float
) -> None:
    file = lines_of(tmp_path / "a.jsonl", rating(1), rating(2, score=value))

    said = refused(capsys, "vicuna80", file, "--option", "method=single")

    assert f"{file}, line 2: score " in said
    assert "is beyond 1000000, no rating" in said


def test_half_a_character_in_a_name_is_refused_and_not_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = lines_of(tmp_path / "a.jsonl", review("a\ud800"))

    assert f"{file}: a name has half a character" in refused(capsys, "llava_bench", file, "--json")


def test_blank_lines_at_the_end_say_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(review(1)) + "\n \n\t\r\n\n", encoding="utf-8")

    assert "1 questions, 0 missing" in score(capsys, "llava_bench", str(file))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["llava_bench", "--option", "context=x"], "takes unparsable, parsing"),
        (["llava_bench", "--option", "reference=x"], "takes unparsable, parsing"),
        (["vicuna80", "--option", "solutions=x"], "takes method, unparsable, math"),
        (["vicuna80", "--option", "reference=x"], "takes method, unparsable, math"),
        (["mmlu", "--option", "shots=1"], "score mmlu takes no option"),
        (["mmlu", "--option", "dev=x"], "score mmlu takes no option"),
        (
            ["vicuna80", "--option=method=single", "--option=unparsable=exclude"],
            "--option unparsable=exclude: changes nothing about saved files; score vicuna80 takes "
            "method",
        ),
        (["vicuna80", "--option=method=pairwise", "--option=math=last_line"], "takes method"),
    ],
)
def test_an_option_without_effect_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    said = refused(capsys, *words, REVIEWS[0])

    assert "changes nothing about saved files" in said
    assert message in said


MMBENCH = ["--data", str(SAMPLES / "mmbench" / "own_dev.tsv")]


@pytest.mark.parametrize("name", ["mmbench", "mmlu", "llava_bench", "mm_vet", "results"])
@pytest.mark.parametrize(
    ("ignore", "message"),
    [
        (None, "--ignore: leaves no question out of which a score could be made"),
        ("nothing/1", "--ignore=nothing/1: no such question in these files"),
    ],
)
def test_ignoring_what_is_not_there_or_everything_is_refused(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    ignore: str | None,
    message: str,
) -> None:
    words, ids = {
        "mmbench": mmbench_answers,
        "mmlu": mmlu_answers,
        "llava_bench": lambda _: (["llava_bench", REVIEWS[0]], ["0", "1", "2", "3"]),
        "mm_vet": lambda _: (["mm_vet", str(SAMPLES / "mm_vet_grades.json")], grade_ids()),
        "results": mmlu_results,
    }[name](tmp_path)

    assert refused(capsys, *words, "--ignore", ignore or ",".join(ids)) == message


def grade_ids() -> list[str]:
    return list(json.loads((SAMPLES / "mm_vet_grades.json").read_text("utf-8")))


def mmbench_answers(folder: Path) -> tuple[list[str], list[str]]:
    questions = benchmark("mmbench", SAMPLES / "mmbench", "own_dev.tsv", {}).questions
    rows = [{"question_id": int(q.question_id), "text": q.answer} for q in questions]
    file = lines_of(folder / "a.jsonl", *rows)
    return ["mmbench", file, *MMBENCH], [q.question_id for q in questions]


def mmlu_answers(folder: Path) -> tuple[list[str], list[str]]:
    questions = benchmark("mmlu", SAMPLES / "mmlu", "test", {"shots": 0}).questions
    rows = [{"question_id": q.question_id, "text": q.answer} for q in questions]
    file = lines_of(folder / "a.jsonl", *rows)
    words = ["mmlu", file, "--data", str(SAMPLES / "mmlu")]
    return words, [q.question_id for q in questions]


def mmlu_results(folder: Path) -> tuple[list[str], list[str]]:
    file = folder / "philosophy.csv"
    file.write_text("0,m_correct\nq,True\nq,False\n", encoding="utf-8")
    return ["mmlu", str(file)], ["philosophy/0", "philosophy/1"]


@pytest.mark.parametrize("reply", ["cannot say", "0 7\nWhy."])
def test_a_judge_run_without_a_number_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, reply: str
) -> None:
    files = [
        lines_of(tmp_path / "a.jsonl", review(1), review(2)),
        lines_of(tmp_path / "b.jsonl", review(1, content=reply), review(2, content=reply)),
    ]

    page = json.loads(score(capsys, "llava_bench", *files, "--option=unparsable=exclude", "--json"))

    assert page["runs"] == [75.0]
    assert page["notes"][-1].startswith("1 of 2 judge runs without a number: no verdict of it ")


def test_a_judge_run_without_a_rating_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = [
        lines_of(tmp_path / "a.jsonl", rating(1)),
        lines_of(tmp_path / "b.jsonl", rating(1, score=-1, judgment="none")),
    ]

    page = json.loads(score(capsys, "vicuna80", *files, "--option=method=single", "--json"))

    assert (page["runs"], page["options"]) == ([90.0], {"method": "single"})
    assert page["notes"][-1].startswith("1 of 2 judge runs without a number")
