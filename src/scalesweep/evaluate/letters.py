"""Questions that are answered by the likeliest letter: prompts in tokens, and the letters' odds.

The prompt is raw text. What is compared is the log-probability of each letter as the very next
token; no text is generated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from scalesweep.errors import DataError
from scalesweep.evaluate.questions import Letters

# hendrycks/test, evaluate_hf.py: shots are left out while the prompt is longer.
MAX_TOKENS = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedLetters:
    """One prompt in tokens, with the letters to be compared after it."""

    ids: npt.NDArray[np.int32]
    """[T], with what the tokenizer puts in front of any text"""
    num_prefix_tokens: int
    """How many of the first ids are those of header and shots, the same for a whole subject."""
    letter_ids: Mapping[str, int]
    """Letter -> token, in the order in which ties are decided."""
    num_shots: int
    """Shots that there was room for."""

    @property
    def prefix(self) -> tuple[int, ...]:
        return tuple(self.ids[: self.num_prefix_tokens].tolist())


def max_tokens_of(config: Any) -> int:
    """The official limit, or the model's own context where that is shorter.

    config: a Hugging Face configuration, of a LLaVA too.
    """
    text = config.get_text_config()
    return min(MAX_TOKENS, getattr(text, "max_position_embeddings", MAX_TOKENS))


def encode(
    tokenizer: Any, letters: Letters, *, max_tokens: int = MAX_TOKENS, item: str = ""
) -> EncodedLetters:
    """A prompt with as many of its shots as fit into max_tokens, the last ones left out first.

    tokenizer: a Hugging Face tokenizer; it reads the prompt as it reads any text, BOS included.
    item: the question's name, for messages.

    Raises:
        DataError: the question does not fit without shots, or the tokenizer cannot compare the
            letters.

    Source: hendrycks/test, evaluate_hf.py (which asks for ever where nothing fits).
    """
    letter_ids = _letter_ids(tokenizer, letters.letters)
    for num_shots in range(len(letters.shots), -1, -1):
        before = letters.header + "".join(letters.shots[:num_shots])
        ids = _ids(tokenizer, before + letters.question)
        if len(ids) <= max_tokens:
            prefix = _prefix_ids(tokenizer, before)
            return EncodedLetters(
                ids=np.array(ids, dtype=np.int32),
                num_prefix_tokens=_num_common(prefix, ids),
                letter_ids=letter_ids,
                num_shots=num_shots,
            )
    raise DataError(
        f"question {item or letters.question[:60]!r}: {len(ids)} tokens without any shot, and the "
        f"model reads {max_tokens}; leave the benchmark out or take a model with a longer context"
    )


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, verbose=False)["input_ids"])


@lru_cache(maxsize=64)
def _prefix_ids(tokenizer: Any, text: str) -> list[int]:
    return _ids(tokenizer, text)


def _num_common(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that both begin with; the last of second is never among them."""
    pairs = zip(first, second[:-1], strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second) - 1))


@lru_cache(maxsize=16)
def _letter_ids(tokenizer: Any, letters: tuple[str, ...]) -> Mapping[str, int]:
    """The token that each letter is after "Answer:".

    Never the id of a bare " A": a SentencePiece tokenizer reads that as two spaces and a letter,
    and the id of a bare "A" is another one where tokens carry their space.

    Raises:
        DataError: a letter is not one token there, or two are the same.
    """
    before = _ids(tokenizer, "Answer:")
    found = {}
    for letter in letters:
        whole = _ids(tokenizer, f"Answer: {letter}")
        if whole[: len(before)] != before or len(whole) != len(before) + 1:
            raise DataError(
                f"the tokenizer {type(tokenizer).__name__} reads 'Answer:' as {before} and "
                f"'Answer: {letter}' as {whole}: the letter is not one token more, so its "
                "probability as the next token is not defined"
            )
        found[letter] = whole[-1]
    unknown = tokenizer.unk_token_id
    if len(set(found.values())) < len(found) or unknown in found.values():
        raise DataError(
            f"the tokenizer {type(tokenizer).__name__} does not know the letters "
            f"{', '.join(letters)} apart: after 'Answer:' they are tokens {list(found.values())}"
        )
    return found


def likeliest(log_probs: Mapping[str, float]) -> str:
    """The letter of the highest log-probability; of equal ones the first."""
    return max(log_probs, key=log_probs.__getitem__)


