"""Tokens that packing saves, counted by hand and against the published bound."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.length_statistics import MEAN_TOKENS, PADDED_TOKENS, Samples, llava_80k
from benchmarks.packing import count_tokens


def samples(*lengths: int) -> Samples:
    return Samples(
        lengths=np.array(lengths, dtype=np.int64),
        supervised=np.ones(len(lengths), dtype=np.int64),
        has_image=np.zeros(len(lengths), dtype=np.bool_),
    )


def test_padding_and_waiting_by_hand() -> None:
    # 2 ranks of 16 samples in 4 passes of 4 rows; all 32 samples have 600 tokens but one of 900.
    drawn = samples(*[600] * 31, 900)

    found = count_tokens(drawn, micro_batch_size=4, packed=False, ranks=2, steps=1)

    assert found.useful == 31 * 600 + 900
    # Its three neighbours are padded to 900, and the other rank waits in that pass.
    assert found.computed == 28 * 600 + 4 * 900
    assert found.waited == 24 * 600 + 8 * 900


def test_packs_on_one_rank_compute_no_padding() -> None:
    found = count_tokens(llava_80k(64, seed=3), micro_batch_size=4, packed=True, ranks=1, steps=4)

    assert found.computed == found.useful == found.waited


@pytest.mark.parametrize("size", PADDED_TOKENS)
def test_packing_wins_what_padding_loses_on_llava_80k(size: int) -> None:
    drawn = llava_80k(1280, seed=1)
    padded, packed = (
        count_tokens(drawn, micro_batch_size=size, packed=packed, ranks=8, steps=10)
        for packed in (False, True)
    )

    ratio = packed.share(waiting=True) / padded.share(waiting=False)

    # Waiting is counted against packing only.
    assert ratio >= 0.90 * PADDED_TOKENS[size] / MEAN_TOKENS
