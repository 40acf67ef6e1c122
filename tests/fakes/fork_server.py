"""The server that ranks are forked from, of which Python keeps one a process."""

from __future__ import annotations

import multiprocessing.forkserver


def end_fork_server() -> None:
    """End it, so that the next user's preloading counts and not the last one's.

    Without it every rank of a training test that comes after a launch test imports torch itself.
    """
    multiprocessing.forkserver._forkserver._stop()
