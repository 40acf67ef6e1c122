"""Pixels of a training set's pictures at the tower's resolution, cached where they are few."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL

from scalesweep.data.arrays import read_arrays, write_arrays
from scalesweep.data.images import Pixels, read_pixels
from scalesweep.records import canonical_json

log = logging.getLogger(__name__)

CACHE_LIMIT_BYTES = 1 << 30
"""Pictures that take more than this at the tower's resolution are decoded when asked for."""

_VERSION = 1
"""Raised when the same picture would give other pixels."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture file, and the item to name when it cannot be read."""

    path: Path
    item: str


class PixelSource:
    """Pixels of pictures by number: from the cache, or read when asked for."""

    def __init__(
        self,
        picture: Callable[[int], Picture],
        stamps: npt.NDArray[np.int64],
        *,
        side: int,
        cache: Path,
        limit_bytes: int = CACHE_LIMIT_BYTES,
    ) -> None:
        """Fill the cache, unless it is there or the pictures exceed the limit.

        stamps: [P, 2] size and time of change of each picture; other ones give another cache.

        Raises:
            DataError: a picture cannot be decoded; the message names its item.
        """
        self._picture = picture
        self._side = side
        self._cached: Pixels | None = None
        if len(stamps) * 3 * side * side <= limit_bytes:
            pictures = [picture(number) for number in range(len(stamps))]
            self._cached = _cached_pixels(pictures, stamps, side=side, cache=cache)

    def __call__(self, numbers: npt.NDArray[np.integer]) -> Pixels:
        """uint8 [n, 3, side, side]

        Raises:
            DataError: a picture cannot be decoded; the message names its item.
        """
        if self._cached is not None:
            cached: Pixels = self._cached[numbers]
            return cached
        return _decode([self._picture(int(number)) for number in numbers], side=self._side)


def _cached_pixels(
    pictures: Sequence[Picture], stamps: npt.NDArray[np.int64], *, side: int, cache: Path
) -> Pixels:
    paths = [str(picture.path.absolute()) for picture in pictures]
    text = canonical_json([_VERSION, PIL.__version__, paths, stamps.tolist()])
    path = cache / f"pixels-{hashlib.sha256(text.encode()).hexdigest()[:24]}-{side}.arrays"
    found = read_arrays(path)
    if found is not None:
        cached: Pixels = found[0]["pixels"]
        return cached
    log.info("reading %d pictures at %d px", len(pictures), side)
    pixels = _decode(pictures, side=side)
    write_arrays(path, {"pixels": pixels}, meta={})
    return pixels


def _decode(pictures: Sequence[Picture], *, side: int) -> Pixels:
    """uint8 [n, 3, side, side], on as many threads as this process may use (at most 8)."""
    pixels = np.empty((len(pictures), 3, side, side), dtype=np.uint8)

    def fill(number: int) -> None:
        picture = pictures[number]
        pixels[number] = read_pixels(picture.path, side, item=picture.item)

    # Pillow lets go of the interpreter's lock while it decodes and resizes.
    workers = min(8, len(os.sched_getaffinity(0)), len(pictures))
    if workers <= 1:
        for number in range(len(pictures)):
            fill(number)
    else:
        with ThreadPoolExecutor(max_workers=workers) as pool:
            for _ in pool.map(fill, range(len(pictures))):
                pass  # raises what a worker raised
    return pixels
