"""The declared lengths have the means that were published."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.length_statistics import (
    MAX_SEQ_LEN,
    MEAN_TOKENS,
    PADDED_TOKENS,
    Samples,
    llava_80k,
    mixed,
    sharegpt,
)


@pytest.fixture(scope="module")
def llava() -> Samples:
    return llava_80k(seed=1)


def test_llava_80k_has_916_tokens_a_sample_at_336_px(llava: Samples) -> None:
    assert len(llava) == 80_000
    assert llava.lengths.mean() == pytest.approx(MEAN_TOKENS, rel=0.01)
    assert llava.has_image.all()


@pytest.mark.parametrize("size", PADDED_TOKENS)
def test_llava_80k_is_padded_to_the_published_lengths(llava: Samples, size: int) -> None:
    longest = llava.lengths.reshape(-1, size).max(axis=1)

    assert longest.mean() == pytest.approx(PADDED_TOKENS[size], rel=0.02)


def test_llava_80k_has_596_tokens_a_sample_at_224_px() -> None:
    assert llava_80k(seed=1, num_patches=256).lengths.mean() == pytest.approx(596, rel=0.01)


def test_answers_are_what_their_characters_make(llava: Samples) -> None:
    # 2.77 rounds of 372.1 characters at 4.3 a token, and an end token each
    assert llava.supervised.mean() == pytest.approx(2.77 * (372.1 / 4.3 + 1), rel=0.02)


def test_sharegpt_is_long_text_cut_at_2048() -> None:
    text = sharegpt(10_000, seed=1)

    assert len(text) == 10_000
    assert text.lengths.max() <= MAX_SEQ_LEN
    assert text.lengths.min() > 36
    assert not text.has_image.any()
    # Longer than a sample of LLaVA-80K, and far more uneven.
    assert text.lengths.mean() > 1000
    assert text.lengths.std() > 3 * llava_80k(10_000, seed=1).lengths.std()


def test_the_same_seed_draws_the_same(llava: Samples) -> None:
    again, other = llava_80k(seed=1), llava_80k(seed=2)

    assert np.array_equal(again.lengths, llava.lengths)
    assert not np.array_equal(other.lengths, llava.lengths)


def test_a_mix_holds_every_sample_of_both() -> None:
    one, two = llava_80k(30, seed=1), sharegpt(20, seed=1)

    mix = mixed(one, two, seed=1)

    assert sorted(mix.lengths) == sorted([*one.lengths, *two.lengths])
    assert mix.supervised.sum() == one.supervised.sum() + two.supervised.sum()
    assert mix.has_image.sum() == 30
    assert np.array_equal(np.sort(mix.lengths[mix.has_image]), np.sort(one.lengths))
