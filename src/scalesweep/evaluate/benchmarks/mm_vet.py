"""MM-Vet: a judge grades each answer from 0 to 1 against a short reference.

mm-vet.json, images/, and bard_set.json where only that subset is asked.

Source: yuweihao/MM-Vet (acde843) mm-vet_evaluator.py.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from scalesweep.errors import DataError
from scalesweep.evaluate.benchmarks.base import Benchmark
from scalesweep.evaluate.json_lines import parse, read_text
from scalesweep.evaluate.judge_prompts import mm_vet_prompt
from scalesweep.evaluate.judging.items import JudgeItem, Replies, Request
from scalesweep.evaluate.questions import Answer, Question
from scalesweep.evaluate.reviews import (
    PointRun,
    Scored,
    numpy_round,
    parse_correctness,
    runs_left_out,
    score_points,
    spread,
)
from scalesweep.evaluate.saved_files import (
    number_notes,
    question_file,
    refuse_nothing_shared,
    refuse_unknown,
    without,
)
from scalesweep.evaluate.scores import BenchmarkScore, PartScore

OFFICIAL_COUNT = 218
QUESTION_FILES = ("mm-vet.json",)
BARD_SET = "bard_set.json"
IMAGES = "images"
SETS = "capability sets"
# The script asks once, then up to five times again, and never reads the fifth of these replies:
# after it the score is 0.0 whatever it says. So four can still give a verdict.
MOST_REASKS = 4
ASKED_AGAIN = "\nPredict the correctness of the answer (digit): "
WARMER = 0.5
"""Added to the temperature after each time it was asked again."""

Capabilities = Mapping[str, frozenset[str]]
"""question_id -> what it takes."""


class MmVet(Benchmark):
    name = "mm_vet"
    title = "MM-Vet"

    def _read_questions(self) -> list[Question]:
        file = self.root / self.file
        asked = self._subset()
        entries = _read_object(file)
        if asked is not None and (strange := sorted(asked - set(entries))):
            raise DataError(f"{self.root / BARD_SET}: {strange[0]} is no question of {file}")
        chosen = {q: entry for q, entry in entries.items() if asked is None or q in asked}
        return [_question(file, question, entry) for question, entry in chosen.items()]

    def _subset(self) -> frozenset[str] | None:
        if self.options["subset"] == "all":
            return None
        file = self.root / BARD_SET
        found = _read_json(file)
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise DataError(f"{file}: is no list of question_ids")
        return frozenset(found)

    @cached_property
    def capabilities(self) -> dict[str, frozenset[str]]:
        return {q.question_id: frozenset(q.row["capability"]) for q in self.questions}

    def write_answers(self, folder: Path, answers: Mapping[str, Answer], *, model_id: str) -> None:
        """The official result file: question_id -> answer."""
        texts = {q.question_id: answers[q.question_id].text for q in self.questions}
        _write_json(folder / f"{self.name}.json", texts, indent=2)

    def judge_items(self, answers: Mapping[str, str]) -> list[JudgeItem]:
        return [
            JudgeItem(
                item=question.question_id,
                request=Request(
                    messages=(("user", _table(question, answers[question.question_id])),),
                    temperature=0.0,
                    max_tokens=3,
                ),
                is_valid=lambda reply: parse_correctness(reply) is not None,
                asked_again=_asked_again,
                expected_reply_tokens=3,
            )
            for question in self.questions
        ]

    def score(self, answers: Mapping[str, str], replies: Sequence[Replies]) -> BenchmarkScore:
        """A reply without a number, asked again as often as there is a point in, is missing."""
        runs = [_graded(run) for run in replies]
        return _score(
            runs,
            {question.question_id: "" for question in self.questions},
            capabilities=self.capabilities,
            options=self.options,
            num_empty=sum(not answers[q.question_id].strip() for q in self.questions),
        )

    def write_reviews(
        self,
        folder: Path,
        answers: Mapping[str, str],
        replies: Sequence[Replies],
        *,
        judge_model: str,
    ) -> None:
        """The official grade file and both tables of scores.

        A missing grade is left out, so that the official script asks for it again; the lists of
        such a question are shorter.
        """
        grades: dict[str, dict[str, list[Any]]] = {}
        for question in self.questions:
            for run in replies:
                reply = run.get(question.question_id)
                if reply is None or reply.text is None:
                    continue
                points = parse_correctness(reply.text)
                if points is None:
                    continue
                entry = grades.setdefault(
                    question.question_id, {"model": [], "content": [], "score": []}
                )
                entry["model"].append(judge_model)
                entry["content"].append(reply.text.split(" ")[0].strip())
                entry["score"].append(points)
        score = self.score(answers, replies)
        subset = "" if self.options["subset"] == "all" else "bardset_"
        judge = judge_model.replace("/", "_")
        ending = f"{len(replies)}runs"
        _write_json(folder / f"{self.name}_{judge}-grade-{ending}.json", grades, indent=4)
        tables = {"cap-score": score.categories, "cap-int-score": score.other_parts[SETS]}
        for name, parts in tables.items():
            file = folder / f"{self.name}_{subset}{judge}-{name}-{ending}.csv"
            _write_table(file, self.name, parts, score)

    @classmethod
    def score_options(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("unparsable", "subset")

    @classmethod
    def score_files(
        cls,
        files: Sequence[Path],
        options: Mapping[str, Any],
        *,
        data: Path | None,
        ignore: frozenset[str],
    ) -> BenchmarkScore:
        asked: dict[str, str] | None = None
        capabilities: Capabilities = {}
        outside: frozenset[str] = frozenset()
        if data is not None:
            root, name = question_file(data, QUESTION_FILES)
            capabilities = cls(root, name, options).capabilities
            asked = dict.fromkeys(capabilities, "")
            outside = frozenset(_read_object(root / name)) - set(asked)
        elif options["subset"] != "all":
            raise DataError(f"subset={options['subset']}: needs --data, the folder of {BARD_SET}")
        saved = [_read_grades(file, outside) for file in files]
        refuse_nothing_shared({grades.file: grades.questions for grades in saved})
        if asked is not None:
            for grades in saved:
                refuse_unknown(grades.file, grades.questions, asked)
        known = asked or dict.fromkeys((q for grades in saved for q in grades.questions), "")
        notes = [note for grades in saved for note in grades.notes(known, asked is not None)]
        if data is None:
            notes.append("capabilities are not in grade files; --data=DIR of mm-vet.json adds them")
        judges = sorted({judge for grades in saved for judge in grades.judges})
        return _score(
            [run for grades in saved for run in grades.runs],
            without(known, ignore, also_known=outside),
            capabilities=capabilities,
            options=options,
            notes=notes,
            judge_model=", ".join(judges) or None,
        )


def _question(file: Path, question: str, entry: Any) -> Question:
    try:
        capability = entry["capability"]
        if not isinstance(capability, list) or not all(isinstance(c, str) for c in capability):
            raise TypeError("capability is no list of words")
        return Question(
            question_id=question,
            text=str(entry["question"]),
            answer=str(entry["answer"]),
            category="_".join(capability),
            image=file.parent / IMAGES / str(entry["imagename"]),
            row=entry,
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}, {question}: is no question ({error})") from error


def _table(question: Question, answer: str) -> str:
    """The few-shot table with this answer as its last, unfinished row."""
    truth = question.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    return mm_vet_prompt() + "\n" + " | ".join((question.text, truth, answer, ""))


def _asked_again(first: Request, reask: int) -> Request | None:
    """The first time at the first temperature, then warmer each time."""
    if reask > MOST_REASKS:
        return None
    ((role, text),) = first.messages
    return replace(
        first,
        messages=((role, text + ASKED_AGAIN),),
        temperature=first.temperature + WARMER * (reask - 1),
    )


def _graded(run: Replies) -> dict[str, float | None]:
    grades = {
        item: parse_correctness(reply.text) for item, reply in run.items() if reply.text is not None
    }
    return {item: points for item, points in grades.items() if points is not None}


def _score(
    runs: Sequence[PointRun],
    questions: Mapping[str, str],
    *,
    capabilities: Capabilities,
    options: Mapping[str, Any],
    num_empty: int | None = None,
    notes: Sequence[str] = (),
    judge_model: str | None = None,
) -> BenchmarkScore:
    strict = options["unparsable"] == "strict"
    unreadable = 0.0 if strict else None

    def part(members: Sequence[str]) -> Scored:
        return score_points(runs, members, unreadable=unreadable)

    whole = part(list(questions))
    left = {question: caps for question, caps in capabilities.items() if question in questions}
    kept = "count 0, as there" if strict else "are left out, unlike there"
    return BenchmarkScore(
        benchmark=MmVet.name,
        rule=(
            "100 x mean grade, mean of judge runs, as MM-Vet's mm-vet_evaluator.py; a question "
            "counts once in each of its capabilities; the spread is the population standard "
            f"deviation of run totals; in saved grades, those without a number {kept}; a grade "
            "that is missing is left out, never 0"
        ),
        options=options,
        whole=whole.part,
        categories={name: part(members).part for name, members in by_capability(left).items()},
        other_parts={SETS: {name: part(ids).part for name, ids in by_set(left).items()}}
        if left
        else {},
        runs=[numpy_round(total) for total in whole.runs],
        run_spread=spread(whole.runs),
        num_empty=num_empty,
        items=whole.items,
        notes=[*notes, *runs_left_out(runs, whole)],
        judge_model=judge_model,
    )


def by_capability(capabilities: Capabilities) -> dict[str, list[str]]:
    """Capability -> its questions, the commonest first; of two as common the one named first."""
    counts = Counter(name for caps in capabilities.values() for name in sorted(caps))
    return {
        name: [question for question, caps in capabilities.items() if name in caps]
        for name, _ in counts.most_common()
    }


def by_set(capabilities: Capabilities) -> dict[str, list[str]]:
    """Set of capabilities -> its questions, the commonest first.

    A set's name joins its capabilities in the order of by_capability; the official script joins
    them in an order that changes from run to run.
    """
    order = list(by_capability(capabilities))
    members: dict[frozenset[str], list[str]] = {}
    for question, caps in capabilities.items():
        members.setdefault(caps, []).append(question)
    return {
        "_".join(sorted(caps, key=order.index)): questions
        for caps, questions in sorted(members.items(), key=lambda item: -len(item[1]))
    }


# ---------------------------------------------------------------- saved grades


@dataclass(frozen=True, kw_only=True)
class _Grades:
    """A grade file: some judge runs of one model."""

    file: Path
    questions: Sequence[str]
    runs: Sequence[PointRun]
    """None: the script gave 0.0 because it found no number."""
    judges: frozenset[str]
    by_hand: Sequence[str]

    def notes(self, known: Mapping[str, str], has_data: bool) -> Iterable[str]:
        expected = len(known) if has_data else OFFICIAL_COUNT
        source = "the question file" if has_data else "the official file"
        yield from number_notes(
            self.file, len(self.questions), expected, what="graded answers", source=source
        )
        short = [q for q in self.questions if any(q not in run for run in self.runs)]
        if short:
            yield (
                f"{self.file.name} is incomplete: {len(short)} questions have fewer than "
                f"{len(self.runs)} runs, {short[0]} the first"
            )
        if self.by_hand:
            yield (
                f"{self.file.name}: {len(self.by_hand)} scores are not what the judge's reply says "
                f"(questions {', '.join(self.by_hand)}); taken as they stand"
            )


def _read_grades(file: Path, outside: frozenset[str]) -> _Grades:
    """outside: questions that are not asked here, as those beyond a subset."""
    entries = {q: entry for q, entry in _read_object(file).items() if q not in outside}
    runs: list[dict[str, float | None]] = []
    judges: set[str] = set()
    by_hand: list[str] = []
    for question, entry in entries.items():
        scores, contents, models = _lists(file, question, entry)
        while len(runs) < len(scores):
            runs.append({})
        judges.update(models)
        for number, stored in enumerate(scores):
            said = parse_correctness(contents[number]) if number < len(contents) else stored
            gave_up = stored == 0.0 and said != 0.0
            runs[number][question] = None if gave_up else stored
            if said != stored and not gave_up and question not in by_hand:
                by_hand.append(question)
    return _Grades(
        file=file,
        questions=list(entries),
        runs=runs,
        judges=frozenset(judges),
        by_hand=by_hand,
    )


def _lists(file: Path, question: str, entry: Any) -> tuple[list[float], list[str], list[str]]:
    """(scores, replies, judges) of one question's runs."""

    def fault(defect: str) -> DataError:
        return DataError(f"{file}, {question}: {defect}")

    if not isinstance(entry, dict) or not isinstance(entry.get("score"), list):
        raise fault("is no grade: it has no list of scores; answers must be graded before")
    scores = entry["score"]
    for value in scores:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise fault(f"score {value!r:.60} is no number from 0 to 1")
    texts = []
    for name in ("content", "model"):
        found = entry.get(name, [])
        if not isinstance(found, list) or len(found) not in (0, len(scores)):
            raise fault(f"{name} is no list as long as score")
        texts.append([str(text) for text in found])
    return [float(value) for value in scores], texts[0], texts[1]


