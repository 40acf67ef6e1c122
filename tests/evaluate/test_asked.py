"""Questions are dealt out whole, in equal shares of like lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.errors import DataError
from scalesweep.evaluate.asked import AskedBenchmark, Share, ask, refuse_broken_pictures
from scalesweep.evaluate.benchmarks.base import Benchmark
from scalesweep.evaluate.generation import Prompt
from scalesweep.evaluate.judging.items import Replies
from scalesweep.evaluate.letters import EncodedLetters
from scalesweep.evaluate.questions import Question
from scalesweep.evaluate.scores import BenchmarkScore
from scalesweep.specs import Method
from tests.data.official_files import write_picture
from tests.models.checkpoints import generate_spec


@dataclass(frozen=True)
class Quiz(Benchmark):
    """Questions that a test thinks of."""

    name = "quiz"
    title = "a quiz"
    asked: Sequence[Question] = ()

    def _read_questions(self) -> list[Question]:
        return list(self.asked)

    def score(self, answers: Mapping[str, str], replies: Sequence[Replies]) -> BenchmarkScore:
        raise NotImplementedError


def quiz(*questions: Question) -> Quiz:
    return Quiz(Path(), "quiz", {}, questions)


def generated(lengths: Sequence[int]) -> AskedBenchmark:
    return AskedBenchmark(
        rules=quiz(*(Question(question_id=str(n), text="") for n in range(len(lengths)))),
        prompts=[
            Prompt(number=n, input_ids=np.zeros(length, dtype=np.int32))
            for n, length in enumerate(lengths)
        ],
    )


def compared(subjects: Sequence[int], lengths: Sequence[int]) -> AskedBenchmark:
    """Two tokens are the same for a subject."""
    return AskedBenchmark(
        rules=quiz(*(Question(question_id=str(n), text="") for n in range(len(lengths)))),
        prompts=[
            EncodedLetters(
                ids=np.array([subject] * 2 + [9] * (length - 2), dtype=np.int32),
                num_prefix_tokens=2,
                letter_ids={"A": 3, "B": 4},
                num_shots=0,
            )
            for subject, length in zip(subjects, lengths, strict=True)
        ],
    )


def shares(
    asked: AskedBenchmark, count: int, *, batch_size: int = 2, first: int = 0
) -> list[list[list[int]]]:
    left = range(len(asked.prompts))
    return [
        asked.batches(
            left, batch_size=batch_size, share=Share(index=index, count=count), first=first
        )
        for index in range(count)
    ]


def test_generated_answers_are_dealt_like_cards_longest_first() -> None:
    asked = generated([5, 9, 7, 6, 8, 4, 3])  # longest first: 1 4 2 3 0 5 6

    assert shares(asked, 1) == [[[1, 4], [2, 3], [0, 5], [6]]]
    assert shares(asked, 3) == [[[1, 3], [6]], [[4, 0]], [[2, 5]]]
    assert shares(asked, 3, first=1) == [[[2, 5]], [[1, 3], [6]], [[4, 0]]]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("kind", ["generated", "compared"])
def test_every_question_is_in_one_share(kind: str, count: int) -> None:
    lengths = [3 + n % 5 for n in range(17)]
    subjects = [n // 4 for n in range(17)]
    asked = generated(lengths) if kind == "generated" else compared(subjects, lengths)

    dealt = shares(asked, count)

    assert sorted(n for share in dealt for batch in share for n in batch) == list(range(17))
    if kind == "generated":
        sizes = [sum(map(len, share)) for share in dealt]
        assert max(sizes) - min(sizes) <= 1


def test_letters_are_shared_by_subjects_in_a_row_and_by_tokens() -> None:
    asked = compared([1, 1, 1, 2, 2, 2, 2], [20, 20, 20, 15, 15, 15, 15])

    dealt = shares(asked, 2, batch_size=4)

    assert dealt == [[[0, 1, 2]], [[3, 4, 5, 6]]]  # 60 tokens each


def test_only_what_is_left_is_dealt() -> None:
    asked = generated([5, 4, 3])
    left = asked.left({"1"})

    assert left == [0, 2]
    assert asked.batches(left, batch_size=8, share=Share()) == [[0, 2]]


def test_a_question_that_holds_the_mark_of_a_picture_is_refused() -> None:
    """LLaVA's scripts would look for a second picture, and end there."""
    question = Question(question_id="a", text="what is <image> ?")

    with pytest.raises(DataError, match="holds <image>, the mark of a picture"):
        ask(quiz(question), generate_spec(Method.full), miniature_tokenizer())


def test_another_special_token_in_a_question_is_read_as_such() -> None:
    """As the official scripts do: their tokenizers do not look where a text comes from."""
    question = Question(question_id="a", text="what color </s> is the circle ?")

    (prompt,) = ask(quiz(question), generate_spec(Method.full), miniature_tokenizer()).prompts

    assert isinstance(prompt, Prompt)
    assert prompt.input_ids.tolist().count(miniature_tokenizer().eos_token_id) == 1


def test_a_picture_is_looked_at_before_it_is_its_turn(tmp_path: Path) -> None:
    write_picture(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:-20])
    questions = [
        Question(question_id=name, text="", image=tmp_path / f"{name}.png")
        for name in ("good", "cut")
    ]
    asked = AskedBenchmark(
        rules=quiz(*questions, Question(question_id="bytes", text="", image=b"no picture")),
        prompts=[],
    )

    refuse_broken_pictures(asked, [0])
    with pytest.raises(DataError, match=r"quiz, question cut: picture .*cut\.png cannot be read"):
        refuse_broken_pictures(asked, [0, 1])
    with pytest.raises(DataError, match=r"question bytes: picture cannot be read \(not a picture"):
        refuse_broken_pictures(asked, [2])
