"""MMLU: 57 subjects of multiple choice, answered by the likeliest letter.

The official layout: <file>/<subject>_<file>.csv and <dev>/<subject>_<dev>.csv without a header,
six cells a row. Cells are plain text: pandas would read the option None as a missing number.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scalesweep.errors import ConfigError, DataError
from scalesweep.evaluate.benchmarks.base import Benchmark
from scalesweep.evaluate.benchmarks.mmlu_subjects import CATEGORIES, NUM_QUESTIONS, SUBCATEGORIES
from scalesweep.evaluate.json_lines import by_question, read_lines
from scalesweep.evaluate.judging.items import Replies
from scalesweep.evaluate.questions import Answer, Letters, Question
from scalesweep.evaluate.saved_files import without
from scalesweep.evaluate.scores import BenchmarkScore, PartScore
from scalesweep.evaluate.scoring import mean_of, percent

LETTERS = ("A", "B", "C", "D")
RULE = "hendrycks/test: likeliest letter; share of all questions, so each subject by its size"
TEST = "test"
# evaluate.py, of a letter that is not in the list which an endpoint returns.
NOT_RETURNED = -100.0


class Mmlu(Benchmark):
    name = "mmlu"
    title = "MMLU"

    def _read_questions(self) -> list[Question]:
        folder = self.root / self.file
        suffix = f"_{folder.name}.csv"
        files = sorted(folder.glob(f"*{suffix}"))
        if not files:
            raise DataError(
                f"{folder}: holds no <subject>{suffix}; the official data folder has one for each "
                "of 57 subjects"
            )
        return [
            question
            for file in files
            for question in self._subject(file.name.removesuffix(suffix), file)
        ]

    def _subject(self, subject: str, file: Path) -> list[Question]:
        if subject not in SUBCATEGORIES:
            raise DataError(f"{file}: {subject} is none of MMLU's 57 subjects")
        header = (
            "The following are multiple choice questions (with answers) about "
            f"{_spoken(subject)}.\n\n"
        )
        shots = tuple(f"{_asked(row)} {row[-1]}\n\n" for row in self._shots(subject))
        return [
            Question(
                question_id=question_id(subject, number),
                text=_asked(row),
                category=subject,
                answer=row[-1],
                letters=Letters(header=header, shots=shots, question=_asked(row)),
                row=dict(zip(("question", *LETTERS, "answer"), row, strict=True)),
            )
            for number, row in enumerate(_read_rows(file))
        ]

    def _shots(self, subject: str) -> list[list[str]]:
        """The first rows of the subject's dev file."""
        count: int = self.options["shots"]
        if not count:
            return []
        folder = self.root / self.options["dev"]
        file = folder / f"{subject}_{folder.name}.csv"
        rows = _read_rows(file)
        if len(rows) < count:
            raise DataError(
                f"{file}: has {len(rows)} questions, evaluation.options.mmlu.shots={count} asks "
                f"for more; at most {len(rows)}"
            )
        return rows[:count]

    def score(self, answers: Mapping[str, str], replies: Sequence[Replies]) -> BenchmarkScore:
        """By the letters in answers; a question without one is missing, another text is wrong."""
        given = {
            question.question_id: answers[question.question_id].strip()
            for question in self.questions
            if question.question_id in answers
        }
        right = {q.question_id: q.answer for q in self.questions}
        return _score(
            list(right),
            {item: float(letter == right[item]) for item, letter in given.items()},
            options=self.options,
            unparsable={item for item, letter in given.items() if letter not in LETTERS},
            num_empty=sum(not letter for letter in given.values()),
        )

    def write_answers(self, folder: Path, answers: Mapping[str, Answer], *, model_id: str) -> None:
        """mmlu/results_<model>/<subject>.csv, as the official evaluate.py writes them.

        Only subjects of which every question has been answered by log-probabilities.
        """
        results = folder / self.name / f"results_{model_id.replace('/', '_')}"
        results.mkdir(parents=True, exist_ok=True)
        for subject, questions in _by_subject(self.questions).items():
            compared = [answers.get(question.question_id) for question in questions]
            rows = [
                _result_row(question, answer)
                for question, answer in zip(questions, compared, strict=True)
                if answer is not None and answer.log_probs is not None
            ]
            if len(rows) == len(questions):
                header = [*map(str, range(6)), *_result_columns(model_id)]
                _write_rows(results / f"{subject}.csv", [header, *rows])

    @classmethod
    def score_files(
        cls,
        files: Sequence[Path],
        options: Mapping[str, Any],
        *,
        data: Path | None,
        ignore: frozenset[str],
    ) -> BenchmarkScore:
        """Of one answers file (with data), or of result tables of the official evaluate.py.

        The tables are <subject>.csv, one for each subject, and need nothing else.
        """
        del options  # shots belong to the answers, which are there already
        if all(file.suffix == ".csv" for file in files):
            return _score_results(files, ignore)
        if len(files) != 1 or data is None:
            raise ConfigError(
                "score mmlu: takes one answers file (.jsonl with question_id and text) with "
                "--data FOLDER of the official data, or the official <subject>.csv results"
            )
        lines = by_question(read_lines(files[0]), done="answered")
        answers = {item: line.text("text") for item, line in lines.items()}
        benchmark = _Saved(data, TEST, {"shots": 0}, ignore=ignore)
        _refuse_other(answers, benchmark.questions, ignore, files[0])
        return replace(benchmark.score(answers, []), options={})


