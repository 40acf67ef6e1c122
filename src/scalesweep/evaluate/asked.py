"""The questions of one benchmark in tokens, refused by name before anything is answered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from scalesweep.data.tokenize import TextEncoder
from scalesweep.errors import DataError
from scalesweep.evaluate import generation, letters
from scalesweep.evaluate.benchmarks.base import Benchmark
from scalesweep.evaluate.generation import Prompt
from scalesweep.evaluate.letters import EncodedLetters
from scalesweep.evaluate.pictures import broken_picture
from scalesweep.evaluate.questions import Question
from scalesweep.specs import GenerateSpec


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which of several equal models a rank belongs to, each of which answers its share."""

    index: int = 0
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class AskedBenchmark:
    """One benchmark, ready to be asked."""

    rules: Benchmark
    prompts: Sequence[Prompt | EncodedLetters]
    """Of each question, in the questions' order."""

    @property
    def name(self) -> str:
        return self.rules.name

    @property
    def questions(self) -> Sequence[Question]:
        return self.rules.questions

    def left(self, answered: Collection[str]) -> list[int]:
        """Numbers of the questions that have no answer yet."""
        return [n for n, q in enumerate(self.questions) if q.question_id not in answered]

    def batches(
        self, left: Sequence[int], *, batch_size: int, share: Share, first: int = 0
    ) -> list[list[int]]:
        """A share of what is left, in batches; every batch is generated, or compares letters.

        Answers are generated longest prompt first, and dealt like cards: each share has as many
        questions as another, one at most more, and of the same lengths. first: share that the
        first card goes to, so that not always the same one has one more.
        Letters are compared subject by subject, and a share gets whole batches in a row, as many
        tokens as another: what the prompts of a subject begin with is then computed by few.
        """
        generated = [p for n in left if isinstance(p := self.prompts[n], Prompt)]
        compared = [(n, p) for n in left if isinstance(p := self.prompts[n], EncodedLetters)]
        cards = [prompt for [prompt] in generation.batches(generated, batch_size=1)]
        dealt = cards[(share.index - first) % share.count :: share.count]
        made = [
            [prompt.number for prompt in batch]
            for batch in generation.batches(dealt, batch_size=batch_size)
        ]
        places = letters.batches([p for _, p in compared], batch_size=batch_size)
        chosen = [[compared[place][0] for place in batch] for batch in places]
        return made + self._in_a_row(chosen, share)

    def _in_a_row(self, chosen: Sequence[list[int]], share: Share) -> list[list[int]]:
        weights = [sum(num_tokens(self.prompts[number]) for number in batch) for batch in chosen]
        total, before, mine = sum(weights), 0, []
        for batch, weight in zip(chosen, weights, strict=True):
            # The share in which the batch's middle token lies.
            if (2 * before + weight) * share.count // (2 * total) == share.index:
                mine.append(batch)
            before += weight
        return mine


def num_tokens(prompt: Prompt | EncodedLetters) -> int:
    return len(prompt.input_ids if isinstance(prompt, Prompt) else prompt.ids)


def ask(rules: Benchmark, spec: GenerateSpec, tokenizer: Any) -> AskedBenchmark:
    """A benchmark's questions in tokens.

    Nothing is cut: LLaVA's own scripts do not either. A prompt that is longer than the model's
    context is refused; an answer may run over its end, as there.

    Raises:
        DataError: a question cannot be asked this model; the message names it.
    """
    encoder = TextEncoder(tokenizer)
    prompts = [
        _prompt(number, question, spec, encoder, tokenizer, benchmark=rules.name)
        for number, question in enumerate(rules.questions)
    ]
    return AskedBenchmark(rules=rules, prompts=prompts)


def check(rules: Benchmark, spec: GenerateSpec, tokenizer: Any) -> None:
    """Refuse what ask() would, without the time that it takes: of questions that are answered by
    letters only the longest is put in tokens.

    Raises:
        DataError: a question cannot be asked this model; the message names it.
    """
    encoder = TextEncoder(tokenizer)
    numbered = list(enumerate(rules.questions))
    by_letters = [(n, q) for n, q in numbered if q.letters is not None]
    longest = sorted(by_letters, key=lambda pair: len(pair[1].text), reverse=True)[:1]
    for number, question in [(n, q) for n, q in numbered if q.letters is None] + longest:
        _prompt(number, question, spec, encoder, tokenizer, benchmark=rules.name)


def _prompt(
    number: int,
    question: Question,
    spec: GenerateSpec,
    encoder: TextEncoder,
    tokenizer: Any,
    *,
    benchmark: str,
) -> Prompt | EncodedLetters:
    context = spec.model.max_position_embeddings
    name = f"{benchmark}, question {question.question_id}"
    if question.letters is not None:
        limit = min(letters.MAX_TOKENS, context)
        return letters.encode(tokenizer, question.letters, max_tokens=limit, item=name)
    patches = 0
    if question.image is not None:
        if spec.tower is None:
            raise DataError(
                f"{name}: has a picture, which {spec.model.name} alone cannot see; ask it "
                "benchmarks without pictures (evaluation.base_benchmarks)"
            )
        patches = spec.tower.num_patches
    ids = encoder.prompt(spec.model.template, question.text, num_patches=patches)
    if len(ids) > context:
        raise DataError(
            f"{name}: {len(ids)} tokens with its template and picture, but {spec.model.name} reads "
            f"{context} (model.max_position_embeddings); leave the benchmark out, or take a model "
            "with a longer context"
        )
    return Prompt(number=number, input_ids=ids)


def refuse_broken_pictures(asked: AskedBenchmark, numbers: Sequence[int]) -> None:
    """Look at the pictures of questions before hours are spent on others.

    Raises:
        DataError: one is missing or damaged; the message names question and file.
    """
    broken = broken_picture([asked.questions[number] for number in numbers])
    if broken is not None:
        raise DataError(f"{asked.name}, {broken}; restore the file")
