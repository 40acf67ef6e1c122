"""MMLU's official tables become prompts to the letter, and letters become pooled averages."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pytest

from scalesweep.errors import ConfigError, DataError
from scalesweep.evaluate.benchmarks.base import Benchmark
from scalesweep.evaluate.benchmarks.mmlu import Mmlu, printed
from scalesweep.evaluate.benchmarks.mmlu_subjects import CATEGORIES, NUM_QUESTIONS, SUBCATEGORIES
from scalesweep.evaluate.benchmarks.registry import benchmark
from scalesweep.evaluate.questions import Answer
from scalesweep.evaluate.scores import BenchmarkScore
from tests.evaluate.official import SAMPLES, official_samples

ROOT = SAMPLES / "mmlu"
IDS = ["college_mathematics/0", "college_mathematics/1", "high_school_physics/0"]
IDS += [f"philosophy/{number}" for number in range(5)]


def sample(root: Path = ROOT, *, shots: int = 3, dev: str = "dev") -> Benchmark:
    return benchmark("mmlu", root, "test", {"shots": shots, "dev": dev})


def test_questions_come_by_subject_in_the_order_of_the_rows() -> None:
    questions = sample().questions

    assert [question.question_id for question in questions] == IDS
    assert [question.answer for question in questions] == list("CCDABCBA")
    assert questions[-1].category == "philosophy"


def test_the_header_has_two_spaces_before_the_subject() -> None:
    letters = sample().questions[0].letters

    assert letters is not None
    assert letters.header == (
        "The following are multiple choice questions (with answers) about  college mathematics.\n\n"
    )


def test_shots_are_dev_rows_in_file_order_with_their_answers() -> None:
    letters = sample(shots=2).questions[-1].letters

    assert letters is not None
    assert letters.shots == (
        "Who wrote the Republic?\nA. Plato\nB. Kant\nC. Hume\nD. Mill\nAnswer: A\n\n",
        "Who wrote the Critique of Pure Reason?\n"
        "A. Plato\nB. Kant\nC. Hume\nD. Mill\nAnswer: B\n\n",
    )


def test_the_question_ends_without_a_space_and_none_stays_a_word() -> None:
    letters = sample().questions[1].letters

    assert letters is not None
    assert letters.question == (
        'Let f be the map\nx -> x, "the identity".\nWhat is f(3)?\n'
        "A. 1\nB. 2\nC. 3\nD. None\nAnswer:"
    )
    assert "\nA. None\nB. 0\n" in letters.shots[2]
    assert letters.shots[1].startswith("What is 0.50 x 2?\n")


def test_zero_shots_need_no_dev_files(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "test", tmp_path / "test")

    letters = sample(tmp_path, shots=0).questions[0].letters

    assert letters is not None
    assert letters.shots == ()
    with pytest.raises(DataError, match=r"college_mathematics_dev\.csv: cannot be read"):
        _ = sample(tmp_path, shots=1).questions


def test_more_shots_than_dev_has_are_refused() -> None:
    with pytest.raises(DataError, match=r"has 3 questions, evaluation\.options\.mmlu\.shots=4"):
        _ = sample(shots=4).questions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("question,A,B,C,D,answer\n", r"line 1: 6 cells, the last one \['answer'\]"),
        ("q,1,2,3,4,A\nq,1,2,3,B\n", r"line 2: 5 cells"),
        ("q,1,2,3,4,2\n", r"line 1: 6 cells, the last one \['2'\]"),
        ('q,1,2,3,"4,A\n', "cannot be read"),
        ("", "holds no question"),
    ],
    ids=["header", "five cells", "answer index", "open quote", "empty"],
)
def test_a_table_in_another_layout_is_refused_by_line(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "anatomy_test.csv").write_text(content, encoding="utf-8")

    with pytest.raises(DataError, match=message):
        _ = sample(tmp_path, shots=0).questions


def test_a_subject_that_is_none_of_the_57_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "cooking_test.csv").write_text("q,1,2,3,4,A\n", encoding="utf-8")

    with pytest.raises(DataError, match="cooking is none of MMLU's 57 subjects"):
        _ = sample(tmp_path, shots=0).questions
    with pytest.raises(DataError, match=r"holds no <subject>_test\.csv"):
        _ = sample(tmp_path / "test", shots=0).questions


def test_all_57_subjects_are_in_one_of_17_subcategories_and_four_categories() -> None:
    within = [name for names in CATEGORIES.values() for name in names]

    assert len(SUBCATEGORIES) == 57
    assert len(within) == len(set(within)) == 17
    assert set(SUBCATEGORIES.values()) == set(within)
    # As the paper of MMLU has it (arXiv:2009.03300, table of subjects).
    counts = Counter(
        category
        for name in SUBCATEGORIES.values()
        for category, names in CATEGORIES.items()
        if name in names
    )
    assert [counts[category] for category in CATEGORIES] == [18, 13, 12, 14]


# Right: mathematics 1 of 2, physics 1 of 1, philosophy 2 of 5.
ANSWERS = dict(zip(IDS, ["C", "A", "D", "A", "B", "D", "D", "D"], strict=True))


def test_averages_are_pooled_over_questions_and_the_macro_mean_has_its_own_name() -> None:
    score = sample().score(ANSWERS, [])

    assert score.whole.score == 4 / 8
    assert score.whole.official == 50.0
    assert {name: part.official for name, part in score.categories.items()} == {
        "STEM": 66.7,  # 2 of 3
        "humanities": 40.0,
    }
    assert {n: p.official for n, p in score.other_parts["subcategories"].items()} == {
        "math": 50.0,
        "philosophy": 40.0,
        "physics": 100.0,
    }
    assert {n: p.num_questions for n, p in score.other_parts["subjects"].items()} == {
        "college_mathematics": 2,
        "high_school_physics": 1,
        "philosophy": 5,
    }
    # (1/2 + 1/1 + 2/5) / 3 = 0.6333
    assert score.also == {"mean of the subjects (macro)": 63.3}
    assert score.notes == ["3 of 57 subjects"]
    # standard deviation of four ones and four zeros, n - 1: sqrt(2/7); over sqrt(8)
    assert score.whole.standard_error == pytest.approx(math.sqrt(2 / 7 / 8))


def test_a_missing_answer_is_missing_and_not_wrong() -> None:
    score = sample().score({k: v for k, v in ANSWERS.items() if k != "philosophy/4"}, [])

    assert score.whole.score == 4 / 7
    assert (score.whole.num_questions, score.whole.num_missing) == (8, 1)
    assert score.categories["humanities"].num_missing == 1
    assert score.categories["STEM"].num_missing == 0
    assert "philosophy/4" not in score.items


def test_without_an_answer_to_a_subject_there_is_no_mean_of_the_subjects() -> None:
    score = sample().score({k: v for k, v in ANSWERS.items() if "physics" not in k}, [])

    assert score.whole.score == 3 / 7
    assert score.also == {"mean of the subjects (macro)": None}
    assert score.notes == [
        "3 of 57 subjects",
        "1 of 3 subjects have no answer, so there is no mean of the subjects",
    ]


def test_a_text_that_is_no_letter_is_wrong_and_counted() -> None:
    score = sample().score({**ANSWERS, "philosophy/0": "Socrates", "philosophy/1": " "}, [])

    assert score.whole.score == 2 / 8
    assert (score.whole.num_unparsable, score.num_empty) == (2, 1)
    assert score.other_parts["subjects"]["philosophy"].num_unparsable == 2


@pytest.mark.parametrize(
    ("right", "of", "percent"),
    [
        (7836, 14042, 55.8),  # prints 0.558
        (1, 3, 33.3),
        (2, 3, 66.7),
        (1, 16, 6.2),  # 0.0625 prints 0.062: half to even
    ],
)
def test_the_official_number_is_what_the_script_prints(right: int, of: int, percent: float) -> None:
    assert printed(right / of) == percent


def chosen(letter: str, **log_probs: float) -> Answer:
    return Answer(question_id="", text=letter, log_probs=log_probs, shots=3)


def test_results_are_written_as_the_official_script_writes_them(tmp_path: Path) -> None:
    never = float("-inf")
    halves = {"A": -3.0, "B": never, "C": -3.0, "D": never}
    answers = {item: chosen("C", **halves) for item in IDS[:3]}

    sample().write_answers(tmp_path, answers, model_id="owner/mini")

    folder = tmp_path / "mmlu" / "results_owner_mini"
    assert sorted(file.name for file in folder.iterdir()) == [
        "college_mathematics.csv",
        "high_school_physics.csv",  # philosophy is not answered
    ]
    # as pandas writes a frame without an index whose columns are 0 to 5 and the named ones
    assert (folder / "college_mathematics.csv").read_text(encoding="utf-8") == (
        "0,1,2,3,4,5,owner/mini_correct,owner/mini_choiceA_probs,owner/mini_choiceB_probs,"
        "owner/mini_choiceC_probs,owner/mini_choiceD_probs\n"
        "Which of these is prime?,4,6,7,None,C,True,0.5,0.0,0.5,0.0\n"
        '"Let f be the map\nx -> x, ""the identity"".\nWhat is f(3)?",1,2,3,None,C,True,'
        "0.5,0.0,0.5,0.0\n"
    )


def test_a_letter_without_a_log_probability_has_minus_100(tmp_path: Path) -> None:
    answers = {"high_school_physics/0": chosen("D", D=-100.0, A=-100.0)}

    sample().write_answers(tmp_path, answers, model_id="mini")

    text = (tmp_path / "mmlu" / "results_mini" / "high_school_physics.csv").read_text("utf-8")
    assert text.splitlines()[1].endswith(",D,True,0.25,0.25,0.25,0.25")


def answers_file(folder: Path, answers: dict[str, str]) -> Path:
    file = folder / "mmlu.jsonl"
    rows = [{"question_id": item, "text": text} for item, text in answers.items()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_saved_answers_score_as_they_would_in_a_study(tmp_path: Path) -> None:
    score = Mmlu.score_files(
        [answers_file(tmp_path, ANSWERS)], {"shots": 5}, data=ROOT, ignore=frozenset()
    )

    expected = sample().score(ANSWERS, [])
    assert score.whole == expected.whole
    assert score.items == expected.items
    assert score.options == {}  # how many shots somebody's answers had is not known


def test_official_result_tables_score_without_the_data(tmp_path: Path) -> None:
    answers = {
        item: chosen(letter, **{other: -1.0 - (other != letter) for other in "ABCD"})
        for item, letter in ANSWERS.items()
    }
    sample().write_answers(tmp_path, answers, model_id="mini")
    files = sorted((tmp_path / "mmlu" / "results_mini").iterdir())

    score = Mmlu.score_files(files, {}, data=None, ignore=frozenset({"philosophy/4"}))

    assert score.whole.score == 4 / 7
    assert (score.whole.num_questions, score.whole.num_missing) == (7, 0)
    assert score.other_parts["subjects"]["philosophy"].official == 50.0


def test_result_tables_with_too_few_rows_are_called_incomplete(tmp_path: Path) -> None:
    short, empty, whole = (
        tmp_path / f"{name}.csv" for name in ("philosophy", "virology", "global_facts")
    )
    short.write_text("0,m_correct\nq,True\nq,False\n", encoding="utf-8")
    empty.write_text("0,m_correct\n", encoding="utf-8")
    whole.write_text("0,m_correct\n" + "q,True\n" * 100, encoding="utf-8")

    def scored(*files: Path) -> BenchmarkScore:
        return Mmlu.score_files(files, {}, data=None, ignore=frozenset())

    assert scored(short, whole).notes == [
        "2 of 57 subjects",
        "1 of 2 results are incomplete: philosophy has 2 of 311 questions",
    ]
    with pytest.raises(
        DataError, match=r"virology\.csv: is incomplete: holds no question; virolog"
    ):
        scored(short, empty)


def test_the_official_test_files_have_14042_questions() -> None:
    assert set(NUM_QUESTIONS) == set(SUBCATEGORIES)
    assert sum(NUM_QUESTIONS.values()) == 14042


def test_saved_files_that_are_not_official_are_refused(tmp_path: Path) -> None:
    def scored(*files: Path, data: Path | None = None) -> None:
        Mmlu.score_files(files, {}, data=data, ignore=frozenset())

    answers = answers_file(tmp_path, {"philosophy/5": "A"})
    table, other = tmp_path / "anatomy.csv", tmp_path / "cooking.csv"
    table.write_text("0,1,2,3,4,5\nq,1,2,3,4,A\n", encoding="utf-8")
    other.write_text("x_correct\nTrue\n", encoding="utf-8")
    torn = tmp_path / "virology.csv"
    torn.write_text("x_correct,y\nTrue,1\nFal\n", encoding="utf-8")

    with pytest.raises(ConfigError, match="with --data FOLDER of the official data"):
        scored(answers)
    with pytest.raises(DataError, match="answers philosophy/5, which is no question"):
        scored(answers, data=ROOT)
    with pytest.raises(DataError, match="0 columns end in _correct"):
        scored(table)
    with pytest.raises(DataError, match="cooking is none of MMLU's 57 subjects"):
        scored(other)
    with pytest.raises(DataError, match=r"virology\.csv, question 1: x_correct is ''"):
        scored(torn)


def test_a_subject_given_twice_is_refused(tmp_path: Path) -> None:
    files = [tmp_path / name / "virology.csv" for name in "ab"]
    for file in files:
        file.parent.mkdir()
        file.write_text("x_correct\nTrue\n", encoding="utf-8")

    with pytest.raises(ConfigError, match=r"virology\.csv is given twice"):
        Mmlu.score_files(files, {}, data=None, ignore=frozenset())


def test_the_real_tables_are_read_as_they_are() -> None:
    root = official_samples() / "mmlu"

    questions = benchmark("mmlu", root, "test", {}).questions

    sizes = Counter(question.category for question in questions)
    assert sizes == {"computer_security": 100, "global_facts": 100, "world_religions": 171}
    for question in questions:
        assert question.letters is not None
        assert len(question.letters.shots) == 5
        assert question.letters.question.endswith("\nAnswer:")
    by_id = {question.question_id: question for question in questions}
    assert by_id["global_facts/0"].text == (
        "As of 2016, about what percentage of adults aged 18 years or older were overweight?\n"
        "A. 10%\nB. 20%\nC. 40%\nD. 80%\nAnswer:"
    )


def test_the_real_tables_with_one_letter_throughout_score_its_share() -> None:
    root = official_samples() / "mmlu"
    shares = {}
    for subject in ("computer_security", "global_facts", "world_religions"):
        with (root / "test" / f"{subject}_test.csv").open(encoding="utf-8", newline="") as file:
            shares[subject] = [row[5] == "B" for row in csv.reader(file)]
    asked = benchmark("mmlu", root, "test", {})

    score = asked.score({question.question_id: "B" for question in asked.questions}, [])

    for subject, right in shares.items():
        part = score.other_parts["subjects"][subject]
        assert part.score == sum(right) / len(right)
    everything = [right for subject in shares.values() for right in subject]
    assert score.whole.score == sum(everything) / 371
    assert score.categories["humanities"] == score.other_parts["subjects"]["world_religions"]
