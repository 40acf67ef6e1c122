"""Batched generation: prompts of one length together, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scalesweep.models.embeddings import picture_features, text_embeddings, with_pictures


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One question in tokens."""

    number: int
    """Place in the benchmark."""
    input_ids: npt.NDArray[np.int32]
    """[T], <image> expanded to one image token per patch"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    number: int
    text: str
    num_tokens: int
    """Generated, the end token included."""


def batches(prompts: Sequence[Prompt], *, batch_size: int) -> list[list[Prompt]]:
    """Prompts of similar length together: shortest first, ties in their own order."""
    ordered = sorted(prompts, key=lambda prompt: (len(prompt.input_ids), prompt.number))
    return [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]


def generate_batch(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    pixels: Tensor | None,
    num_beams: int,
    max_new_tokens: int,
) -> list[Answer]:
    """Answers of a batch, greedy or by beam search.

    pixels: [n, 3, H, W] normalised, one picture per prompt in the same order, or None.
    """
    generated = generate_tokens(
        model,
        tokenizer,
        prompts,
        pixels=pixels,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
    )
    return [
        _answer(tokenizer, prompt.number, tokens)
        for prompt, tokens in zip(prompts, generated, strict=True)
    ]


@torch.no_grad()
def generate_tokens(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    pixels: Tensor | None,
    num_beams: int,
    max_new_tokens: int,
) -> list[list[int]]:
    """What each prompt of a batch is answered with, up to and with the end token."""
    device = next(model.parameters()).device
    width = max(len(prompt.input_ids) for prompt in prompts)
    ids = torch.full((len(prompts), width), _pad(tokenizer), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        length = len(prompt.input_ids)
        ids[i, width - length :] = torch.from_numpy(prompt.input_ids.astype(np.int64))
        mask[i, width - length :] = 1
    tokens = model.generate(
        **_inputs(model, ids.to(device), pixels),
        attention_mask=mask.to(device),
        do_sample=False,
        temperature=None,
        top_p=None,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=_pad(tokenizer),
    )
    generated = tokens[:, width:] if pixels is None else tokens  # embeddings are not given back
    return [_up_to_the_end(row, tokenizer.eos_token_id) for row in generated.tolist()]


def _inputs(model: Any, ids: Tensor, pixels: Tensor | None) -> dict[str, Tensor]:
    """Text as ids; text with pictures as embeddings, as the model was trained."""
    if pixels is None:
        return {"input_ids": ids}
    llava = model.get_base_model() if hasattr(model, "peft_config") else model
    hidden, is_image = text_embeddings(llava, ids)
    features = picture_features(llava, pixels.to(ids.device, hidden.dtype))
    return {"inputs_embeds": with_pictures(hidden, is_image, features)}


def _pad(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)


def _up_to_the_end(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def _answer(tokenizer: Any, number: int, tokens: Sequence[int]) -> Answer:
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return Answer(number=number, text=text.strip(), num_tokens=len(tokens))
