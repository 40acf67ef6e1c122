"""Saved judgements of anyone, before they are scored: which questions they should hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from pathlib import Path

from scalesweep.errors import ConfigError, DataError

NOTHING_LEFT = "--ignore: leaves no question out of which a score could be made"
ONE_MODEL = "several files are judge runs of one model's answers"


def question_file(data: Path, names: Sequence[str]) -> tuple[Path, str]:
    """(folder, name) of the question file; data is its folder or the file itself.

    names: what the file is called officially, likeliest first.

    Raises:
        DataError: it is not there.
    """
    if data.is_file():
        return data.parent, data.name
    for name in names:
        if (data / name).is_file():
            return data, name
    raise DataError(f"--data={data}: there is no {' or '.join(names)}; name the question file")


def without(
    questions: Mapping[str, str], ignore: frozenset[str], *, also_known: Iterable[str] = ()
) -> dict[str, str]:
    """Questions but for those that are left out.

    questions: question_id -> category.
    also_known: further ids that may be named.

    Raises:
        ConfigError: an id is unknown, or nothing is left.
    """
    refuse_ignored(ignore, {*questions, *also_known})
    left = {question: cat for question, cat in questions.items() if question not in ignore}
    if not left:
        raise ConfigError(NOTHING_LEFT)
    return left


def refuse_ignored(ignore: frozenset[str], known: Set[str]) -> None:
    """Refuse to leave out what is not there.

    Raises:
        ConfigError: names all such ids.
    """
    if unknown := sorted(ignore - known):
        raise ConfigError(f"--ignore={','.join(unknown)}: no such question in these files")


def refuse_nothing_shared(runs: Mapping[Path, Collection[str]]) -> None:
    """Refuse files that cannot be judge runs of one model's answers.

    runs: file -> its questions.

    Raises:
        DataError: two have no question in common.
    """
    (first, asked), *others = runs.items()
    for file, questions in others:
        if not set(questions) & set(asked):
            raise DataError(
                f"{file}: shares no question with {first}; {ONE_MODEL}, about the same questions"
            )


def refuse_unknown(file: Path, found: Iterable[str], questions: Mapping[str, str]) -> None:
    """Refuse a file that is about questions which the question file does not have.

    Raises:
        DataError: names the first.
    """
    strange = [question for question in found if question not in questions]
    if strange:
        raise DataError(
            f"{file}: question {strange[0]} is not among the {len(questions)} of the question "
            f"file ({len(strange)} such); they do not belong together"
        )


def number_notes(file: Path, found: int, expected: int, *, what: str, source: str) -> list[str]:
    """A note where a file holds fewer questions than there are, or more; else nothing.

    source: what says how many there are.
    """
    if found == expected:
        return []
    if found > expected:
        return [
            f"{file.name} may be of another benchmark: {found} {what}; {source} has {expected} "
            "questions"
        ]
    return [f"{file.name} is incomplete: {found} {what}; {source} has {expected} questions"]
