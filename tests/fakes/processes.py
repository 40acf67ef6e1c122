"""Watching and ending processes that a test started, by their ids."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scalesweep.launch.leases import process_start

Living = dict[int, int]
"""Process id -> start, so that a later process of the same id is another one."""


def wait_for(condition: Callable[[], object], *, timeout_s: float = 60, what: str = "") -> None:
    """Returns as soon as a condition holds; fails when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what or condition}"
        time.sleep(0.01)


def descendants(pid: int) -> Living:
    """Every living process below one, with its start."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found: Living = {}
    todo = list(children.get(pid, []))
    while todo:
        child = todo.pop()
        start = process_start(child)
        if start is not None:
            found[child] = start
        todo += children.get(child, [])
    return found


def living(processes: Living) -> list[int]:
    """Those of them that live still."""
    return [pid for pid, start in processes.items() if process_start(pid) == start]


@contextlib.contextmanager
def started(
    words: list[str], *, cwd: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, as a shell starts a line; nothing of it is left after."""
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        yield process
    finally:
        below = descendants(process.pid)
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for pid in living(below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()
