"""Which samples of a step share a sequence. Pure: knows lengths and no model."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from scalesweep.errors import DataError


def pack(lengths: Sequence[int], *, capacity: int, multiple: int = 1) -> list[list[int]]:
    """Places in `lengths` divided into packs of at most `capacity` tokens, evenly filled.

    The number of packs is a multiple of `multiple` (the ranks): as few as will do, since every
    rank runs equally many. Samples go, longest first, to the pack with the fewest tokens (LPT,
    R. L. Graham 1969), so that ranks end a pass at about the same time. Packs come fullest first;
    within a pack samples keep their order. A pack may be empty.

    Raises:
        DataError: a sample is longer than the capacity.
    """
    if lengths and max(lengths) > capacity:
        raise DataError(
            f"a sample of {max(lengths)} tokens does not fit a pack of {capacity}; raise "
            "batch.micro_batch_tokens"
        )
    longest_first = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    count = max(1, -(-sum(lengths) // (capacity * multiple))) * multiple
    while (packs := _filled(lengths, longest_first, count, capacity)) is None:
        count += multiple
    return packs


def _filled(
    lengths: Sequence[int], longest_first: Sequence[int], count: int, capacity: int
) -> list[list[int]] | None:
    """So many packs; None when a sample finds no room in the emptiest."""
    emptiest = [(0, number) for number in range(count)]
    packs: list[list[int]] = [[] for _ in range(count)]
    for place in longest_first:
        tokens, number = emptiest[0]
        if tokens + lengths[place] > capacity:
            return None
        heapq.heapreplace(emptiest, (tokens + lengths[place], number))
        packs[number].append(place)
    fullest_first = sorted(emptiest, key=lambda pack: (-pack[0], pack[1]))
    return [sorted(packs[number]) for _, number in fullest_first]
