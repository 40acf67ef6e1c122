"""Files of pairwise reviews: LLaVA's (content, tuple) and FastChat's old ones (text, score)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scalesweep.errors import DataError
from scalesweep.evaluate.json_lines import Line, by_question, read_lines
from scalesweep.evaluate.reviews import MOST_POINTS, Pair, is_verdict, parse_llava
from scalesweep.evaluate.saved_files import (
    ONE_MODEL,
    number_notes,
    refuse_nothing_shared,
    refuse_unknown,
    without,
)

Parser = Callable[[str, str], Pair | None]
"""(review, category) -> what it gives."""


@dataclass(kw_only=True)
class _Run:
    file: Path
    pairs: dict[str, Pair | None] = field(default_factory=dict)
    categories: dict[str, str] = field(default_factory=dict)
    answer_ids: dict[str, tuple[object, object]] = field(default_factory=dict)
    """Reference, candidate."""
    by_hand: list[str] = field(default_factory=list)
    """Questions whose stored score is not what the review's text gives."""
    readable: list[str] = field(default_factory=list)
    """Questions marked as unreadable whose text has a score line."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Files of one model, one judge run each."""

    runs: Sequence[Mapping[str, Pair | None]]
    questions: Mapping[str, str]
    """question_id -> category of all that were to be reviewed."""
    notes: Sequence[str]


def gather(
    files: Sequence[Path],
    parse: Parser,
    *,
    questions: Mapping[str, str] | None,
    written: Mapping[str, str] | None,
    category_of: Callable[[str], str] = lambda _: "",
    official_count: int,
    ignore: frozenset[str],
) -> Gathered:
    """Reviews of one candidate against one reference, joined by question.

    parse: for reviews that have no score beside them, or are marked as unreadable.
    questions: question_id -> category of the question file; None: what the files are about.
    written: category as reviews of this benchmark write it -> category; None: any as it stands.
    category_of: of a question whose line says none, where there is no question file.
    official_count: questions of the official file, to tell a file that was cut short.

    Raises:
        DataError: a line is no review, files are about other questions or other answers.
        ConfigError: an ignored question is unknown.
    """
    runs = [_read(file, parse, questions, written, category_of) for file in files]
    _refuse_other_answers(runs)
    refuse_nothing_shared({run.file: run.pairs for run in runs})
    known = questions
    if known is None:
        known = {}
        for run in runs:
            known |= {question: run.categories[question] for question in run.pairs}
    asked = without(known, ignore)
    source = "the official file" if questions is None else "the question file"
    expected = official_count if questions is None else len(known)
    notes = [
        note
        for run in runs
        for note in (
            *number_notes(run.file, len(run.pairs), expected, what="reviews", source=source),
            *_by_hand(run, asked),
        )
    ]
    return Gathered(
        runs=[{q: pair for q, pair in run.pairs.items() if q in asked} for run in runs],
        questions=asked,
        notes=notes,
    )


def _read(
    file: Path,
    parse: Parser,
    questions: Mapping[str, str] | None,
    written: Mapping[str, str] | None,
    category_of: Callable[[str], str],
) -> _Run:
    run = _Run(file=file)
    lines = by_question(read_lines(file), done="reviewed")
    if questions is not None:
        refuse_unknown(file, lines, questions)
    for question, line in lines.items():
        category = str(line.row.get("category") or "")
        if category and written is not None:
            if category not in written:
                raise line.fault(
                    f"category {category:.60} is none of {', '.join(written)}; this is a review "
                    "of another benchmark"
                )
            category = written[category]
        if questions is not None:
            if category and category != questions[question]:
                raise line.fault(
                    f"question {question} is {category} here, {questions[question]} in the "
                    "question file; they do not belong together"
                )
            category = questions[question]
        run.categories[question] = category or category_of(question)
        _add(run, question, line, parse)
        run.answer_ids[question] = (line.row.get("answer1_id"), line.row.get("answer2_id"))
    return run


def _add(run: _Run, question: str, line: Line, parse: Parser) -> None:
    stored = _stored(line)
    text = line.row.get("content", line.row.get("text"))
    if not isinstance(text, str):
        if stored is None:
            raise line.fault(
                "is no review: it has neither tuple or score nor content or text"
                + ("; answers must be judged before" if "prompt" in line.row else "")
            )
        run.pairs[question] = stored if is_verdict(stored) else None
        return
    if stored is None and "answer1_id" not in line.row:
        raise line.fault(
            "is no review: it has neither tuple nor score, and names no two answers; "
            "answers must be judged before"
        )
    parsed, by_rule = parse(text, run.categories[question]), parse_llava(text)
    if stored is None:
        run.pairs[question] = parsed
    elif is_verdict(stored):
        run.pairs[question] = stored
        if stored != parsed:
            run.by_hand.append(question)
    elif by_rule is None:
        run.pairs[question] = parsed  # read only where an option reads more than the script
    else:
        run.pairs[question] = None
        run.readable.append(question)


def _stored(line: Line) -> Pair | None:
    """The score that stands beside the review; NaN as the file has it."""
    value = line.row.get("tuple", line.row.get("score"))
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
    ):
        raise line.fault(f"is no review: its score is {value!r:.60}, not two numbers")
    if any(abs(x) > MOST_POINTS for x in value):
        raise line.fault(f"is no review: its score {value!r:.60} is beyond {MOST_POINTS:.0f}")
    return Pair(float(value[0]), float(value[1]))


def _refuse_other_answers(runs: Sequence[_Run]) -> None:
    seen: dict[str, tuple[Path, tuple[object, object]]] = {}
    for run in runs:
        for question, ids in run.answer_ids.items():
            file, before = seen.setdefault(question, (run.file, ids))
            if ids != before:
                raise DataError(
                    f"{run.file}: question {question} is about other answers than in {file} "
                    f"(answer1_id, answer2_id); {ONE_MODEL}: score each model alone"
                )


def _by_hand(run: _Run, asked: Mapping[str, str]) -> list[str]:
    notes = []
    if by_hand := [question for question in run.by_hand if question in asked]:
        notes.append(
            f"{run.file.name}: {len(by_hand)} scores are not what the review's text gives "
            f"(questions {', '.join(by_hand)}): entered by hand; taken as they stand, as the "
            "official script does"
        )
    if readable := [question for question in run.readable if question in asked]:
        notes.append(
            f"{run.file.name}: {len(readable)} reviews are marked as unreadable though their "
            f"text has a score line (questions {', '.join(readable)}); the mark is taken, as the "
            "official script does"
        )
    return notes
