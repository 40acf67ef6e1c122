"""LLaVA-Bench, In-the-Wild and COCO: a judge reviews each answer beside a reference answer.

In-the-Wild: questions.jsonl, context.jsonl (captions), answers_gpt4.jsonl, images/. COCO:
qa90_questions.jsonl, caps_boxes_coco2014_val_80.jsonl, qa90_gpt4_answer.jsonl, pictures of COCO's
val2014. Files are joined by question_id; the official script takes them line by line.

Source: haotian-liu/LLaVA (c121f04) llava/eval/eval_gpt_review_bench.py, eval_gpt_review_visual.py,
summarize_gpt_review.py.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from scalesweep.errors import DataError
from scalesweep.evaluate.answer_files import SavedAnswer, answer_id, official_id, read_answers
from scalesweep.evaluate.benchmarks.base import Benchmark
from scalesweep.evaluate.json_lines import Line, by_question, read_lines, write_lines
from scalesweep.evaluate.judge_prompts import REVIEWER, llava_rules
from scalesweep.evaluate.judging.items import JudgeItem, Replies, Request
from scalesweep.evaluate.questions import Question
from scalesweep.evaluate.review_files import gather
from scalesweep.evaluate.reviews import (
    UNREADABLE,
    Pair,
    parse_llava,
    parse_lmms_eval,
    relative_score,
)
from scalesweep.evaluate.scores import BenchmarkScore

CATEGORIES = ("conv", "detail", "complex")
IMAGES = "images"
_PARSERS = {"llava": parse_llava, "lmms_eval": parse_lmms_eval}
_READINGS = {
    "llava": "score line read as LLaVA's parse_score does",
    "lmms_eval": "score line read as lmms-eval does, the first two numbers of the first line",
}


def review_request(content: str) -> Request:
    """What LLaVA's review scripts ask of the judge."""
    return Request(
        messages=(("system", REVIEWER), ("user", content)), temperature=0.2, max_tokens=1024
    )


