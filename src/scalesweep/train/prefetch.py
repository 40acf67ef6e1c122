"""The next steps are made while the device works on this one."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def prefetched(items: Iterator[T], *, depth: int) -> Iterator[T]:
    """The same items in the same order, up to `depth` of them made ahead by a thread.

    Reading and decoding pictures lets go of the interpreter's lock, so it runs beside the device.
    An error is raised where its item would have come. Depth 0: made when asked for, as on a CPU
    that trains itself.
    """
    if depth == 0:
        yield from items
        return
    made: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def offer(word: str, item: T | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                made.put((word, item), timeout=0.1)
                return

    def make() -> None:
        try:
            for item in items:
                offer("item", item)
                if stopped.is_set():
                    return
            offer("end", None)
        except BaseException as error:
            offer("error", error)

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            word, item = made.get()
            if word == "error":
                assert isinstance(item, BaseException)
                raise item
            if word == "end":
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join(timeout=5)
