"""The generate stage: one checkpoint answers the questions of all benchmarks.

It loads what was published and never sees training. What it answers depends on the checkpoint and
the questions only; how long it took stands beside output/, in generation.json of the attempt.

Questions are shared out among equal copies of the model (replicas), one of `devices_per_replica`
ranks each, which work in lockstep. A replica's first rank writes its answers down; replicas say
nothing to each other. Rank zero waits until the logs hold all answers, and publishes them. A rank
that dies ends the attempt, which is the launcher's business; the next attempt asks what is left, on
as many ranks as it has.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from scalesweep.cost_model.token_cache import keep_statistics
from scalesweep.cost_model.token_statistics import SUMS, questions_key
from scalesweep.data.images import normalise, read_pixels
from scalesweep.data.stage import dataset_root
from scalesweep.errors import Interrupted, StageError
from scalesweep.evaluate.answer_end import AnswerEnd
from scalesweep.evaluate.answer_log import Answered, AnswerLog, AnswerLogs
from scalesweep.evaluate.answering_time import answering_time
from scalesweep.evaluate.asked import (
    AskedBenchmark,
    Share,
    ask,
    num_tokens,
    refuse_broken_pictures,
)
from scalesweep.evaluate.benchmarks.registry import benchmark as find_benchmark
from scalesweep.evaluate.generation import Prompt, end_tokens, generate_tokens
from scalesweep.evaluate.letters import EncodedLetters, LetterChooser, likeliest
from scalesweep.evaluate.published_answers import model_id, write_answers
from scalesweep.evaluate.questions import Answer, Question
from scalesweep.models.external import check_unchanged
from scalesweep.models.published import load_checkpoint, load_external
from scalesweep.models.replica import Replica, join
from scalesweep.models.used_device import used_device_name
from scalesweep.models.weights import weights_folder
from scalesweep.records import WorkDone, canonical_json
from scalesweep.rundir import write_json
from scalesweep.specs import GenerateSpec
from scalesweep.stages import StageContext
from scalesweep.tracking import metric_names as names

log = logging.getLogger(__name__)

POLL_S = 0.2
"""How often rank zero looks at the other replicas' logs."""
TIME_FILE = "generation.json"