def _read_object(file: Path) -> dict[str, Any]:
    found = _read_json(file)
    if not isinstance(found, dict) or not found:
        raise DataError(f"{file}: is no JSON object of question_id -> entry")
    return found


def _read_json(file: Path) -> Any:
    try:
        return parse(read_text(file), object_of=partial(_object, file))
    except json.JSONDecodeError as error:
        raise DataError(f"{file}, line {error.lineno}: is no JSON ({error.msg})") from error
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error


def _object(file: Path, members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python's own reader keeps the last of two members with one name and says nothing."""
    found: dict[str, Any] = {}
    for name, value in members:
        if name in found:
            raise DataError(f"{file}: {name:.60} is there twice in one object, with two values")
        found[name] = value
    return found


def _write_json(file: Path, value: Mapping[str, Any], *, indent: int) -> None:
    file.write_text(json.dumps(value, indent=indent), encoding="utf-8")


def _write_table(
    file: Path, model: str, parts: Mapping[str, PartScore], score: BenchmarkScore
) -> None:
    """One row as pandas writes the official tables."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(["", *parts, "total", "std", "runs"])
        writer.writerow(
            [
                model,
                *(part.official for part in parts.values()),
                score.whole.official,
                score.run_spread or 0.0,
                str(list(score.runs)),
            ]
        )
