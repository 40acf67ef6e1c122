"""What every benchmark can do. One file per benchmark implements it; registry.py finds it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from scalesweep.errors import ConfigError
from scalesweep.evaluate.judging.items import JudgeItem, Replies
from scalesweep.evaluate.questions import Answer, Question
from scalesweep.evaluate.saved_files import question_file
from scalesweep.evaluate.scores import BenchmarkScore


@dataclass(frozen=True)
class Benchmark(ABC):
    """One benchmark: its official files in a folder, its questions, its rule.

    Nothing here imports torch or numpy: scoring runs anywhere.
    """

    root: Path
    """Folder of the data set."""
    file: str
    """Of the questions, below root, in the official format."""
    options: Mapping[str, Any]
    """Complete, as benchmark_options.option_values gives them."""

    name: ClassVar[str]
    title: ClassVar[str]
    """For people: "LLaVA-Bench (In-the-Wild)"."""

    @cached_property
    def questions(self) -> list[Question]:
        """All questions in the file's order.

        Raises:
            DataError: a file is missing or not in the official format; names file and line.
        """
        return self._read_questions()

    @property
    def scored_questions(self) -> list[Question]:
        """What a score is the mean over: all questions, where the rule joins no rows to one."""
        return self.questions

    @abstractmethod
    def _read_questions(self) -> list[Question]:
        """As questions, read once."""

    def write_answers(self, folder: Path, answers: Mapping[str, Answer], *, model_id: str) -> None:
        """Further files in official answer formats, beside <name>.jsonl; none by default."""
        return

    def judge_items(self, answers: Mapping[str, str]) -> list[JudgeItem]:
        """What a judge is asked, in order; empty where the rule needs no judge.

        answers: question_id -> text.

        Raises:
            DataError: a file of the judge's (captions, reference answers) is missing or broken.
        """
        return []

    @abstractmethod
    def score(self, answers: Mapping[str, str], replies: Sequence[Replies]) -> BenchmarkScore:
        """The score by the official rule. replies: one mapping per judge run, by item.

        An item without a reply is missing, never 0.
        """

    def write_reviews(
        self,
        folder: Path,
        answers: Mapping[str, str],
        replies: Sequence[Replies],
        *,
        judge_model: str,
    ) -> None:
        """Judgements in the official format, for others' scripts; nothing where none judged."""
        return

    @classmethod
    def score_options(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Options that score_files reads, by those that are chosen; others are about asking."""
        return ()

    @classmethod
    def categories_in(
        cls, data: Path | None, names: Sequence[str], options: Mapping[str, Any]
    ) -> dict[str, str] | None:
        """question_id -> category of a question file that is given; None where none is.

        names: what the file is called officially.
        """
        if data is None:
            return None
        root, name = question_file(data, names)
        return {q.question_id: q.category for q in cls(root, name, options).questions}

    @classmethod
    def score_files(
        cls,
        files: Sequence[Path],
        options: Mapping[str, Any],
        *,
        data: Path | None,
        ignore: frozenset[str],
    ) -> BenchmarkScore:
        """The score of saved reviews, grades or answers of anyone, in the official format.

        files: of one model; where a judge was asked, several files are several judge runs.
        options: complete, as benchmark_options.option_values gives them.
        data: folder of the data set, where the rule needs more than the files say.
        ignore: question_ids that are left out.

        Raises:
            ConfigError: this benchmark has no such files, or data is needed and not given.
            DataError: a file is not in the official format; the message names file and line.
        """
        raise ConfigError(f"score {cls.name}: no saved file of it can be scored")
