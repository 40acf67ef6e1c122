"""Keys and values in place hold what transformers' own cache holds."""

from __future__ import annotations

import pytest
import torch
from transformers.cache_utils import DynamicCache

from scalesweep.evaluate.key_value_cache import MIN_ROOM, KeyValueCache

HEADS, SIZE, LAYERS = 2, 4, 3


def states(rows: int, tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, HEADS, tokens, SIZE, generator=generator)
    return keys, values


def test_it_gives_what_the_stock_cache_gives_while_it_grows_and_rows_leave() -> None:
    ours, stock = KeyValueCache(), DynamicCache()
    rows, lengths = 5, [7, *[1] * (MIN_ROOM + 3), 2]
    for step, tokens in enumerate(lengths):
        for layer in range(LAYERS):
            new = states(rows, tokens, seed=100 * step + layer)
            given = ours.update(*new, layer)
            expected = stock.update(*new, layer)
            for one, other in zip(given, expected, strict=True):
                assert torch.equal(one, other)
        assert ours.get_seq_length() == stock.get_seq_length()
        if step in (3, 40):
            kept = [0, 4, 2] if step == 3 else [1]
            ours.move(kept)
            for layer_cache in stock.layers:
                layer_cache.batch_select_indices(torch.tensor(kept))
            rows = len(kept)


def test_a_token_is_written_behind_the_others_without_copying_them() -> None:
    cache = KeyValueCache()
    cache.update(*states(2, 5, seed=1), 0)
    cache.update(*states(2, 1, seed=2), 0)  # room is made here
    before = cache.layers[0].keys.data_ptr()

    cache.update(*states(2, 1, seed=3), 0)

    assert cache.layers[0].keys.data_ptr() == before


@pytest.mark.parametrize("beams", [[1, 1, 0], [2, 0, 1]])
def test_beams_change_places_as_in_the_stock_cache(beams: list[int]) -> None:
    ours, stock = KeyValueCache(), DynamicCache()
    for cache in (ours, stock):
        for step in range(4):
            cache.update(*states(3, 1, seed=step), 0)
            cache.reorder_cache(torch.tensor(beams))

    last = states(3, 1, seed=9)

    for one, other in zip(ours.update(*last, 0), stock.update(*last, 0), strict=True):
        assert torch.equal(one, other)
