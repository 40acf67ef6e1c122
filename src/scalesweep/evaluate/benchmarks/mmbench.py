"""MMBench, circular: a question is right where each of its passes is.

What differs between official rules is an option: the prompt (LLaVA's or VLMEvalKit's), the rules
by which a letter is read out of an answer, and whether a language model is asked where they find
none. An answer without a letter after that is wrong and counted; VLMEvalKit draws a random letter
where its language model has failed three times, which no score should rest on.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from scalesweep.errors import ConfigError, DataError
from scalesweep.evaluate.benchmarks.base import Benchmark
from scalesweep.evaluate.benchmarks.mmbench_files import (
    read_answers,
    table_file,
    write_answer_lines,
    write_submission,
)
from scalesweep.evaluate.benchmarks.mmbench_table import LETTERS, Row, is_none, read_table
from scalesweep.evaluate.extraction import NONE_FITS, RULES, Rules, extract, matching_prompt
from scalesweep.evaluate.judging.items import JudgeItem, Replies, Reply, Request
from scalesweep.evaluate.questions import Answer, Question
from scalesweep.evaluate.saved_files import NOTHING_LEFT, refuse_ignored
from scalesweep.evaluate.scores import BenchmarkScore, PartScore, population_spread
from scalesweep.evaluate.scoring import mean_of, percent

# In the order of the paper's table and of the official board.
L2_NAMES = {
    "logic_reasoning": "LR",
    "attribute_reasoning": "AR",
    "relation_reasoning": "RR",
    "finegrained_perception (instance-level)": "FP-S",
    "finegrained_perception (cross-instance)": "FP-C",
    "coarse_perception": "CP",
}
SINGLE_LETTER = "\nAnswer with the option's letter from the given choices directly."
# VLMEvalKit's extract_answer_from_item.
TRIES = 3
_NOBODY_ASKED = Reply(text="", valid=False)


class MmBench(Benchmark):
    name = "mmbench"
    title = "MMBench"

    @cached_property
    def _rows(self) -> list[Row]:
        return read_table(self.root / self.file)

    @cached_property
    def _groups(self) -> dict[int, list[Row]]:
        """Question -> its passes, the first one first, of questions whose answer is known.

        Raises:
            DataError: there is none, as in the test split.
        """
        if not any(row.answer for row in self._rows):
            raise DataError(
                f"{self.root / self.file}: has no answers (the test split is scored by MMBench's "
                "own server only); upload mmbench/submission.xlsx of the answers there"
            )
        groups: dict[int, list[Row]] = {}
        for row in sorted(self._rows, key=lambda row: row.index):
            if row.answer and self._is_scored(row):
                groups.setdefault(row.group, []).append(row)
        return groups

    def _is_scored(self, row: Row) -> bool:
        return True

    @property
    def scored_questions(self) -> list[Question]:
        """One for each question whose answer is known, not one for each pass."""
        by_id = {question.question_id: question for question in self.questions}
        return [by_id[str(rows[0].index)] for rows in self._groups.values()]

    @property
    def _rules(self) -> Rules:
        return RULES[self.options["extraction"]]

    def _read_questions(self) -> list[Question]:
        prompt = {"llava": llava_prompt, "vlmevalkit": vlmevalkit_prompt}[self.options["prompt"]]
        return [
            Question(
                question_id=str(row.index),
                text=prompt(row),
                category=row.cells.get("category", ""),
                answer=row.answer,
                image=row.image,
                row=row.cells,
            )
            for row in self._rows
        ]

    def write_answers(self, folder: Path, answers: Mapping[str, Answer], *, model_id: str) -> None:
        """mmbench/answers.jsonl as LLaVA writes it, mmbench/submission.xlsx as the server reads."""
        place = folder / self.name
        place.mkdir(parents=True, exist_ok=True)
        texts = {item: answer.text for item, answer in answers.items()}
        write_answer_lines(
            place / "answers.jsonl",
            self._rows,
            texts,
            prompts={q.question_id: q.text.removesuffix(SINGLE_LETTER) for q in self.questions},
            options={str(row.index): llava_options(row) for row in self._rows},
            model_id=model_id,
        )
        write_submission(place / "submission.xlsx", self._rows, texts)

    def judge_items(self, answers: Mapping[str, str]) -> list[JudgeItem]:
        """Answers without a letter by the rules, of questions that are not wrong already."""
        if self.options["extractor"] != "judge":
            return []
        letters = self._letters(answers)
        return [
            self._judge_item(row, answers[str(row.index)])
            for rows in self._groups.values()
            if all(row.index in letters for row in rows) and not _has_wrong(rows, letters)
            for row in rows
            if letters[row.index] is None
        ]

    def _judge_item(self, row: Row, answer: str) -> JudgeItem:
        prompt = matching_prompt(row.cells["question"], row.options, answer, self._rules)
        return JudgeItem(
            item=str(row.index),
            request=Request(
                messages=(("user", prompt),), temperature=0.0, max_tokens=self._rules.max_tokens
            ),
            is_valid=partial(_has_letter, options=row.options, rules=self._rules),
            asked_again=_again,
            expected_reply_tokens=5,
        )

    def _letters(self, answers: Mapping[str, str]) -> dict[int, str | None]:
        """Row -> letter by the rules alone, None where they find none; rows with an answer."""
        return {
            row.index: extract(answers[str(row.index)], row.options, self._rules)
            for rows in self._groups.values()
            for row in rows
            if str(row.index) in answers
        }

    def score(self, answers: Mapping[str, str], replies: Sequence[Replies]) -> BenchmarkScore:
        """By the official rule; a question of which a row has no answer is missing.

        Raises:
            DataError: the table has no answers to compare with.
        """
        letters = self._letters(answers)
        judged = self.options["extractor"] == "judge"
        runs = [self._run(letters, run if judged else None) for run in replies or [{}]]
        return self._report(answers, letters, runs, num_judge_runs=len(replies) if judged else 0)

    def _run(self, letters: Mapping[int, str | None], replies: Replies | None) -> _Run:
        """Verdicts on all questions. replies None: no language model is asked."""
        run = _Run()
        for group, rows in self._groups.items():
            if all(row.index in letters for row in rows):
                found, is_unparsable = self._read(rows, letters, replies)
                if is_unparsable:
                    run.unparsable.add(group)
                if _has_wrong(rows, found):
                    run.hits[group] = 0.0
                elif None not in found.values():
                    run.hits[group] = 1.0
        return run

    def _read(
        self, rows: Sequence[Row], letters: Mapping[int, str | None], replies: Replies | None
    ) -> tuple[dict[int, str | None], bool]:
        """Letters of one question's passes, and whether one could not be read by any step.

        None is left where the language model's reply did not come; a question that is wrong by
        the rules alone is not asked about.
        """
        found = {row.index: letters[row.index] for row in rows}
        if replies is not None and _has_wrong(rows, found):
            return found, False
        is_unparsable = False
        for row in rows:
            if found[row.index] is None:
                reply = _NOBODY_ASKED if replies is None else replies.get(str(row.index))
                if reply is not None and reply.text is not None:
                    letter = extract(reply.text, row.options, self._rules)
                    is_unparsable |= letter is None
                    found[row.index] = letter or NONE_FITS
        return found, is_unparsable

    def _report(
        self,
        answers: Mapping[str, str],
        letters: Mapping[int, str | None],
        runs: Sequence[_Run],
        *,
        num_judge_runs: int,
    ) -> BenchmarkScore:
        main = {group: rows[0] for group, rows in self._groups.items()}
        items = {
            str(group): sum(hits) / len(hits)
            for group in main
            if (hits := [run.hits[group] for run in runs if group in run.hits])
        }
        part = partial(_part, runs=runs, items=items)
        official = [run.official for run in runs][:num_judge_runs]
        known = [number for number in official if number is not None]
        return BenchmarkScore(
            benchmark=self.name,
            rule=_rule(self.options),
            options=self.options,
            whole=part(main),
            categories={
                L2_NAMES.get(name, name): part(groups)
                for name, groups in _in_order(_divided(main, "l2-category"), L2_NAMES).items()
            },
            other_parts={
                "L3": {name: part(groups) for name, groups in _divided(main, "category").items()},
                "splits": {name: part(groups) for name, groups in _divided(main, "split").items()},
            },
            runs=known,
            run_spread=population_spread(known),
            also={
                "first pass alone, by the rules": self._share(letters, main.values()),
                "all rows, by the rules": self._share(
                    letters, [row for rows in self._groups.values() for row in rows]
                ),
            },
            num_empty=sum(not text.strip() for text in answers.values()),
            items=items,
            notes=self._notes(letters) + _silent(num_judge_runs - len(known), num_judge_runs),
        )

    def _share(self, letters: Mapping[int, str | None], rows: Iterable[Row]) -> float | None:
        """Percent of answered rows that are right by the rules alone."""
        right = [letters[row.index] == row.answer for row in rows if row.index in letters]
        return percent(sum(right) / len(right)) if right else None

    def _notes(self, letters: Mapping[int, str | None]) -> list[str]:
        """What a number alone does not say."""
        main = [rows[0] for rows in self._groups.values()]
        unread = sum(letter is None for letter in letters.values())
        fewer = sum(len(rows) < len(rows[0].options) for rows in self._groups.values())
        cut = sum(llava_options(row) != list(row.options.values()) for row in main)
        unknown = len({row.group for row in self._rows if not row.answer})
        notes = []
        if unread:
            notes.append(f"{unread} of {len(letters)} answers have no letter by the rules")
        if fewer:
            notes.append(f"{fewer} of {len(main)} questions have fewer passes than options")
        if cut and self.options["prompt"] == "llava":
            notes.append(
                f"{cut} of {len(main)} questions have an option that reads None, where LLaVA's "
                "prompt ends the list of options"
            )
        if unknown:
            notes.append(f"{unknown} questions have no answer in the table and are in no score")
        return notes

    def write_reviews(
        self,
        folder: Path,
        answers: Mapping[str, str],
        replies: Sequence[Replies],
        *,
        judge_model: str,
    ) -> None:
        """mmbench_<judge>_result_<run>.tsv: hit and log of each question, as VLMEvalKit has it."""
        letters = self._letters(answers)
        for number, run in enumerate(replies, start=1):
            hits = self._run(letters, run).hits
            name = f"{self.name}_{judge_model.replace('/', '_')}_result_{number}.tsv"
            with (folder / name).open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, delimiter="\t", lineterminator="\n")
                writer.writerow([*self._rows[0].cells, "prediction", "hit", "log"])
                for group, rows in self._groups.items():
                    hit = int(hits[group]) if group in hits else ""
                    said = answers.get(str(group), "")
                    log = _log(rows, letters, run)
                    writer.writerow([*rows[0].cells.values(), said, hit, log])

    @classmethod
    def score_options(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("prompt", "extraction", "extractor")

    @classmethod
    def score_files(
        cls,
        files: Sequence[Path],
        options: Mapping[str, Any],
        *,
        data: Path | None,
        ignore: frozenset[str],
    ) -> BenchmarkScore:
        """Of one file of answers: LLaVA's or our jsonl, or a submission's xlsx.

        data: the table, or the folder with one.
        ignore: rows by index; with one of them its question is left out.
        """
        if len(files) != 1:
            raise ConfigError(f"score mmbench: takes one file of answers, not {len(files)}")
        if options["extractor"] == "judge":
            raise ConfigError(
                "score mmbench: extractor=judge asks a language model, which only the judge stage "
                "does; take extractor=exact"
            )
        table = table_file(data)
        benchmark = _Saved(table.parent, table.name, options, ignore=ignore)
        refuse_ignored(ignore, benchmark.known)
        if not benchmark._groups:
            raise ConfigError(NOTHING_LEFT)
        return benchmark.score(read_answers(files[0], benchmark.known), [])


@dataclass(frozen=True)
class _Saved(MmBench):
    """What saved answers belong to; some questions are left out of the score."""

    ignore: frozenset[str] = frozenset()

    @property
    def known(self) -> set[str]:
        return {str(row.index) for row in self._rows}

    @cached_property
    def _ignored(self) -> set[int]:
        return {row.group for row in self._rows if str(row.index) in self.ignore}

    def _is_scored(self, row: Row) -> bool:
        return row.group not in self._ignored


@dataclass(kw_only=True)
class _Run:
    """What came of all questions once."""

    hits: dict[int, float] = field(default_factory=dict)
    """Question -> 1 right, 0 wrong; missing ones are left out."""
    unparsable: set[int] = field(default_factory=set)
    """Questions of which an answer stayed without a letter."""

    @property
    def official(self) -> float | None:
        return percent(sum(self.hits.values()) / len(self.hits)) if self.hits else None


def llava_options(row: Row) -> list[str]:
    """Options in order up to the first that LLaVA takes for no text: the word None is one."""
    texts = [row.cells.get(letter, "") for letter in LETTERS]
    return list(takewhile(lambda text: not is_none(text), texts))


def llava_prompt(row: Row) -> str:
    """Source: haotian-liu/LLaVA, llava/eval/model_vqa_mmbench.py with --single-pred-prompt."""
    hint = row.cells.get("hint", "")
    asked = row.cells["question"] if is_none(hint) else f"{hint}\n{row.cells['question']}"
    listed = [
        f"\n{letter}. {text}" for letter, text in zip(LETTERS, llava_options(row), strict=False)
    ]
    return f"{asked}{''.join(listed)}{SINGLE_LETTER}"


def vlmevalkit_prompt(row: Row) -> str:
    """Source: open-compass/VLMEvalKit (e8e78f0), build_prompt of vlmeval/dataset/image_mcq.py.

    There pandas takes the word None for a missing option; here it stays one.
    """
    hint = row.cells.get("hint", "")
    shown = "" if is_none(hint) else f"Hint: {hint}\n"
    listed = "".join(f"{letter}. {text}\n" for letter, text in row.options.items())
    return (
        f"{shown}Question: {row.cells['question']}\nOptions:\n{listed}"
        "Please select the correct answer from the options above. \n"
    )


def _has_wrong(rows: Sequence[Row], letters: Mapping[int, str | None]) -> bool:
    return any(letters[row.index] not in (None, row.answer) for row in rows)


def _has_letter(reply: str, *, options: Mapping[str, str], rules: Rules) -> bool:
    return extract(reply, options, rules) is not None


def _again(request: Request, reask: int) -> Request | None:
    return request if reask < TRIES else None


def _rule(options: Mapping[str, Any]) -> str:
    read = {
        "exact": "an answer without a letter is wrong",
        "judge": "a language model reads answers without a letter, what it cannot read is wrong",
    }
    release = {"current": "e8e78f0", "first_release": "9ac258c"}[options["extraction"]]
    return (
        "MMBench, circular: right where all passes of a question are; letters by VLMEvalKit "
        f"{release}, {read[options['extractor']]}"
    )


def _part(
    groups: Collection[int], *, runs: Sequence[_Run], items: Mapping[str, float]
) -> PartScore:
    """Of some questions; missing and unparsable ones are of all runs together."""
    return replace(
        mean_of([str(group) for group in groups], items),
        num_missing=sum(group not in run.hits for run in runs for group in groups),
        num_unparsable=sum(group in run.unparsable for run in runs for group in groups),
    )


def _silent(silent: int, num_runs: int) -> list[str]:
    """A note on judge runs of which no question has a verdict."""
    return [f"{silent} of {num_runs} judge runs have no verdict"] if silent else []


def _divided(main: Mapping[int, Row], column: str) -> dict[str, list[int]]:
    """Value of a column -> questions, by name; nothing where the table has no such column."""
    found: dict[str, list[int]] = {}
    for group, row in main.items():
        if name := row.cells.get(column, ""):
            found.setdefault(name, []).append(group)
    return dict(sorted(found.items()))


def _in_order(parts: Mapping[str, list[int]], order: Iterable[str]) -> dict[str, list[int]]:
    names = [*(name for name in order if name in parts), *(n for n in parts if n not in order)]
    return {name: parts[name] for name in names}


def _log(rows: Sequence[Row], letters: Mapping[int, str | None], replies: Replies) -> str:
    """What each pass came to, in one line."""
    said = []
    for row in rows:
        reply = replies.get(str(row.index))
        read = letters.get(row.index) or ("not read" if reply is None else f"judge: {reply.text!r}")
        said.append(f"{row.index}: {read}, answer {row.answer}")
    return "; ".join(said)