def batches(prompts: Sequence[EncodedLetters], *, batch_size: int) -> list[list[int]]:
    """Places of prompts to be asked together: one prefix to a batch, shortest first.

    Prefixes keep the order in which they come, so that one is computed once.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(prompt.prefix, []).append(place)
    return [
        group[begin : begin + batch_size]
        for places in groups.values()
        for group in [sorted(places, key=lambda place: len(prompts[place].ids))]
        for begin in range(0, len(group), batch_size)
    ]


def choose(
    model: Any, batch: Sequence[EncodedLetters], *, share_prefix: bool = True
) -> list[dict[str, float]]:
    """Log-probabilities of the letters as the next token of each prompt, of a single batch."""
    return LetterChooser(model, share_prefix=share_prefix).choose(batch)


class LetterChooser:
    """Asks one model batch after batch, and computes what prompts begin with only once.

    The keys and values of the last prefix (header and shots of a subject) are kept; a batch whose
    prompts all begin with it computes the rest alone. In exact arithmetic nothing changes; in
    floats sums are taken in another order.
    """

    def __init__(self, model: Any, *, share_prefix: bool = True) -> None:
        """model: a causal language model or a LLaVA, which is asked without a picture."""
        self._model = model
        self._share = share_prefix
        self._prefix: tuple[int, ...] = ()
        self._keys_and_values: Cache | None = None

    @torch.no_grad()
    def choose(self, batch: Sequence[EncodedLetters]) -> list[dict[str, float]]:
        """Letter -> log-probability over the whole vocabulary, for each prompt of a batch.

        Logits are computed in the last place alone: [B, V], never [B, T, V].
        """
        shared = self._shared(batch)
        skipped = len(self._prefix) if shared is not None else 0
        ids, mask, positions = _padded([prompt.ids[skipped:] for prompt in batch], skipped=skipped)
        device = next(self._model.parameters()).device
        logits = self._model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            past_key_values=shared,
            use_cache=shared is not None,
            logits_to_keep=1,
        ).logits[:, -1]
        log_probs = torch.log_softmax(logits.float(), dim=-1)  # [B, V]
        return [
            dict(
                zip(prompt.letter_ids, row[list(prompt.letter_ids.values())].tolist(), strict=True)
            )
            for prompt, row in zip(batch, log_probs, strict=True)
        ]

    def _shared(self, batch: Sequence[EncodedLetters]) -> Cache | None:
        """Keys and values of the batch's common prefix; None where there is none to share."""
        prefix = batch[0].prefix
        if not self._share or not prefix or any(prompt.prefix != prefix for prompt in batch):
            return None
        if prefix != self._prefix:
            self._keys_and_values = self._read(prefix)
            self._prefix = prefix
        return self._keys_and_values

    def _read(self, prefix: tuple[int, ...]) -> Cache | None:
        ids = torch.tensor([prefix], device=next(self._model.parameters()).device)
        cache = self._model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        if not isinstance(cache, DynamicCache) or any(
            type(layer) is not DynamicLayer for layer in cache.layers
        ):
            self._share = False  # a sliding window or a state: not a list of keys and values
            return None
        return Cache(layers=[_kept(layer) for layer in cache.layers])


def _kept(layer: DynamicLayer) -> DynamicLayer:
    """A layer's keys and values; where another rank has the layer, there are none."""
    return _PrefixLayer(layer) if layer.is_initialized else layer


class _PrefixLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one prefix, read by any number of prompts and never added to.

    What the stock layer does - one copy for each prompt, kept in all layers until the end - is
    15 GB for 16 prompts of 600 tokens and a 33B model in bf16.
    """

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        assert layer.keys is not None
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = layer.keys, layer.values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Prefix and the new ones: [1, H, P, D] and [B, H, T, D] -> [B, H, P + T, D]."""
        del args, kwargs
        assert self.keys is not None
        assert self.values is not None
        count = len(key_states)
        return (
            torch.cat([self.keys.expand(count, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(count, -1, -1, -1), value_states], dim=-2),
        )


def _padded(
    prompts: Sequence[npt.NDArray[np.int32]], *, skipped: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids [B, T], mask [B, skipped + T] and positions [B, T], padded on the left.

    skipped: tokens in front of all of them that were read before.
    """
    width = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.ones(len(prompts), skipped + width, dtype=torch.long)
    positions = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        padding = width - len(prompt)
        ids[row, padding:] = torch.from_numpy(prompt.astype(np.int64))
        mask[row, skipped : skipped + padding] = 0
        positions[row, padding:] = torch.arange(skipped, skipped + len(prompt))
    return ids, mask, positions