class _LlavaBench(Benchmark):
    question_files: ClassVar[tuple[str, ...]]
    official_count: ClassVar[int]
    prefix: ClassVar[str]
    """Of a category's name in rule.json and in reviews."""

    @abstractmethod
    def _picture(self, name: str) -> Path:
        """The file of a picture."""

    @abstractmethod
    def _context(self, line: Line) -> str:
        """What the judge is told of a picture."""

    def _read_questions(self) -> list[Question]:
        lines = by_question(read_lines(self.root / self.file), done="asked")
        return [self._question(line) for line in lines.values()]

    def _question(self, line: Line) -> Question:
        category = line.text("category")
        if category not in CATEGORIES:
            raise line.fault(f"category {category} is none of {', '.join(CATEGORIES)}")
        return Question(
            question_id=line.question_id,
            text=line.text("text"),
            category=category,
            image=self._picture(line.text("image")),
            row=line.row,
        )

    @cached_property
    def contexts(self) -> dict[str, str]:
        """Picture's name -> what the judge is told of it.

        Raises:
            DataError: the file is broken, or a question's picture is not in it.
        """
        file = self.root / self.options["context"]
        found = {line.text("image"): self._context(line) for line in read_lines(file)}
        for question in self.questions:
            if question.row["image"] not in found:
                raise DataError(
                    f"{file}: says nothing of {question.row['image']}, the picture of question "
                    f"{question.question_id}; it belongs to other questions"
                )
        return found

    @cached_property
    def references(self) -> dict[str, SavedAnswer]:
        """question_id -> reference answer."""
        return read_answers(self.root / self.options["reference"], self.questions)

    def judge_items(self, answers: Mapping[str, str]) -> list[JudgeItem]:
        return [
            JudgeItem(
                item=question.question_id,
                request=review_request(
                    llava_rules()[self.prefix + question.category].ask(
                        context=self.contexts[question.row["image"]],
                        question=question.text,
                        answers=(
                            self.references[question.question_id].text,
                            answers[question.question_id],
                        ),
                    )
                ),
                is_valid=lambda reply: self._verdict(reply) is not None,
                # The 360 reviews of LLaVA-1.5 that were published have 519 characters on average.
                expected_reply_tokens=120,
            )
            for question in self.questions
        ]

    def _verdict(self, reply: str) -> Pair | None:
        return _PARSERS[self.options["parsing"]](reply)

    def score(self, answers: Mapping[str, str], replies: Sequence[Replies]) -> BenchmarkScore:
        runs = [
            {
                item: self._verdict(reply.text)
                for item, reply in run.items()
                if reply.text is not None
            }
            for run in replies
        ]
        return relative_score(
            runs,
            {question.question_id: question.category for question in self.questions},
            benchmark=self.name,
            reading=_READINGS[self.options["parsing"]],
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
        """One file per run, as the review script has it; answers without a reply are left out."""
        for number, run in enumerate(replies, start=1):
            rows = []
            for position, question in enumerate(self.questions, start=1):
                reply = run.get(question.question_id)
                if reply is None or reply.text is None:
                    continue
                verdict = self._verdict(reply.text)
                rows.append(
                    review_row(
                        position,
                        question,
                        reference=self.references[question.question_id],
                        candidate=answers[question.question_id],
                        category=self.prefix + question.category,
                        review=reply.text,
                        verdict=verdict,
                    )
                )
            write_lines(folder / review_name(self.name, judge_model, number), rows)

    @classmethod
    def score_options(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("unparsable", "parsing")

    @classmethod
    def score_files(
        cls,
        files: Sequence[Path],
        options: Mapping[str, Any],
        *,
        data: Path | None,
        ignore: frozenset[str],
    ) -> BenchmarkScore:
        asked = cls.categories_in(data, cls.question_files, options)
        parse = _PARSERS[options["parsing"]]
        gathered = gather(
            files,
            lambda review, _: parse(review),
            questions=asked,
            written={cls.prefix + category: category for category in CATEGORIES},
            official_count=cls.official_count,
            ignore=ignore,
        )
        return relative_score(
            gathered.runs,
            gathered.questions,
            benchmark=cls.name,
            reading=_READINGS[options["parsing"]],
            options={name: options[name] for name in cls.score_options(options)},
            notes=gathered.notes,
        )


def review_row(
    position: int,
    question: Question,
    *,
    reference: SavedAnswer,
    candidate: str,
    category: str,
    review: str,
    verdict: Pair | None,
) -> dict[str, Any]:
    """A line of LLaVA's review scripts. position: of the question, from 1."""
    return {
        "id": position,
        "question_id": official_id(question),
        "answer1_id": reference.answer_id,
        "answer2_id": answer_id(question.question_id, candidate),
        "category": category,
        "content": review,
        "tuple": list(verdict or UNREADABLE),
    }


def review_name(benchmark: str, judge_model: str, number: int, *, kind: str = "") -> str:
    """File of one judge run. kind: of reviews, where a benchmark has several."""
    model = judge_model.replace("/", "_")
    return "_".join(filter(None, (benchmark, model, kind, f"run{number}"))) + ".jsonl"


class LlavaBench(_LlavaBench):
    name = "llava_bench"
    title = "LLaVA-Bench (In-the-Wild)"
    question_files = ("questions.jsonl",)
    official_count = 60
    prefix = "llava_bench_"

    def _picture(self, name: str) -> Path:
        return self.root / IMAGES / name

    def _context(self, line: Line) -> str:
        caption = line.row.get("caption")
        if isinstance(caption, list) and all(isinstance(text, str) for text in caption):
            return "\n".join(caption)
        return line.text("caption")


class LlavaBenchCoco(_LlavaBench):
    name = "llava_bench_coco"
    title = "LLaVA-Bench (COCO)"
    question_files = ("qa90_questions.jsonl",)
    official_count = 90
    prefix = ""

    def _picture(self, name: str) -> Path:
        """Below images/ or val2014/, named as in the questions or as COCO names it."""
        places = [
            self.root / folder / f"{prefix}{name}"
            for folder in (IMAGES, "val2014")
            for prefix in ("", "COCO_val2014_")
        ]
        return next((place for place in places if place.is_file()), places[0])

    def _context(self, line: Line) -> str:
        captions, instances = line.row.get("captions"), line.row.get("instances")
        if not isinstance(captions, list) or not isinstance(instances, list):
            raise line.fault("captions or instances is missing or no list")
        try:
            boxes = "\n".join(f"{box['category']}: {box['bbox']}" for box in instances)
            return "\n".join(captions) + f"\n\n{boxes}"
        except (KeyError, TypeError) as error:
            raise line.fault(f"captions or instances cannot be read ({error!r})") from error