def run(context: StageContext) -> None:
    """Answer what is not answered yet; writes output/answers/<benchmark>.jsonl.

    Raises:
        StageError: weights are missing, or a benchmark cannot be answered by this version.
        DataError: a question or its picture is missing or broken.
        Interrupted: a stop was asked for; what is answered stays answered.
    """
    spec = GenerateSpec.from_identity(context.spec.identity)
    torch.set_num_threads(context.execution.threads_per_rank)
    rules = [
        find_benchmark(asked.name, dataset_root(context, asked.dataset), asked.file, asked.options)
        for asked in spec.benchmarks
    ]
    tokenizer = AutoTokenizer.from_pretrained(_tokenizer_folder(spec, context))
    size = context.execution.devices_per_replica
    share = Share(index=context.rank // size, count=context.world_size // size)
    stage = _Stage(
        context=context,
        spec=spec,
        asked=[ask(each, spec, tokenizer) for each in rules],
        tokenizer=tokenizer,
        share=share,
        replica=join(
            context.attempt.path / f"replica-{share.index:03d}.json",
            rank=context.rank % size,
            size=size,
            device=_device(context),
        ),
    )
    stage.answer_share()
    if share.index == 0:
        stage.answer_rest()
    if context.is_main:
        stage.publish()


def _device(context: StageContext) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # Slurm may show a rank no device but its own.
    device = torch.device("cuda", context.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


@dataclass(kw_only=True)
class _Stage:
    """The work of one rank."""

    context: StageContext
    spec: GenerateSpec
    asked: Sequence[AskedBenchmark]
    tokenizer: Any
    share: Share
    replica: Replica
    _answerer: _Answerer | None = None

    def __post_init__(self) -> None:
        context = self.context
        source = canonical_json([context.spec.key, context.inputs_digest()])
        digest = hashlib.sha256(source.encode()).hexdigest()
        attempts = [attempt.path for attempt in context.earlier_attempts()][::-1]
        self._logs = AnswerLogs(folders=attempts, source=digest)
        self._own = AnswerLog(context.attempt.path, replica=self.share.index, source=digest)
        self._told = -1
        self._before: dict[str, set[str]] = {}
        """Benchmark -> questions that earlier attempts had answered."""

    def answer_share(self) -> None:
        """What falls to this replica of all that earlier attempts left."""
        self._logs.update()
        self._before = {asked.name: set(self._logs.of(asked.name)) for asked in self.asked}
        self._tell()
        batches, dealt = [], 0
        for asked, left in zip(self.asked, self._agreed_left(), strict=True):
            batches += [
                (asked, batch)
                for batch in asked.batches(
                    left, batch_size=self._batch_size, share=self.share, first=dealt
                )
            ]
            dealt += len(left)
        # Only now: what others of this attempt say already must not change the shares.
        self._logs.folders.append(self.context.attempt.path)
        self._answer(batches)
        if self.replica.is_first:
            self._own.finish()

    def answer_rest(self) -> None:
        """Wait until all replicas are done. What none of them took is answered here: while an
        attempt that was given up still writes, ranks may see different things left."""
        others = {
            AnswerLog(self.context.attempt.path, replica=index, source="").path
            for index in range(1, self.share.count)
        }
        while self.replica.of_first(self._done < self._total and not others <= self._logs.finished):
            if self._stop_requested():
                raise self._interrupted()
            time.sleep(POLL_S)
            self._logs.update()
            self._tell()
        self._answer(
            [
                (asked, batch)
                for asked, left in zip(self.asked, self._agreed_left(), strict=True)
                for batch in asked.batches(left, batch_size=self._batch_size, share=Share())
            ]
        )

    def publish(self) -> None:
        """All answers in the official formats, and how long they took."""
        folder = self.context.attempt.output / "answers"
        folder.mkdir(parents=True, exist_ok=True)
        who = model_id(self.spec)
        for asked in self.asked:
            found = self._logs.of(asked.name)
            answers = {q.question_id: found[q.question_id].answer for q in asked.questions}
            write_answers(folder / f"{asked.name}.jsonl", asked.questions, answers, model_id=who)
            asked.rules.write_answers(folder, answers, model_id=who)
        write_json(self.context.attempt.path / TIME_FILE, self._times())
        write_json(self.context.attempt.work_file, self._work_done().to_json())
        keep_statistics(
            self.context.store.cache, questions_key(self.context.spec), self._token_sums()
        )

    def _work_done(self) -> WorkDone:
        """What all ranks of this attempt asked and were told."""
        lengths, generated, pictures = [], 0, 0
        for asked in self.asked:
            found, before = self._logs.of(asked.name), self._before[asked.name]
            for question, prompt in zip(asked.questions, asked.prompts, strict=True):
                if question.question_id not in before:
                    lengths.append(num_tokens(prompt))
                    generated += found[question.question_id].answer.num_tokens
                    pictures += question.image is not None and self.spec.tower is not None
        return WorkDone(
            units=len(lengths),
            samples=len(lengths),
            tokens=sum(lengths),
            squared_lengths=sum(length * length for length in lengths),
            pictures=pictures,
            generated=generated,
            device=used_device_name(_device(self.context)),
        )

    def _token_sums(self) -> dict[str, int]:
        """Of all questions, whichever attempt asked them."""
        sums = dict.fromkeys(SUMS, 0)
        patches = 0 if self.spec.tower is None else self.spec.tower.num_patches
        for asked in self.asked:
            found = self._logs.of(asked.name)
            for question, prompt in zip(asked.questions, asked.prompts, strict=True):
                pictured = question.image is not None and self.spec.tower is not None
                text = num_tokens(prompt) - patches * pictured
                sums["num_samples"] += 1
                sums["text_tokens"] += text
                sums["squared_text_tokens"] += text * text
                sums["pictures"] += pictured
                sums["pictured_text_tokens"] += text * pictured
                # A letter is chosen by one look, as a first token is; no tokens are counted for it.
                sums["supervised"] += max(found[question.question_id].answer.num_tokens, 1)
        return sums

    def _times(self) -> dict[str, Any]:
        execution = self.context.execution
        answered = {
            asked.name: [self._logs.of(asked.name)[q.question_id] for q in asked.questions]
            for asked in self.asked
        }
        return {
            "num_beams": self.spec.num_beams,
            "batch_size": execution.micro_batch_size,
            "num_replicas": self.share.count,
            "devices_per_replica": execution.devices_per_replica,
            "benchmarks": {name: answering_time(each) for name, each in answered.items()},
            "all": answering_time([one for each in answered.values() for one in each]),
        }

    def _answer(self, batches: Sequence[tuple[AskedBenchmark, list[int]]]) -> None:
        if not batches:
            return
        for asked, batch in batches:
            refuse_broken_pictures(asked, batch)
        answerer = self._loaded()
        try:
            for asked, batch in batches:
                for answered in answerer.answers(asked, batch):
                    if self.replica.is_first:
                        self._own.append(answered)
                    self._logs.update()
                    self._tell()
        except Interrupted as error:
            raise self._interrupted() from error

    def _loaded(self) -> _Answerer:
        if self._answerer is None:
            self._answerer = _Answerer(
                spec=self.spec,
                model=_model(self.spec, self.context, self.replica),
                tokenizer=self.tokenizer,
                alone=self.replica.size == 1,
                stop_requested=self._stop_requested,
            )
        return self._answerer

    def _stop_requested(self) -> bool:
        """The same on all ranks of a replica, which ask together."""
        return self.replica.any(self.context.stop_requested())

    def _agreed_left(self) -> list[list[int]]:
        return self.replica.of_first([self._left(asked) for asked in self.asked])

    def _left(self, asked: AskedBenchmark) -> list[int]:
        return asked.left(self._logs.of(asked.name))

    @property
    def _batch_size(self) -> int:
        return self.context.execution.micro_batch_size

    @property
    def _total(self) -> int:
        return sum(len(asked.questions) for asked in self.asked)

    @property
    def _done(self) -> int:
        return self._total - sum(len(self._left(asked)) for asked in self.asked)

    def _interrupted(self) -> Interrupted:
        return Interrupted(f"stopped after {self._done} of {self._total} answers")

    def _tell(self) -> None:
        if self.context.is_main and (done := self._done) != self._told:
            self._told = done
            self.context.log_metrics(
                {
                    names.PROGRESS_DONE: done,
                    names.PROGRESS_TOTAL: self._total,
                    names.PROGRESS_UNIT: "answer",
                }
            )


@dataclass(kw_only=True)
class _Answerer:
    """A loaded model that answers a batch at a time."""

    spec: GenerateSpec
    model: Any
    tokenizer: Any
    alone: bool
    """No other rank is in the middle of the same batch."""
    stop_requested: Callable[[], bool]

    def __post_init__(self) -> None:
        self._chooser = LetterChooser(self.model)
        self._end = AnswerEnd(
            self.tokenizer,
            end_tokens=end_tokens(self.model, self.tokenizer),
            stop_strings=self.spec.stop_strings,
        )
        self._most: int | None = None
        """Questions for which there is memory; None where it never ran out."""

    def answers(self, asked: AskedBenchmark, batch: Sequence[int]) -> Iterator[list[Answered]]:
        """The answers of a batch; of its halves, one after the other, where memory runs out.

        Raises:
            StageError: there is no memory for one question alone.
            Interrupted: a stop was asked for; what was not given yet is lost.
        """
        waiting = list(batch)
        while waiting:
            part = waiting[: self._most]
            if self.stop_requested():
                raise Interrupted("stopped between two batches")
            answered = self._answered(asked, part)
            if answered is None:
                self._ask_fewer(asked, part)
                continue
            yield answered
            waiting = waiting[len(part) :]

    def _answered(self, asked: AskedBenchmark, numbers: Sequence[int]) -> list[Answered] | None:
        """None where memory ran out; what was computed is let go before anything else is tried."""
        begin = time.perf_counter()
        try:
            answers = self._asked(asked, numbers)
        except torch.OutOfMemoryError:
            if not self.alone:
                raise
            return None
        seconds = time.perf_counter() - begin
        return [
            Answered(
                benchmark=asked.name,
                answer=answer,
                batch_seconds=seconds,
                batch_size=len(numbers),
            )
            for answer in answers
        ]

    def _ask_fewer(self, asked: AskedBenchmark, part: Sequence[int]) -> None:
        if len(part) == 1:
            name = asked.questions[part[0]].question_id
            raise StageError(
                f"{asked.name}, question {name}: does not fit into the device's memory even alone; "
                "split the model over more devices (evaluation.devices_per_replica)"
            )
        self._most = len(part) // 2
        log.warning(
            "out of memory with %d questions at once; going on with %d", len(part), self._most
        )
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _asked(self, asked: AskedBenchmark, numbers: Sequence[int]) -> list[Answer]:
        questions = [asked.questions[number] for number in numbers]
        prompts = [asked.prompts[number] for number in numbers]
        compared = [prompt for prompt in prompts if isinstance(prompt, EncodedLetters)]
        if compared:
            return self._chosen(questions, compared)
        generated = [prompt for prompt in prompts if isinstance(prompt, Prompt)]
        said = generate_tokens(
            self.model,
            self.tokenizer,
            generated,
            pixels=self._pixels(questions),
            num_beams=self.spec.num_beams,
            max_new_tokens=self.spec.max_new_tokens,
            stop_strings=self.spec.stop_strings,
            stop_requested=self.stop_requested,
        )
        return [
            Answer(
                question_id=question.question_id,
                text=self._end.text(tokens),
                num_tokens=len(tokens),
            )
            for question, tokens in zip(questions, said, strict=True)
        ]

    def _chosen(
        self, questions: Sequence[Question], prompts: Sequence[EncodedLetters]
    ) -> list[Answer]:
        chosen = self._chooser.choose(prompts)
        return [
            Answer(
                question_id=question.question_id,
                text=likeliest(log_probs),
                log_probs=log_probs,
                shots=prompt.num_shots,
            )
            for question, prompt, log_probs in zip(questions, prompts, chosen, strict=True)
        ]

    def _pixels(self, questions: Sequence[Question]) -> Tensor | None:
        """Of those questions that have a picture, [n, 3, H, W]; None where none has."""
        if self.spec.tower is None:
            return None
        side = self.spec.tower.image_size
        pixels = [
            read_pixels(question.image, side, item=f"question {question.question_id}")
            for question in questions
            if question.image is not None
        ]
        if not pixels:
            return None
        return normalise(torch.from_numpy(np.stack(pixels)), blind=self.spec.blind)


def _tokenizer_folder(spec: GenerateSpec, context: StageContext) -> Path:
    if spec.checkpoint == "external":
        return Path(context.execution.paths["tokenizer"])
    return _weights(context, "tokenizer", spec.model.tokenizer)


def _model(spec: GenerateSpec, context: StageContext, replica: Replica) -> Any:
    if spec.checkpoint == "external":
        return _external(spec, context, replica)
    model, _ = load_checkpoint(
        spec=spec,
        checkpoint=context.inputs.get("checkpoint"),
        language_model=_weights(context, "language_model", spec.model.weights),
        vision_tower=(
            None if spec.tower is None else _weights(context, "vision_tower", spec.tower.weights)
        ),
        tokenizer=_weights(context, "tokenizer", spec.model.tokenizer),
        replica=replica,
    )
    return model


def _external(spec: GenerateSpec, context: StageContext, replica: Replica) -> Any:
    """A checkpoint of no stage, if its bytes are still those that were planned with."""
    paths, cache = context.execution.paths, context.store.cache
    folder = Path(paths["checkpoint"])
    base = Path(paths["language_model"]) if "language_model" in paths else None
    assert spec.checkpoint_weights is not None
    check_unchanged(spec.checkpoint_weights, folder, cache)
    if base is not None:
        check_unchanged(spec.model.weights, base, cache)
    model, _ = load_external(
        spec=spec,
        checkpoint=folder,
        base=base,
        tokenizer=_tokenizer_folder(spec, context),
        replica=replica,
    )
    return model


def _weights(context: StageContext, role: str, declared: str) -> Path:
    return weights_folder(role, declared, paths=context.execution.paths, inputs=context.inputs)
