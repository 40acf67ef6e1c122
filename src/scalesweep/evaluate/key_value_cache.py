"""Keys and values of what was read and said so far, kept in place.

transformers' own cache is copied whole with every token. Here a layer has room for more than it
holds: a token is written behind the others, and an answer that is done leaves the batch by moving
one row at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

MIN_ROOM = 64
"""Tokens of room that are made at least when a layer is full."""


class KeyValueCache(Cache):  # type: ignore[misc]
    """A cache of transformers whose rows can leave."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=GrowingLayer)

    def move(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; those that stay where they are cost nothing."""
        for layer in self.layers:
            layer.move(rows)


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer: [B, H, T, D], the front part of a larger piece of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self._room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values, the new ones last."""
        del args, kwargs
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        whole = held + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < whole:
            # A prompt is read at once: room for answers is made with their first token.
            room = whole if not held else whole + max(MIN_ROOM, whole // 4)
            before = (self.keys, self.values) if held else (None, None)
            self._room = (
                _larger(before[0], key_states, room=room),
                _larger(before[1], value_states, room=room),
            )
        rows = len(key_states)
        keys, values = (part[:rows, :, :whole] for part in self._room)
        keys[:, :, held:] = key_states
        values[:, :, held:] = value_states
        self.keys, self.values = keys, values
        return keys, values

    def move(self, rows: Sequence[int]) -> None:
        assert self.keys is not None
        assert self.values is not None
        moved = [(place, row) for place, row in enumerate(rows) if place != row]
        if moved:
            places, sources = (list(numbers) for numbers in zip(*moved, strict=True))
            for part in (self.keys, self.values):
                part[places] = part[sources]
        self.keys, self.values = self.keys[: len(rows)], self.values[: len(rows)]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """For beam search, which gives every row another one's past."""
        super().reorder_cache(beam_idx)
        if self.keys is not None and self.values is not None:
            self._room = (self.keys, self.values)


def _larger(held: Tensor | None, new: Tensor, *, room: int) -> Tensor:
    """A larger piece of memory with what is held in front."""
    rows, heads, _, size = new.shape
    larger = torch.empty(rows, heads, room, size, dtype=new.dtype, device=new.device)
    if held is not None:
        larger[:, :, : held.shape[-2]] = held
    return larger
