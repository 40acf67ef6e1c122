"""Steps made ahead are the same steps, and an error comes where its step would have."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from scalesweep.errors import DataError
from scalesweep.train.prefetch import prefetched


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_items_come_in_their_order(depth: int) -> None:
    assert list(prefetched(iter(range(50)), depth=depth)) == list(range(50))


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_comes_in_the_place_of_its_item(depth: int) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise DataError("picture 2 cannot be read")

    items = prefetched(broken(), depth=depth)

    assert next(items) == 1
    with pytest.raises(DataError, match="picture 2"):
        next(items)


def test_no_more_than_asked_is_made_ahead() -> None:
    made: list[int] = []

    def counted() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    items = prefetched(counted(), depth=2)
    next(items)
    time.sleep(0.3)

    assert 2 <= len(made) <= 5  # one taken, two waiting, one in the maker's hand
    items.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name == "prefetch"]
