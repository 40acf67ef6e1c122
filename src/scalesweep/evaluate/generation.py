"""Batched generation: prompts of one length together, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


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


@torch.no_grad()
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
    device = next(model.parameters()).device
    width = max(len(prompt.input_ids) for prompt in prompts)
    ids = torch.full((len(prompts), width), _pad(tokenizer), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        length = len(prompt.input_ids)
        ids[i, width - length :] = torch.from_numpy(prompt.input_ids.astype(np.int64))
        mask[i, width - length :] = 1
    pictures = {} if pixels is None else {"pixel_values": pixels.to(device, model.dtype)}
    tokens = model.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        do_sample=False,
        temperature=None,
        top_p=None,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=_pad(tokenizer),
        **pictures,
    )[:, width:]
    return [
        _answer(tokenizer, prompt.number, row)
        for prompt, row in zip(prompts, tokens.tolist(), strict=True)
    ]


def _pad(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)


def _answer(tokenizer: Any, number: int, tokens: Sequence[int]) -> Answer:
    end = tokenizer.eos_token_id
    length = tokens.index(end) + 1 if end in tokens else len(tokens)
    text = tokenizer.decode(tokens[:length], skip_special_tokens=True)
    return Answer(number=number, text=text.strip(), num_tokens=length)
