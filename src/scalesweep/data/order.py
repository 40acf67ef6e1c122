"""Which sample comes when. Pure: knows no ranks and no files."""

from __future__ import annotations

import random
from collections.abc import Iterator

from scalesweep.errors import DataError


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> list[int]:
    """The permutation of one epoch.

    random.Random and not numpy: its shuffle is the same on every machine and version since
    Python 3.2, and a text seed is hashed whole, so that seed 1 epoch 23 is not seed 12 epoch 3.
    """
    order = list(range(num_samples))
    random.Random(f"sample order: seed {seed}, epoch {epoch}").shuffle(order)
    return order


def sample_order(num_samples: int, *, seed: int, start: int) -> Iterator[int]:
    """Endless indices: every epoch holds each sample once, in an order of its own.

    start is the number of samples already seen: the iterator goes on exactly where another one
    with the same seed stood after so many.

    Raises:
        DataError: there are no samples.
    """
    if num_samples < 1:
        raise DataError("there is no sample to train on: every source is empty")
    epoch, offset = divmod(start, num_samples)
    return _endless(num_samples, seed=seed, epoch=epoch, offset=offset)


def _endless(num_samples: int, *, seed: int, epoch: int, offset: int) -> Iterator[int]:
    while True:
        yield from epoch_order(num_samples, seed=seed, epoch=epoch)[offset:]
        epoch, offset = epoch + 1, 0
