"""Vicuna-80: 80 questions without a picture, judged in one of three ways.

relative: LLaVA's text reviewer beside a set of reference answers. single and pairwise: FastChat's
newer ways (evaluate/fastchat.py). Question files in FastChat's old format (text) and new (turns).

Source: haotian-liu/LLaVA (c121f04) llava/eval/eval_gpt_review.py and llava/eval/table/;
lm-sys/FastChat (0e6d3e4) fastchat/llm_judge/data/vicuna_bench/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from scalesweep.errors import DataError
from scalesweep.evaluate import fastchat
from scalesweep.evaluate.answer_files import SavedAnswer, answer_id, official_id, read_answers
from scalesweep.evaluate.benchmarks.base import Benchmark
from scalesweep.evaluate.benchmarks.llava_bench import review_name, review_request, review_row
from scalesweep.evaluate.json_lines import Line, by_question, read_lines, write_lines
from scalesweep.evaluate.judge_prompts import llava_rules
from scalesweep.evaluate.judging.items import JudgeItem, Replies
from scalesweep.evaluate.questions import Answer, Question
from scalesweep.evaluate.review_files import gather
from scalesweep.evaluate.reviews import Pair, parse_last_line, parse_llava, relative_score
from scalesweep.evaluate.saved_files import number_notes, refuse_unknown, without
from scalesweep.evaluate.scores import BenchmarkScore

OFFICIAL_COUNT = 80
QUESTION_FILES = ("question.jsonl", "question_v1.jsonl")
MATH = "math"
# Of the official question file, for reviews that name no category: last question_id of each.
_LAST = {
    "generic": 10,
    "knowledge": 20,
    "roleplay": 30,
    "common-sense": 40,
    "fermi": 50,
    "counterfactual": 60,
    "coding": 67,
    "math": 70,
    "writing": 80,
}
# Method -> options that its rule reads from saved files, and files that it asks by.
_SCORED_BY = {"relative": ("method", "unparsable", "math"), "single": ("method",)}
_SCORED_BY["pairwise"] = _SCORED_BY["single"]
_ASKED_BY = {
    "relative": ("reference",),
    "single": ("solutions",),
    "pairwise": ("reference", "solutions"),
}
_UNDEFINED = (
    "the paper does not say how its Vicuna-80 numbers are made: the ratio and candidate mean x 10 "
    "both fit"
)


class Vicuna80(Benchmark):
    name = "vicuna80"
    title = "Vicuna-80"

    def _read_questions(self) -> list[Question]:
        lines = by_question(read_lines(self.root / self.file), done="asked")
        return [_question(line) for line in lines.values()]

    @cached_property
    def references(self) -> dict[str, SavedAnswer]:
        """question_id -> answer that the candidate's stands beside."""
        return read_answers(self.root / self.options["reference"], self.questions)

    @cached_property
    def solutions(self) -> dict[str, str]:
        """question_id -> solution of coding and math questions, which FastChat's judge is shown."""
        solved = [q for q in self.questions if q.category in fastchat.SOLVED_CATEGORIES]
        if not solved:
            return {}
        found = read_answers(self.root / self.options["solutions"], solved)
        return {question: answer.text for question, answer in found.items()}

    @property
    def _baseline(self) -> fastchat.Baseline:
        return fastchat.Baseline(
            model_id=self._reference_model,
            answers={question: answer.text for question, answer in self.references.items()},
        )

    @property
    def _reference_model(self) -> str:
        return next(iter(self.references.values())).model_id

    def write_answers(self, folder: Path, answers: Mapping[str, Answer], *, model_id: str) -> None:
        """In FastChat's new format; no time is noted."""
        write_lines(
            folder / f"{self.name}_fastchat.jsonl",
            (
                {
                    "question_id": official_id(question),
                    "answer_id": answer_id(
                        question.question_id, answers[question.question_id].text
                    ),
                    "model_id": model_id,
                    "choices": [{"index": 0, "turns": [answers[question.question_id].text]}],
                    "tstamp": 0.0,
                }
                for question in self.questions
            ),
        )

    def judge_items(self, answers: Mapping[str, str]) -> list[JudgeItem]:
        match self.options["method"]:
            case "single":
                return fastchat.single_items(self.questions, answers, self.solutions)
            case "pairwise":
                return fastchat.pair_items(self.questions, answers, self._baseline, self.solutions)
        return [self._review_item(question, answers) for question in self.questions]

    def _review_item(self, question: Question, answers: Mapping[str, str]) -> JudgeItem:
        rules = llava_rules()
        rule = rules[question.category] if question.category in ("coding", MATH) else None
        return JudgeItem(
            item=question.question_id,
            request=review_request(
                (rule or rules["default"]).ask(
                    context=None,
                    question=question.text,
                    answers=(
                        self.references[question.question_id].text,
                        answers[question.question_id],
                    ),
                )
            ),
            is_valid=lambda reply: self._verdict(reply, question.category) is not None,
            # Reviews that FastChat published have about 630 characters.
            expected_reply_tokens=150,
        )

    def _verdict(self, reply: str, category: str) -> Pair | None:
        return _parsed(reply, category, self.options)

    def score(self, answers: Mapping[str, str], replies: Sequence[Replies]) -> BenchmarkScore:
        categories = {question.question_id: question.category for question in self.questions}
        about: dict[str, Any] = {
            "benchmark": self.name,
            "options": {
                name: self.options[name]
                for name in (
                    *_SCORED_BY[self.options["method"]],
                    *_ASKED_BY[self.options["method"]],
                )
            },
            "num_empty": sum(not answers[question].strip() for question in categories),
        }
        match self.options["method"]:
            case "single":
                return fastchat.score_single(fastchat.single_runs(replies), categories, **about)
            case "pairwise":
                runs = fastchat.pair_runs(list(categories), replies)
                return fastchat.score_pairwise(
                    runs, categories, notes=[self._against("baseline")], **about
                )
        return relative_score(
            [
                {
                    item: self._verdict(reply.text, categories[item])
                    for item, reply in run.items()
                    if reply.text is not None
                }
                for run in replies
            ],
            categories,
            reading=_reading(self.options),
            notes=[self._against("reference"), _UNDEFINED],
            **about,
        )

    def _against(self, role: str) -> str:
        return f"{role}: answers of {self._reference_model} ({self.options['reference']})"

    def write_reviews(
        self,
        folder: Path,
        answers: Mapping[str, str],
        replies: Sequence[Replies],
        *,
        judge_model: str,
    ) -> None:
        """One file per run in the format of the method's own script."""
        method = self.options["method"]
        for number, run in enumerate(replies, start=1):
            match method:
                case "single":
                    rows = fastchat.single_rows(
                        self.questions, answers, self.solutions, run, judge_model=judge_model
                    )
                case "pairwise":
                    rows = fastchat.pair_rows(
                        self.questions,
                        answers,
                        self._baseline,
                        self.solutions,
                        run,
                        judge_model=judge_model,
                    )
                case _:
                    rows = self._review_rows(answers, run)
            kind = {"single": "single", "pairwise": "pair"}.get(method, "")
            write_lines(folder / review_name(self.name, judge_model, number, kind=kind), rows)

    def _review_rows(self, answers: Mapping[str, str], run: Replies) -> list[dict[str, Any]]:
        return [
            review_row(
                position,
                question,
                reference=self.references[question.question_id],
                candidate=answers[question.question_id],
                category=question.category,
                review=reply.text,
                verdict=self._verdict(reply.text, question.category),
            )
            for position, question in enumerate(self.questions, start=1)
            if (reply := run.get(question.question_id)) is not None and reply.text is not None
        ]

    @classmethod
    def score_options(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        return _SCORED_BY[options["method"]]

    @classmethod
    def score_files(
        cls,
        files: Sequence[Path],
        options: Mapping[str, Any],
        *,
        data: Path | None,
        ignore: frozenset[str],
    ) -> BenchmarkScore:
        asked = cls.categories_in(data, QUESTION_FILES, options)
        for file in files:
            method = fastchat.method_of(read_lines(file)[0].row)
            if method != options["method"]:
                raise DataError(
                    f"{file}: was judged by method {method}, not {options['method']}; "
                    f"add --option method={method}"
                )
        if options["method"] == "relative":
            gathered = gather(
                files,
                lambda review, category: _parsed(review, category, options),
                questions=asked,
                written=None if asked is not None else {name: name for name in _LAST},
                category_of=official_category,
                official_count=OFFICIAL_COUNT,
                ignore=ignore,
            )
            return relative_score(
                gathered.runs,
                gathered.questions,
                benchmark=cls.name,
                reading=_reading(options),
                options={name: options[name] for name in cls.score_options(options)},
                notes=[*gathered.notes, _UNDEFINED],
            )
        return _score_records(files, options, asked, ignore)


def _score_records(
    files: Sequence[Path],
    options: Mapping[str, Any],
    asked: Mapping[str, str] | None,
    ignore: frozenset[str],
) -> BenchmarkScore:
    runs = [fastchat.read_run(file) for file in files]
    fastchat.refuse_other_models(runs)
    known = asked
    if known is None:
        known = {question: official_category(question) for run in runs for question in run.points}
    else:
        for run in runs:
            refuse_unknown(run.file, run.points, known)
    expected = OFFICIAL_COUNT if asked is None else len(known)
    source = "the official file" if asked is None else "the question file"
    notes = []
    for run in runs:
        notes += number_notes(run.file, len(run.points), expected, what="records", source=source)
        if run.by_hand:
            notes.append(
                f"{run.file.name}: {len(run.by_hand)} scores are not what the judgment's text "
                f"gives (questions {', '.join(run.by_hand)}); taken as they stand"
            )
    judges = sorted({judge for run in runs for judge in run.judges})
    score = fastchat.score_single if options["method"] == "single" else fastchat.score_pairwise
    return score(
        [run.points for run in runs],
        without(known, ignore),
        benchmark=Vicuna80.name,
        options={"method": options["method"]},
        notes=notes,
        judge_model=", ".join(judges) or None,
    )


def official_category(question_id: str) -> str:
    """Of a question of the official file; "" for another id."""
    if not question_id.isdecimal() or int(question_id) < 1:
        return ""
    return next((name for name, last in _LAST.items() if int(question_id) <= last), "")


def _parsed(review: str, category: str, options: Mapping[str, Any]) -> Pair | None:
    found = parse_llava(review)
    if found is None and category == MATH and options["math"] == "last_line":
        return parse_last_line(review)
    return found


def _reading(options: Mapping[str, Any]) -> str:
    line = "score line read as LLaVA's parse_score does"
    if options["math"] == "last_line":
        return f"{line}, of math questions else the tuple on the last line"
    return line


def _question(line: Line) -> Question:
    if "turns" in line.row:
        turns = line.row["turns"]
        if not isinstance(turns, list) or len(turns) != 1 or not isinstance(turns[0], str):
            raise line.fault("turns must hold one text; Vicuna-80 has one turn")
        text = turns[0]
    else:
        text = line.text("text")
    return Question(
        question_id=line.question_id, text=text, category=line.text("category"), row=line.row
    )