@dataclass(frozen=True)
class _Saved(Mmlu):
    """What saved answers belong to, but for some questions."""

    ignore: frozenset[str] = frozenset()

    def _read_questions(self) -> list[Question]:
        questions = super()._read_questions()
        left = without({q.question_id: q.category for q in questions}, self.ignore)
        return [q for q in questions if q.question_id in left]


def _refuse_other(
    answers: Mapping[str, str], questions: Sequence[Question], ignore: frozenset[str], file: Path
) -> None:
    known = {question.question_id for question in questions} | ignore
    other = [item for item in answers if item not in known]
    if other:
        raise DataError(
            f"{file}: answers {other[0]}, which is no question of the data; {len(other)} of "
            f"{len(answers)} are not (a question is <subject>/<row>, from 0)"
        )


def question_id(subject: str, number: int) -> str:
    """number: row of the subject's file, from 0."""
    return f"{subject}/{number}"


def _spoken(subject: str) -> str:
    """With a space in front, so that the prompt has two (format_subject)."""
    return "".join(f" {word}" for word in subject.split("_"))


def _asked(row: Sequence[str]) -> str:
    options = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, row[1:5], strict=True))
    return f"{row[0]}{options}\nAnswer:"


def _read_rows(file: Path) -> list[list[str]]:
    """Rows of six cells, the last one a letter.

    Raises:
        DataError: the file is missing, or a row is not in the official format; names its line.
    """
    found: list[list[str]] = []
    for line, row in _rows(file):
        if len(row) != 6 or row[5] not in LETTERS:
            raise DataError(
                f"{file}, line {line}: {len(row)} cells, the last one {row[-1:]}; a row is "
                "question, A, B, C, D and the letter of the answer, without a header"
            )
        found.append(row)
    if not found:
        raise DataError(f"{file}: holds no question")
    return found


