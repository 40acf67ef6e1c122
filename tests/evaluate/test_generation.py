"""A batch answers what each of its prompts would be answered alone, by plain transformers too."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scalesweep.data.images import normalise
from scalesweep.data.tokenize import TextEncoder
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.errors import Interrupted
from scalesweep.evaluate.answer_end import AnswerEnd
from scalesweep.evaluate.generation import Prompt, batches, generate_tokens
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
    model: Any,
    asked: list[Prompt],
    shown: torch.Tensor | None,
    *,
    num_beams: int = 1,
    tokenizer: Any = None,
    **settings: Any,
) -> list[list[int]]:
    return generate_tokens(
        model,
        tokenizer or miniature_tokenizer(),
        asked,
        pixels=shown,
        num_beams=num_beams,
        **{"max_new_tokens": 6, **settings},
    )


def plain(
    model: Any, prompt: Prompt, shown: torch.Tensor | None, *, num_beams: int = 1, **settings: Any
) -> list[int]:
    """What transformers' own generate() says to one prompt, without padding behind the end."""
    ids = torch.from_numpy(prompt.input_ids.astype(np.int64))[None]
    picture = {} if shown is None else {"pixel_values": shown[None]}
    tokens = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=num_beams,
        **{"max_new_tokens": 6, **settings},
        **picture,
    )[0, ids.shape[1] :].tolist()
    end = miniature_tokenizer().eos_token_id
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("pictures", [True, False])
def test_each_answer_is_plain_transformers_to_its_prompt_alone(
    model: Any, num_beams: int, pictures: bool
) -> None:
    asked, shown = prompts(pictures=pictures), pixels()

    together = answered(model, asked, shown if pictures else None, num_beams=num_beams)

    for prompt, tokens in zip(asked, together, strict=True):
        picture = shown[prompt.number] if pictures else None
        assert tokens == plain(model, prompt, picture, num_beams=num_beams)


def test_prompts_with_and_without_a_picture_share_a_batch(model: Any) -> None:
    with_picture, without, shown = prompts(pictures=True), prompts(pictures=False), pixels()
    mixed = [with_picture[0], without[1], with_picture[2], without[3]]

    said = answered(model, mixed, shown[[0, 2]])

    alone = [
        plain(model, mixed[0], shown[0]),
        plain(model, mixed[1], None),
        plain(model, mixed[2], shown[2]),
        plain(model, mixed[3], None),
    ]
    assert said == alone


@pytest.mark.parametrize("count", range(1, 6))
def test_answers_that_leave_the_batch_change_none_that_stay(model: Any, count: int) -> None:
    """The longest answers last: stop strings end the others one after the other."""
    asked, shown = prompts(pictures=True), pixels()
    free = answered(model, asked, shown, max_new_tokens=40)
    tokenizer = miniature_tokenizer()
    word = tokenizer.decode(free[count][:1])

    said = answered(model, asked, shown, max_new_tokens=40, stop_strings=[word])

    for tokens, whole in zip(said, free, strict=True):
        ends = [n + 1 for n in range(len(whole)) if word in tokenizer.decode(whole[: n + 1])]
        assert tokens == whole[: min(ends, default=len(whole))]
    assert len(said[count]) == 1


def test_settings_of_the_model_that_change_scores_are_followed(tmp_path: Path, model: Any) -> None:
    """As plain generate() does; Qwen's models, for one, come with a repetition penalty."""
    asked = prompts(pictures=False)
    free = answered(model, asked, None)
    other = tuned(Method.full, tmp_path)
    other.generation_config.suppress_tokens = [free[0][0]]
    other.generation_config.repetition_penalty = 1.3

    said = answered(other, asked, None)

    assert free[0][0] not in said[0]
    assert said == [plain(other, prompt, None) for prompt in asked]


def test_every_end_token_that_the_model_names_ends_an_answer(tmp_path: Path, model: Any) -> None:
    asked = prompts(pictures=False)
    free = answered(model, asked, None)
    token = free[0][0]
    other = tuned(Method.full, tmp_path)
    other.generation_config.eos_token_id = [2, token]

    said = answered(other, asked, None)

    assert said[0] == [token]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_stop_is_heard_between_two_tokens(model: Any, num_beams: int) -> None:
    looks = itertools.count(1)

    with pytest.raises(Interrupted):
        answered(
            model,
            prompts(pictures=False),
            None,
            num_beams=num_beams,
            stop_requested=lambda: next(looks) == 2,
        )

    assert next(looks) == 3


@pytest.mark.parametrize("pictures", [True, False])
def test_a_beam_ends_at_a_stop_string(model: Any, pictures: bool) -> None:
    """A word is one token of the miniature, so plain generate() can be told that it is an end."""
    tokenizer = miniature_tokenizer()
    asked, shown = prompts(pictures=pictures), pixels() if pictures else None
    free = answered(model, asked, shown, num_beams=3)
    token = free[0][0]

    said = answered(model, asked, shown, num_beams=3, stop_strings=[tokenizer.decode([token])])

    for prompt, tokens in zip(asked, said, strict=True):
        picture = None if shown is None else shown[prompt.number]
        ends = [tokenizer.eos_token_id, token]
        theirs = plain(model, prompt, picture, num_beams=3, eos_token_id=ends)
        assert tokens == AnswerEnd(tokenizer, end_tokens=ends).cut(theirs)
    assert said != free


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
    asked = prompts(pictures=False)

    assert answered(model, asked, None, tokenizer=tokenizer) == answered(model, asked, None)


def test_prompts_of_similar_length_are_batched_longest_first() -> None:
    asked = [
        Prompt(number=number, input_ids=np.zeros(length, dtype=np.int32))
        for number, length in enumerate([5, 3, 9, 3, 4])
    ]

    made = [[prompt.number for prompt in batch] for batch in batches(asked, batch_size=2)]

    assert made == [[2, 0], [4, 1], [3]]
