"""Text of a conversation -> token ids, and for each token whether it is learned.

What is learned follows from the place of each token in the text (the tokenizer's own offsets),
never from counting tokens of pieces: counting is what goes wrong when a tokenizer treats the space
after a special token in another way, and then silently masks whole samples.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers

from scalesweep.data.readers import IMAGE
from scalesweep.data.templates import Segment, prompt_text
from scalesweep.errors import DataError
from scalesweep.records import canonical_json

MASKED, PROMPT, ANSWER = 0, 1, 2
"""Kinds of token: BOS and picture; what is only read; what is learned."""


@dataclass(frozen=True, slots=True)
class EncodedText:
    """One conversation in tokens; a picture is one image token, whatever the resolution."""

    ids: npt.NDArray[np.int32]
    """[T]"""
    kinds: npt.NDArray[np.uint8]
    """[T] MASKED | PROMPT | ANSWER"""


class _Piece(NamedTuple):
    """Text between two pictures, and where in it the learned spans lie."""

    text: str
    spans: list[tuple[int, int]]


def image_token_id(tokenizer: Any) -> int:
    """Id that stands for a patch of a picture: that of <image>, or the one it would be given."""
    found = tokenizer.get_vocab().get(IMAGE)
    return len(tokenizer) if found is None else int(found)


class TextEncoder:
    """A fast Hugging Face tokenizer, for whole conversations at a time.

    Each stretch of text between pictures is tokenized as one piece, without BOS; the BOS the
    tokenizer would put in front stands once, at the very beginning. For LLaMA tokenizers that
    equals the official tokenizer_image_token.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Take a private copy of the tokenizer, without padding and truncation.

        Raises:
            DataError: it is not a fast tokenizer, has no EOS, or does not keep its EOS whole.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise DataError(
                f"the tokenizer {type(tokenizer).__name__} is not a fast one; "
                "loss spans need the character offsets that only fast tokenizers give"
            )
        serialised = backend.to_str()
        self._backend = tokenizers.Tokenizer.from_str(serialised)
        self._backend.no_padding()
        self._backend.no_truncation()
        self.image_token_id = image_token_id(tokenizer)
        self.eos: str = tokenizer.eos_token or ""
        self.bos: str = tokenizer.bos_token or ""
        self._eos_id: int | None = tokenizer.eos_token_id
        self._unk_id: int | None = tokenizer.unk_token_id
        self._prefix = self._own_prefix(tokenizer)
        special = {IMAGE} | {
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        }
        self._special = re.compile("|".join(re.escape(text) for text in sorted(special)))
        identity = [serialised, self.eos, self.bos, self._prefix, self.image_token_id]
        text = canonical_json([*identity, tokenizers.__version__])
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()
        """Changes whenever the same text could get other ids."""

    def _own_prefix(self, tokenizer: Any) -> list[int]:
        """Ids the tokenizer puts before any text (its BOS, or nothing)."""
        if not self.eos:
            raise DataError(
                "the tokenizer has no EOS token, so no answer would ever learn to end; "
                "set eos_token in its tokenizer_config.json"
            )
        bare = self._ids(f"a{self.eos}")
        whole: list[int] = list(tokenizer(f"a{self.eos}")["input_ids"])
        if bare[-1] != tokenizer.eos_token_id:
            raise DataError(
                f"the tokenizer does not read its own EOS {self.eos!r} as one token at the end of "
                f"a text: last id {bare[-1]}, EOS is {tokenizer.eos_token_id}"
            )
        count = len(whole) - len(bare)
        if count < 0 or whole[count:] != bare:
            raise DataError(
                "the tokenizer adds tokens after a text by itself (add_eos_token?); templates "
                "place EOS themselves: switch it off in tokenizer_config.json"
            )
        return whole[:count]

    def _ids(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def special_token_in(self, text: str) -> str | None:
        """A special token that stands in a text as plain characters, or None.

        It would be read as the real one: an EOS in the middle of an answer, or a picture.
        """
        found = self._special.search(text)
        return found.group() if found else None

    def encode(self, conversations: Sequence[Sequence[Segment]]) -> list[EncodedText | str]:
        """Each conversation in tokens, or its defect: an unknown word, an empty answer."""
        pieces = [_pieces(segments) for segments in conversations]
        flat = [piece.text for group in pieces for piece in group]
        encodings = iter(self._backend.encode_batch(flat, add_special_tokens=False))
        return [self._join(group, [next(encodings) for _ in group]) for group in pieces]

    def prompt(self, template: str, question: str, *, num_patches: int) -> npt.NDArray[np.int32]:
        """Ids of an open question, ready for generation: int32 [T].

        num_patches: image tokens of the picture; 0 for a question without one.

        Raises:
            DataError: the question holds <image>, or a word that the tokenizer lacks.

        Other special tokens in a question are read as such, as the official scripts do. Those look
        for a second picture where a question holds <image>, and end there.
        """
        if IMAGE in question:
            raise DataError(f"question {question!r} holds {IMAGE}, the mark of a picture")
        text = prompt_text(template, question, has_image=num_patches > 0)
        encoded = self.encode([[Segment(text, supervised=False)]])[0]
        if isinstance(encoded, str):
            raise DataError(f"question {question!r}: {encoded}")
        return expand_images(encoded.ids, self.image_token_id, num_patches=num_patches)

    def _join(self, pieces: Sequence[_Piece], encodings: Sequence[Any]) -> EncodedText | str:
        ids = [np.array(self._prefix, dtype=np.int32)]
        kinds = [np.full(len(self._prefix), MASKED, dtype=np.uint8)]
        for number, (piece, encoding) in enumerate(zip(pieces, encodings, strict=True)):
            if number:
                ids.append(np.array([self.image_token_id], dtype=np.int32))
                kinds.append(np.array([MASKED], dtype=np.uint8))
            piece_ids = np.array(encoding.ids, dtype=np.int32)
            offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
            if self._unk_id is not None and (unknown := piece_ids == self._unk_id).any():
                start, end = offsets[np.argmax(unknown)]
                return (
                    f"holds {piece.text[start:end]!r}, which the tokenizer does not know "
                    f"(it would become {self._backend.id_to_token(self._unk_id)})"
                )
            piece_kinds = np.full(len(piece_ids), PROMPT, dtype=np.uint8)
            for (start, end), learned in zip(
                piece.spans, _token_spans(offsets, piece.spans), strict=True
            ):
                said = piece_ids[learned]
                if not len(said) or (len(said) == 1 and said[0] == self._eos_id):
                    return f"answer {piece.text[start:end]!r} has no token of its own"
                piece_kinds[learned] = ANSWER
            ids.append(piece_ids)
            kinds.append(piece_kinds)
        return EncodedText(np.concatenate(ids), np.concatenate(kinds))


def expand_images(
    ids: npt.NDArray[Any], image_token_id: int, *, num_patches: int
) -> npt.NDArray[Any]:
    """Each image token repeated once per patch: [T] -> [T + images * (num_patches - 1)]."""
    return np.repeat(ids, np.where(ids == image_token_id, num_patches, 1))


def _pieces(segments: Sequence[Segment]) -> list[_Piece]:
    """Segments joined and cut at pictures; n pictures give n + 1 pieces."""
    pieces, text, spans = [], "", list[tuple[int, int]]()
    for segment in segments:
        parts = segment.text.split(IMAGE)
        for number, part in enumerate(parts):
            if number:
                pieces.append(_Piece(text, spans))
                text, spans = "", []
            if segment.supervised and part:
                spans.append((len(text), len(text) + len(part)))
            text += part
    pieces.append(_Piece(text, spans))
    return pieces


def _token_spans(offsets: npt.NDArray[np.int32], spans: Sequence[tuple[int, int]]) -> list[slice]:
    """For each span of characters, the tokens that share one with it.

    offsets: [T, 2] first and last-plus-one character of each token. "▁The" covers the space before
    an answer, which belongs to the answer; a token without characters lies at its first one.

    Raises:
        DataError: the tokenizer gives offsets out of order; spans would be wrong.
    """
    if not spans:
        return []
    first, last = offsets[:, 0], np.maximum(offsets[:, 1], offsets[:, 0] + 1)
    if (first[1:] < first[:-1]).any() or (last[1:] < last[:-1]).any():
        raise DataError("the tokenizer gives character offsets that are not in the text's order")
    starts, ends = np.array(spans, dtype=np.int32).T
    begin = np.searchsorted(last, starts, side="right")
    stop = np.searchsorted(first, ends, side="left")
    return [slice(b, s) for b, s in zip(begin.tolist(), stop.tolist(), strict=True)]