def _rows(file: Path) -> list[tuple[int, list[str]]]:
    """(line on which it ends, cells) of each row."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, strict=True)
            return [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error


def _write_rows(file: Path, rows: Iterable[Sequence[object]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened, lineterminator="\n").writerows(rows)


def _by_subject(questions: Sequence[Question]) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = {}
    for question in questions:
        found.setdefault(question.category, []).append(question)
    return found


def _result_columns(model_id: str) -> list[str]:
    return [f"{model_id}_correct", *(f"{model_id}_choice{letter}_probs" for letter in LETTERS)]


def _result_row(question: Question, answer: Answer) -> list[object]:
    assert answer.log_probs is not None
    return [
        *question.row.values(),
        answer.text.strip() == question.answer,
        *_softmax([answer.log_probs.get(letter, NOT_RETURNED) for letter in LETTERS]),
    ]


def _softmax(log_probs: Sequence[float]) -> list[float]:
    """Of the letters among themselves, as the official tables have it."""
    highest = max(log_probs)
    weights = [math.exp(value - highest) for value in log_probs]
    return [weight / sum(weights) for weight in weights]


def _score_results(files: Sequence[Path], ignore: frozenset[str]) -> BenchmarkScore:
    """Of official result tables."""
    items: dict[str, float] = {}
    for file in files:
        if file.stem not in SUBCATEGORIES:
            raise DataError(f"{file}: {file.stem} is none of MMLU's 57 subjects")
        if question_id(file.stem, 0) in items:
            raise ConfigError(f"score mmlu: {file.stem}.csv is given twice; one model at a time")
        items |= _result_items(file)
    left = without(dict.fromkeys(items, ""), ignore)
    score = _score(list(left), {item: items[item] for item in left}, options={})
    return replace(score, notes=[*score.notes, *_cut_short(items)])


def _cut_short(items: Iterable[str]) -> list[str]:
    """A note on result tables that have fewer rows than the official ones."""
    counts = Counter(item.rpartition("/")[0] for item in items)
    short = [
        f"{subject} has {count} of {NUM_QUESTIONS[subject]} questions"
        for subject, count in counts.items()
        if count < NUM_QUESTIONS[subject]
    ]
    if not short:
        return []
    return [f"{len(short)} of {len(counts)} results are incomplete: {', '.join(short)}"]


def _result_items(file: Path) -> dict[str, float]:
    header, *rows = [row for _, row in _rows(file)] or [[]]
    columns = [number for number, name in enumerate(header) if name.endswith("_correct")]
    if len(columns) != 1:
        raise DataError(
            f"{file}: {len(columns)} columns end in _correct; a result of the official "
            "evaluate.py has one"
        )
    if not rows:
        raise DataError(
            f"{file}: is incomplete: holds no question; {file.stem} has {NUM_QUESTIONS[file.stem]}"
        )
    found = {}
    for number, row in enumerate(rows):
        said = row[columns[0]] if len(row) == len(header) else ""
        if said not in ("True", "False"):
            raise DataError(f"{file}, question {number}: {header[columns[0]]} is {said!r}")
        found[question_id(file.stem, number)] = float(said == "True")
    return found


def _score(
    asked: Sequence[str],
    items: Mapping[str, float],
    *,
    options: Mapping[str, Any],
    unparsable: frozenset[str] | set[str] = frozenset(),
    num_empty: int = 0,
) -> BenchmarkScore:
    """Of questions by id; all numbers are pooled over questions, but for the one named macro."""
    subjects = dict[str, list[str]]()
    for item in asked:
        subjects.setdefault(item.rpartition("/")[0], []).append(item)

    def pooled(chosen: Iterable[str]) -> PartScore:
        ids = [item for subject in chosen for item in subjects[subject]]
        return mean_of(ids, items, unparsable=unparsable, official=printed)

    subcategories = {
        name: pooled(subject for subject in subjects if SUBCATEGORIES[subject] == name)
        for name in sorted({SUBCATEGORIES[subject] for subject in subjects})
    }
    categories = {
        name: pooled(subject for subject in subjects if SUBCATEGORIES[subject] in within)
        for name, within in CATEGORIES.items()
        if any(SUBCATEGORIES[subject] in within for subject in subjects)
    }
    by_subject = {subject: pooled([subject]) for subject in subjects}
    means = [part.score for part in by_subject.values() if part.score is not None]
    unanswered = len(by_subject) - len(means)
    macro = None if unanswered or not means else percent(sum(means) / len(means))
    return BenchmarkScore(
        benchmark=Mmlu.name,
        rule=RULE,
        options=options,
        whole=pooled(subjects),
        categories=categories,
        other_parts={"subcategories": subcategories, "subjects": by_subject},
        also={"mean of the subjects (macro)": macro},
        num_empty=num_empty,
        items=items,
        notes=_notes(len(subjects), unanswered),
    )


def printed(score: float) -> float:
    """Percent of the fraction that the official script prints with three decimals."""
    return round(100 * float(f"{score:.3f}"), 1)


def _notes(num_subjects: int, unanswered: int) -> list[str]:
    notes = []
    if num_subjects != len(SUBCATEGORIES):
        notes.append(f"{num_subjects} of {len(SUBCATEGORIES)} subjects")
    if unanswered:
        notes.append(
            f"{unanswered} of {num_subjects} subjects have no answer, so there is no mean of the "
            "subjects"
        )
    return notes
