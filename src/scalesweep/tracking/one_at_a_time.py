"""One process at a time writes or uploads a study's W&B runs."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from scalesweep.errors import StoreError

_PATIENCE_S = 600.0
_POLL_S = 0.2


@contextlib.contextmanager
def alone(folder: Path, *, patience_s: float = _PATIENCE_S) -> Iterator[int]:
    """The lock's file number. Within it no other process exports or uploads the folder's runs.

    A lock that the system takes back when whoever has it open has died; where the file system has
    none, nothing is held.

    Raises:
        StoreError: another process held it all the while.
    """
    path = folder.with_name(".wandb-lock")
    with path.open("a", encoding="utf-8") as file:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"another process works on {folder}; let it end, or end it"
                    ) from None
                time.sleep(_POLL_S)
            except OSError:  # a file system without locks
                break
        yield file.fileno()
