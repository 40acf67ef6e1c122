"""Where an answer ends: at an end token, or before a stop string."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any


class AnswerEnd:
    """Looks at one answer at a time, so that what stands beside it in a batch changes nothing."""

    def __init__(
        self, tokenizer: Any, *, end_tokens: Collection[int], stop_strings: Sequence[str] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self.end_tokens = frozenset(end_tokens)
        self.stop_strings = tuple(stop_strings)
        # A token is one byte at least, or a special one; the rest is for what a decoder does at
        # the beginning of a text.
        longest = max((len(text.encode()) for text in stop_strings), default=0)
        self._window = 2 * longest + 8

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last token ends the answer; asked after every token."""
        if tokens[-1] in self.end_tokens:
            return True
        if not self.stop_strings:
            return False
        latest = self._tokenizer.decode(tokens[-self._window :])
        return any(text in latest for text in self.stop_strings)

    def cut(self, tokens: Sequence[int]) -> list[int]:
        """Up to and with the first token that ends the answer; all of them where none does."""
        for count in range(1, len(tokens) + 1):
            if self.reached(tokens[:count]):
                return list(tokens[:count])
        return list(tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """The answer in words: before the first stop string, without special tokens."""
        text = self._decoded(tokens)
        places = [text.find(stop) for stop in self.stop_strings if stop in text]
        if places:
            return text[: min(places)].strip()
        whole = self._tokenizer.decode(tokens)
        places = [whole.find(stop) for stop in self.stop_strings if stop in whole]
        if places:  # a special token is part of it, which the text does not show
            kept = list(tokens)
            while kept and len(self._tokenizer.decode(kept)) > min(places):
                kept.pop()
            text = self._decoded(kept)
        return text.strip()

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))
