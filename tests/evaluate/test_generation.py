"""A batch answers what each of its prompts would be answered alone, by plain transformers too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scalesweep.data.images import normalise
from scalesweep.data.tokenize import TextEncoder
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.evaluate.generation import Answer, Prompt, batches, generate_batch
from scalesweep.specs import Method
from tests.models.checkpoints import tuned

TEXTS = [
    "what color is the circle ?",
    "where is the red cross ?",
    "what digit is on the square ?",
    "what is the digit on the white diamond plus 3 ?",
    "who owns the circle ?",
    "what shape is top left ?",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tuned(Method.full, tmp_path_factory.mktemp("full"))


def prompts(*, pictures: bool) -> list[Prompt]:
    encoder = TextEncoder(miniature_tokenizer())
    return [
        Prompt(number=n, input_ids=encoder.prompt("mini", text, num_patches=16 if pictures else 0))
        for n, text in enumerate(TEXTS)
    ]


def pixels(count: int = len(TEXTS)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    shown = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return normalise(shown)


def answered(
    model: Any, asked: list[Prompt], shown: torch.Tensor | None, *, num_beams: int = 1
) -> list[Answer]:
    return generate_batch(
        model,
        miniature_tokenizer(),
        asked,
        pixels=shown,
        num_beams=num_beams,
        max_new_tokens=6,
    )


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("pictures", [True, False])
def test_each_answer_is_plain_transformers_to_its_prompt_alone(
    model: Any, num_beams: int, pictures: bool
) -> None:
    tokenizer = miniature_tokenizer()
    asked, shown = prompts(pictures=pictures), pixels()

    together = answered(model, asked, shown if pictures else None, num_beams=num_beams)

    for prompt, answer in zip(asked, together, strict=True):
        ids = torch.from_numpy(prompt.input_ids.astype(np.int64))[None]
        picture = {"pixel_values": shown[prompt.number][None]} if pictures else {}
        tokens = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            num_beams=num_beams,
            max_new_tokens=6,
            **picture,
        )[0, ids.shape[1] :]
        expected = tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert (answer.number, answer.text) == (prompt.number, expected)


def test_an_image_token_beyond_the_vocabulary_can_be_asked(tmp_path: Path, model: Any) -> None:
    beyond = [
        Prompt(
            number=p.number, input_ids=np.where(p.input_ids == 4, 132, p.input_ids).astype(np.int32)
        )
        for p in prompts(pictures=True)
    ]
    other = tuned(Method.full, tmp_path)
    other.config.image_token_id = 132

    assert answered(other, beyond, pixels()) == answered(model, prompts(pictures=True), pixels())


def test_a_tokenizer_without_a_padding_token_pads_all_the_same(model: Any) -> None:
    tokenizer = miniature_tokenizer()
    tokenizer.pad_token = None

    bare = generate_batch(
        model,
        tokenizer,
        prompts(pictures=False),
        pixels=None,
        num_beams=1,
        max_new_tokens=6,
    )

    assert bare == answered(model, prompts(pictures=False), None)


def test_prompts_of_similar_length_are_batched_shortest_first() -> None:
    asked = [
        Prompt(number=number, input_ids=np.zeros(length, dtype=np.int32))
        for number, length in enumerate([5, 3, 9, 3, 4])
    ]

    made = [[prompt.number for prompt in batch] for batch in batches(asked, batch_size=2)]

    assert made == [[1, 3], [4, 0], [2]]


class SaysTokens:
    """A model that generates what it was told to."""

    def __init__(self, *tokens: list[int]) -> None:
        self.tokens = torch.tensor(tokens)

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def generate(self, *, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.cat([input_ids, self.tokens], dim=1)


def test_an_answer_ends_at_the_end_token_and_may_be_empty() -> None:
    tokenizer = miniature_tokenizer()
    red, blue = tokenizer("red blue")["input_ids"]
    asked = prompts(pictures=False)[:3]

    said = answered(SaysTokens([red, 2, 0, 0], [2, 0, 0, 0], [red, blue, red, red]), asked, None)

    assert [answer.text for answer in said] == ["red", "", "red blue red red"]
    assert [answer.num_tokens for answer in said] == [2, 1, 4]
