"""`wandb sync` as a process that ends: it would wait for a server that is down, for days.

It says nothing by its exit status (0 also where the login was refused), and marks a run as synced
whose rows the server refused. What it did is told by the marks that it leaves, and by the server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scalesweep.tracking.uploaded import is_uploaded, mark_begun

_POLL_S = 0.2
_GRACE_S = 10.0
_NOT_HERE = ("WANDB_MODE", "WANDB_DIR", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_SILENT")
"""Of the environment: about runs that somebody logs, not about uploading."""


def upload(folders: Sequence[Path], *, server: str, stall_s: float, lock: int) -> str:
    """Sends run directories; why some were not sent, empty where all were.

    server: its address.
    stall_s: it is given up when no further directory was sent for so long.
    lock: file number that `wandb sync` keeps open, should this process be killed before it.
    """
    for folder in folders:
        mark_begun(folder)
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_HERE}
    environment["WANDB_BASE_URL"] = server
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
        tempfile.TemporaryDirectory() as scratch,  # it leaves logs where it is started
    ):
        # A group of its own: wandb's background process is in it.
        process = subprocess.Popen(
            [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, folders)],
            cwd=scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
        )
        try:
            stalled = _wait(process, folders, stall_s)
        finally:
            _end(process)
        if all(is_uploaded(folder) for folder in folders):
            return ""
        if stalled:
            return f"nothing more was taken for {stall_s:g} s"
        said.seek(0)
        return _problem(said.read())


def _wait(process: subprocess.Popen[bytes], folders: Sequence[Path], stall_s: float) -> bool:
    """Until it ends; True if it made no headway."""
    num_sent, since = 0, time.monotonic()
    while process.poll() is None:
        now_sent = sum(map(is_uploaded, folders))
        if now_sent > num_sent:
            num_sent, since = now_sent, time.monotonic()
        if time.monotonic() - since > stall_s:
            return True
        time.sleep(_POLL_S)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """It and its background process."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _problem(said: str) -> str:
    """The last line that names an error."""
    lines = [line.removeprefix("wandb:").strip() for line in said.splitlines()]
    errors = [line for line in lines if "ERROR" in line or "rror:" in line]
    return errors[-1] if errors else "wandb sync ended early"
