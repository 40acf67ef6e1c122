"""The generate stage: one checkpoint answers the questions of all benchmarks.

It loads what was published and never sees training. What it answers depends on the checkpoint and
the questions only; how long it took stands beside output/, in generation.json of the attempt.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scalesweep.data.images import normalise, read_pixels
from scalesweep.data.stage import dataset_root
from scalesweep.data.tokenize import TextEncoder
from scalesweep.errors import DataError, Interrupted
from scalesweep.evaluate import answer_log
from scalesweep.evaluate.benchmarks.registry import benchmark as find_benchmark
from scalesweep.evaluate.generation import Answer, Prompt, batches, generate_batch
from scalesweep.evaluate.questions import Question
from scalesweep.models.published import load_checkpoint
from scalesweep.models.weights import weights_folder
from scalesweep.rundir import write_json
from scalesweep.specs import GenerateSpec
from scalesweep.stages import StageContext
from scalesweep.tracking import metric_names as names


@dataclass(kw_only=True)
class Timing:
    """What answering took in this attempt."""

    answers: int = 0
    tokens: int = 0
    seconds: float = 0.0
    batch_seconds: list[float] = field(default_factory=list)

    def to_json(self, num_beams: int) -> dict[str, Any]:
        return {
            "num_beams": num_beams,
            "answers": self.answers,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens / self.seconds, 2) if self.seconds else None,
            "answers_per_second": round(self.answers / self.seconds, 2) if self.seconds else None,
        }


def run(context: StageContext) -> None:
    """Answer what is not answered yet; writes output/answers/<benchmark>.jsonl.

    Raises:
        StageError: weights are missing, or a benchmark cannot be answered by this version.
        DataError: a question or its picture is missing or broken.
        Interrupted: a stop was asked for; what is answered stays answered.
    """
    if not context.is_main:
        return
    spec = GenerateSpec.from_identity(context.spec.identity)
    torch.set_num_threads(context.execution.threads_per_rank)
    asked = {
        asked.name: find_benchmark(
            asked.name, dataset_root(context, asked.dataset), asked.file, asked.options
        ).questions
        for asked in spec.benchmarks
    }
    model, tokenizer = _load(spec, context)
    total = sum(len(questions) for questions in asked.values())
    timing, done, inputs = Timing(), 0, context.inputs_digest()
    answers_folder = context.attempt.output / "answers"
    answers_folder.mkdir(parents=True, exist_ok=True)
    for name, questions in asked.items():
        answerer = _Answerer(
            spec=spec,
            context=context,
            model=model,
            tokenizer=tokenizer,
            timing=timing,
            inputs=inputs,
        )
        answers = answerer.answer(name, questions, done=done, total=total)
        _publish(answers_folder / f"{name}.jsonl", questions, answers)
        done += len(questions)
    write_json(context.attempt.path / "generation.json", timing.to_json(spec.num_beams))


def _load(spec: GenerateSpec, context: StageContext) -> tuple[Any, Any]:
    paths, inputs = context.execution.paths, context.inputs
    tower = None
    if spec.tower is not None:
        tower = weights_folder("vision_tower", spec.tower.weights, paths=paths, inputs=inputs)
    return load_checkpoint(
        spec=spec,
        checkpoint=inputs.get("checkpoint"),
        language_model=weights_folder(
            "language_model", spec.model.weights, paths=paths, inputs=inputs
        ),
        vision_tower=tower,
        tokenizer=weights_folder("tokenizer", spec.model.tokenizer, paths=paths, inputs=inputs),
    )


@dataclass(frozen=True, kw_only=True)
class _Answerer:
    """Answers one benchmark."""

    spec: GenerateSpec
    context: StageContext
    model: Any
    tokenizer: Any
    timing: Timing
    inputs: str
    """Digest of what the stage reads."""

    def answer(
        self, name: str, questions: Sequence[Question], *, done: int, total: int
    ) -> Mapping[int, Answer]:
        """All answers by number; those of earlier attempts are taken as they are."""
        earlier = [attempt.path for attempt in self.context.earlier_attempts()]
        found = answer_log.read(earlier[::-1], name, inputs=self.inputs)
        self._tell(done + len(found), total)
        left = [number for number in range(len(questions)) if number not in found]
        for batch in batches(
            self._prompts(questions, left), batch_size=self.context.execution.micro_batch_size
        ):
            if self.context.stop_requested():
                raise Interrupted(f"stopped after {done + len(found)} of {total} answers")
            answers = self._timed(batch, questions)
            answer_log.append(self.context.attempt.path, name, answers, inputs=self.inputs)
            found |= {answer.number: answer for answer in answers}
            self._tell(done + len(found), total)
        return found

    def _prompts(self, questions: Sequence[Question], left: Sequence[int]) -> list[Prompt]:
        encoder, spec = TextEncoder(self.tokenizer), self.spec
        patches = 0 if spec.tower is None else spec.tower.num_patches
        return [
            Prompt(
                number=number,
                input_ids=encoder.prompt(
                    spec.model.template,
                    questions[number].text,
                    num_patches=0 if questions[number].image is None else patches,
                ),
            )
            for number in left
        ]

    def _timed(self, batch: Sequence[Prompt], questions: Sequence[Question]) -> list[Answer]:
        begin = time.perf_counter()
        answers = generate_batch(
            self.model,
            self.tokenizer,
            batch,
            pixels=self._pixels([questions[prompt.number] for prompt in batch]),
            num_beams=self.spec.num_beams,
            max_new_tokens=self.spec.max_new_tokens,
        )
        self.timing.seconds += time.perf_counter() - begin
        self.timing.answers += len(answers)
        self.timing.tokens += sum(answer.num_tokens for answer in answers)
        return answers

    def _pixels(self, questions: Sequence[Question]) -> Tensor | None:
        pictures = [question.image for question in questions]
        if all(picture is None for picture in pictures):
            return None
        if self.spec.tower is None or any(picture is None for picture in pictures):
            raise DataError(
                f"question {questions[0].question_id}: pictures and text-only questions are "
                "mixed in one file, or the checkpoint has no tower"
            )
        side = self.spec.tower.image_size
        pixels = np.stack(
            [
                read_pixels(picture, side, item=f"question {question.question_id}")
                for picture, question in zip(pictures, questions, strict=True)
                if picture is not None
            ]
        )
        return normalise(torch.from_numpy(pixels), blind=self.spec.blind)

    def _tell(self, done: int, total: int) -> None:
        self.context.log_metrics(
            {
                names.PROGRESS_DONE: done,
                names.PROGRESS_TOTAL: total,
                names.PROGRESS_UNIT: "answer",
            }
        )


def _publish(file: Path, questions: Sequence[Question], answers: Mapping[int, Answer]) -> None:
    rows = [
        {
            "question_id": question.question_id,
            "category": question.category,
            "prompt": question.text,
            "text": answers[number].text,
            "reference": question.answer,
            "num_tokens": answers[number].num_tokens,
        }
        for number, question in enumerate(questions)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
