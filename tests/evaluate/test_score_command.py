"""The verb `score`: what it takes, what it refuses, what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalesweep import cli
from scalesweep.errors import ConfigError
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
