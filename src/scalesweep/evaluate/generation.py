"""Batched generation: prompts of one length together, padded on the left.

Greedy answers are made by a loop of our own: rows that are done leave the batch, keys and values
stay where they are, and a stop is heard between two tokens. Beams, and models whose own settings
change the scores of tokens, go through transformers' generate().
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from scalesweep.errors import Interrupted
from scalesweep.evaluate.answer_end import AnswerEnd
from scalesweep.evaluate.key_value_cache import KeyValueCache
from scalesweep.models.embeddings import picture_features, text_embeddings, with_pictures


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One question in tokens."""

    number: int
    """Place in the benchmark."""
    input_ids: npt.NDArray[np.int32]
    """[T], <image> expanded to one image token per patch"""


def batches(prompts: Sequence[Prompt], *, batch_size: int) -> list[list[Prompt]]:
    """Prompts of similar length together: longest first, ties in their own order.

    So the batch that needs most memory comes first, and what is left at the end is short.
    """
    ordered = sorted(prompts, key=lambda prompt: (-len(prompt.input_ids), prompt.number))
    return [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end an answer: the tokenizer's, and those that the model's own settings name."""
    named = getattr(_language_model(model), "generation_config", None)
    named = getattr(named, "eos_token_id", None)
    found = {tokenizer.eos_token_id} | set(named if isinstance(named, list) else [named])
    return {int(token) for token in found if token is not None}


def never() -> bool:
    return False


def generate_tokens(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    pixels: Tensor | None,
    num_beams: int,
    max_new_tokens: int,
    stop_strings: Sequence[str] = (),
    stop_requested: Callable[[], bool] = never,
) -> list[list[int]]:
    """What each prompt of a batch is answered with, up to and with the token that ends it.

    pixels: [n, 3, H, W] normalised, one picture for each prompt that has a place for one, in the
        order of the prompts; None where none has.

    Raises:
        Interrupted: a stop was asked for; the batch is lost.
    """
    end = AnswerEnd(tokenizer, end_tokens=end_tokens(model, tokenizer), stop_strings=stop_strings)
    language_model = _language_model(model)
    ids, mask = _padded([prompt.input_ids for prompt in prompts], pad=_pad(tokenizer))
    device = next(model.parameters()).device
    with torch.no_grad():
        ids = ids.to(device)
        hidden = _embedded(language_model, ids, pixels)
        if num_beams == 1 and not _changes_scores(language_model):
            return _greedy(
                language_model,
                hidden,
                mask.to(device),
                end=end,
                max_new_tokens=max_new_tokens,
                stop_requested=stop_requested,
            )
        # Text as ids: settings such as a repetition penalty count what was asked, too. What is
        # generated from embeddings comes without the prompt.
        width = ids.shape[1] if pixels is None else 0
        tokens = language_model.generate(
            **({"input_ids": ids} if pixels is None else {"inputs_embeds": hidden}),
            attention_mask=mask.to(device),
            past_key_values=_read(language_model, hidden, mask.to(device), copies=num_beams),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(end.end_tokens),
            pad_token_id=_pad(tokenizer),
            stopping_criteria=StoppingCriteriaList([_Ends(end, stop_requested, skipped=width)]),
        )
    return [end.cut(row) for row in tokens[:, width:].tolist()]


def _greedy(
    model: Any,
    hidden: Tensor,
    mask: Tensor,
    *,
    end: AnswerEnd,
    max_new_tokens: int,
    stop_requested: Callable[[], bool],
) -> list[list[int]]:
    """The likeliest token, one after the other; hidden [B, T, D], mask [B, T] 0 at padding."""
    said: list[list[int]] = [[] for _ in mask]
    rows = list(range(len(mask)))  # row of the batch that stands at each place
    is_padded = bool((mask == 0).any())
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = KeyValueCache()
    step: dict[str, Tensor] = {"inputs_embeds": hidden}
    for count in range(1, max_new_tokens + 1):
        if stop_requested():
            raise Interrupted("stopped between two tokens")
        logits = model(
            **step,
            attention_mask=mask if is_padded else None,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        chosen = logits.argmax(-1)  # [B]; the first of equal ones
        going = []
        for place, token in enumerate(chosen.tolist()):
            answer = said[rows[place]]
            answer.append(token)
            if not end.reached(answer):
                going.append(place)
        if not going or count == max_new_tokens:
            break
        positions = positions[:, -1:] + 1
        if len(going) < len(rows):
            kept = _compact(going)
            cache.move(kept)
            rows = [rows[place] for place in kept]
            index = torch.tensor(kept, device=mask.device)
            mask, positions, chosen = mask[index], positions[index], chosen[index]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
        step = {"input_ids": chosen[:, None]}
    return said


def _read(model: Any, hidden: Tensor, mask: Tensor, *, copies: int) -> Any:
    """Keys and values of all tokens but the last of each prompt, once for each beam.

    generate() would read every prompt as often as there are beams: of 5 beams and 600 tokens of
    picture and question, that is most of the arithmetic. None where there is nothing to read.
    """
    if hidden.shape[1] < 2:
        return None
    positions = (mask[:, :-1].cumsum(-1) - 1).clamp(min=0)
    cache = model(
        inputs_embeds=hidden[:, :-1],
        attention_mask=mask[:, :-1],
        position_ids=positions,
        use_cache=True,
        logits_to_keep=1,
    ).past_key_values
    cache.batch_repeat_interleave(copies)
    return cache


def _compact(going: Sequence[int]) -> list[int]:
    """The places that stay, in an order in which few move: the last ones into the gaps."""
    count = len(going)
    last = [place for place in going if place >= count]
    staying = set(going)
    return [place if place in staying else last.pop() for place in range(count)]


class _Ends(StoppingCriteria):  # type: ignore[misc]
    """Our ends of answers in transformers' words; asked for every beam after every token."""

    def __init__(self, end: AnswerEnd, stop_requested: Callable[[], bool], *, skipped: int) -> None:
        """skipped: tokens of the prompt, which stand in front."""
        self._end = end
        self._stop_requested = stop_requested
        self._skipped = skipped

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        del scores
        if self._stop_requested():
            raise Interrupted("stopped between two tokens")
        if not self._end.stop_strings:  # end tokens are transformers' own business
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        reached = [self._end.reached(row) for row in input_ids[:, self._skipped :].tolist()]
        return torch.tensor(reached, device=input_ids.device)


# What a generation_config.json may say that changes greedy answers, and the value at which it
# does not.
_NEUTRAL = {
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "guidance_scale": (None, 1.0),
    "bad_words_ids": (None,),
    "sequence_bias": (None,),
    "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "watermarking_config": (None,),
}


def _changes_scores(model: Any) -> bool:
    """Whether the model's own generation settings make another token than the likeliest win."""
    settings = getattr(model, "generation_config", None)
    return any(getattr(settings, name, None) not in neutral for name, neutral in _NEUTRAL.items())


def _language_model(model: Any) -> Any:
    """The model without peft's cover; its adapters are in its layers."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _embedded(model: Any, ids: Tensor, pixels: Tensor | None) -> Tensor:
    """Prompts as the model was trained on them: [B, T] -> [B, T, D]."""
    if not hasattr(model.config, "image_token_id"):
        embedded: Tensor = model.get_input_embeddings()(ids)
        return embedded
    hidden, is_image = text_embeddings(model, ids)
    if pixels is None:
        return hidden
    features = picture_features(model, pixels.to(ids.device, hidden.dtype))
    return with_pictures(hidden, is_image, features)


def _padded(prompts: Sequence[npt.NDArray[np.int32]], *, pad: int) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, T], padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        mask[row, width - len(prompt) :] = 1
    return ids, mask


def _pad(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)
