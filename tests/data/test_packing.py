"""Packing: every sample once, no pack over its capacity, equally many packs a rank."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesweep.data.packing import pack
from scalesweep.errors import DataError


@given(
    lengths=st.lists(st.integers(1, 100), max_size=60),
    capacity=st.integers(100, 400),
    multiple=st.integers(1, 9),
)
def test_every_sample_is_in_one_pack_and_none_overflows(
    lengths: list[int], capacity: int, multiple: int
) -> None:
    packs = pack(lengths, capacity=capacity, multiple=multiple)

    assert sorted(place for places in packs for place in places) == list(range(len(lengths)))
    tokens = [sum(lengths[place] for place in places) for places in packs]
    assert max(tokens) <= capacity
    assert len(packs) % multiple == 0
    assert tokens == sorted(tokens, reverse=True)
    assert all(places == sorted(places) for places in packs)


@given(lengths=st.lists(st.integers(1, 100), min_size=1, max_size=60), multiple=st.integers(1, 9))
def test_packs_differ_by_one_sample_at_most(lengths: list[int], multiple: int) -> None:
    packs = pack(lengths, capacity=10_000, multiple=multiple)

    tokens = [sum(lengths[place] for place in places) for places in packs]
    assert len(packs) == multiple  # one pass would do, so there is one
    assert max(tokens) - min(tokens) <= max(lengths)


def test_samples_go_longest_first_to_the_emptiest_pack() -> None:
    # 8 -> A, 7 -> B, 5 -> B (12), 4 -> A (12), 3 -> A (15, the first of two equal ones)
    assert pack([3, 8, 5, 4, 7], capacity=20, multiple=2) == [[0, 1, 3], [2, 4]]


def test_a_pass_more_is_taken_when_the_samples_do_not_fit() -> None:
    # 18 tokens in packs of 9 would be two, but 6 + 6 + 6 do not pair up.
    assert pack([6, 6, 6], capacity=9) == [[0], [1], [2]]


def test_ranks_without_a_sample_have_an_empty_pack() -> None:
    assert pack([5], capacity=10, multiple=3) == [[0], [], []]


def test_a_sample_over_the_capacity_is_refused() -> None:
    with pytest.raises(DataError, match=r"2049 tokens.*pack of 2048.*micro_batch_tokens"):
        pack([5, 2049], capacity=2048)
