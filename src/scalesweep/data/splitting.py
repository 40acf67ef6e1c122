"""Long conversations become several of whole turns, as FastChat's split_long_conversation.py does.

Two things are mended: FastChat loses the last turns where just they no longer fit, and it measures
each text for itself and adds 6, where here the tokens of the part as it will be trained on count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scalesweep.data.readers import Conversation
from scalesweep.data.templates import render
from scalesweep.data.tokenize import ANSWER, EncodedText, TextEncoder

_CHUNK = 1000
"""Conversations tokenized at a time: bounds the memory that offsets take."""

Turns = tuple[tuple[str, str], ...]


def encode_all(
    conversations: Sequence[Turns], template: str, encoder: TextEncoder
) -> Iterator[EncodedText | str]:
    """Each conversation in tokens, or its defect."""
    for start in range(0, len(conversations), _CHUNK):
        chunk = conversations[start : start + _CHUNK]
        yield from encoder.encode(
            [render(template, turns, bos=encoder.bos, eos=encoder.eos) for turns in chunk]
        )


def split_long(
    conversations: Sequence[Conversation],
    encoded: Sequence[EncodedText],
    template: str,
    encoder: TextEncoder,
    *,
    limit: int,
) -> tuple[list[Conversation], list[EncodedText]]:
    """The same, with every text-only conversation of more than limit tokens in parts.

    A part holds as many whole turns (a question and its answer) as fit, in their order, and begins
    as every conversation does; one turn that is too long alone stays whole. Parts are named as
    FastChat names them: the item's id, "_" and the number of the message that the part begins with.
    Conversations with a picture stay whole: only the first part would have it.
    """
    parts = _parts(conversations, encoded, template, encoder, limit=limit)
    new_conversations, new_encoded = [], []
    for row, (conversation, whole) in enumerate(zip(conversations, encoded, strict=True)):
        if row not in parts:
            new_conversations.append(conversation)
            new_encoded.append(whole)
            continue
        for part, tokens in sorted(parts[row], key=lambda pair: pair[0].start):
            name = f"{conversation.item_id}_{2 * part.start}"
            new_conversations.append(replace(conversation, item_id=name, turns=part.turns))
            new_encoded.append(tokens)
    return new_conversations, new_encoded


@dataclass(frozen=True, slots=True)
class _Part:
    row: int
    start: int
    """Its first turn."""
    turns: Turns

    def divided(self, first: int) -> list[_Part]:
        """The first turns, and the others."""
        rest = _Part(self.row, self.start + first, self.turns[first:])
        return [_Part(self.row, self.start, self.turns[:first]), rest]


def _parts(
    conversations: Sequence[Conversation],
    encoded: Sequence[EncodedText],
    template: str,
    encoder: TextEncoder,
    *,
    limit: int,
) -> dict[int, list[tuple[_Part, EncodedText]]]:
    """Row -> its parts in tokens, of the rows that are split."""
    long = [
        row
        for row, (conversation, whole) in enumerate(zip(conversations, encoded, strict=True))
        if conversation.image is None and len(conversation.turns) > 1 and len(whole.ids) > limit
    ]
    if not long:
        return {}
    head = _head_tokens(conversations[long[0]], encoded[long[0]], template, encoder)
    waiting = []
    for row in long:
        whole = _Part(row, 0, conversations[row].turns)
        for first, stop in _groups(_turn_tokens(encoded[row]), head=head, limit=limit):
            waiting.append(_Part(row, first, whole.turns[first:stop]))
    found: dict[int, list[tuple[_Part, EncodedText]]] = {row: [] for row in long}
    while waiting:
        too_long = []
        first_turns = encode_all([part.turns[:1] for part in waiting], template, encoder)
        for part, first_turn in zip(waiting, first_turns, strict=True):
            assert not isinstance(first_turn, str), "the whole conversation had no defect"
            tokens = _continued(first_turn, encoded[part.row], part)
            if len(tokens.ids) > limit and len(part.turns) > 1:
                # Text is cut into tokens in another way where a part begins: rare, and by a token.
                too_long += part.divided(len(part.turns) - 1)
            else:
                found[part.row].append((part, tokens))
        waiting = too_long
    return found


def _groups(turn_tokens: Sequence[int], *, head: int, limit: int) -> list[tuple[int, int]]:
    """First turn of each group and the one after its last; as many turns in each as fit."""
    groups, first, filled = [], 0, 0
    for number, tokens in enumerate(turn_tokens):
        if number > first and filled + tokens > limit:
            groups.append((first, number))
            first, filled = number, 0
        if number == first:
            filled = 0 if number == 0 else head  # the first turn's tokens have the head in them
        filled += tokens
    return [*groups, (first, len(turn_tokens))]


def _continued(first_turn: EncodedText, whole: EncodedText, part: _Part) -> EncodedText:
    """A part's first turn in tokens, with its other turns as they are in the whole conversation.

    An answer ends with EOS, and what follows a special token is tokenized for itself, whatever came
    before it. So only first turns, which the template's head now stands in front of, are tokenized
    again.
    """
    ends, (end,) = _turn_ends(whole), _turn_ends(first_turn)
    others = slice(ends[part.start], ends[part.start + len(part.turns) - 1])
    return EncodedText(
        *(
            np.concatenate([first[:end], all_of_it[others], first[end:]])
            for first, all_of_it in (
                (first_turn.ids, whole.ids),
                (first_turn.kinds, whole.kinds),
            )
        )
    )


def _turn_ends(encoded: EncodedText) -> npt.NDArray[np.int64]:
    """[turns] the place behind each answer."""
    learned = encoded.kinds == ANSWER
    ends: npt.NDArray[np.int64] = np.flatnonzero(learned & ~np.append(learned[1:], False)) + 1
    return ends


def _turn_tokens(encoded: EncodedText) -> list[int]:
    """Tokens of each turn; those of the template's head count to the first."""
    tokens: list[int] = np.diff(_turn_ends(encoded), prepend=0).tolist()
    return tokens


def _head_tokens(
    conversation: Conversation, whole: EncodedText, template: str, encoder: TextEncoder
) -> int:
    """Tokens before the first question (BOS, system prompt): what a second turn gains alone."""
    alone = next(encode_all([conversation.turns[1:2]], template, encoder))
    assert not isinstance(alone, str), "the whole conversation had no defect"
    return _turn_tokens(alone)[0] - _turn_tokens(whole)[1]
