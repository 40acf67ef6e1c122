"""Processes that run stages: forked from a server that has imported everything once.

On two cores starting so takes half the time of spawning each worker with its own imports. CUDA does
not survive a fork, so where there is a GPU ranks are spawned.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import socket
import sys
import time
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from scalesweep.errors import StageError
from scalesweep.launch import rank
from scalesweep.launch.leases import process_start
from scalesweep.launch.rank import COMMAND_VARIABLE, HELD_SIGNALS, RankTask

SERVER_TRIES = 3
PRELOAD = ("scalesweep.launch.preload",)

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "PYTHONUNBUFFERED": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
"""Of every rank: exact on one thread, no network, nothing but lines in the log."""


def has_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))


@dataclass
class Workers:
    """Starts ranks; all of them die with this object's process."""

    preload: Sequence[str] = PRELOAD
    _context: Any = None
    _lifeline: tuple[Connection, Connection] | None = None
    _server: int | None = None
    """Process id of the server; None where ranks are spawned, and before it runs."""

    def warm_up(self) -> None:
        """Wait until the server has imported everything, so that ranks begin at once.

        An exception that a signal handler raises ends the waiting.

        Raises:
            StageError: no process can be started.
        """
        context = self._ready()
        if context.get_start_method() != "forkserver":
            return
        if self._server is not None and process_start(self._server) is not None:
            return
        for attempt in range(1, SERVER_TRIES + 1):
            try:
                self._server = self._served()
                return
            except (OSError, EOFError) as error:
                if attempt == SERVER_TRIES:
                    raise StageError(
                        f"the server of worker processes does not start ({error or 'it died'}); "
                        "is there memory for torch, and room in the folder of temporary files?"
                    ) from error
                time.sleep(0.2)  # until the dead one can be told from a living one

    def _served(self) -> int:
        """Process id of a server that has imported everything."""
        ours, theirs = self._context.Pipe(duplex=False)
        with ours, theirs:
            process = self._started(self._context.Process(target=_name_parent, args=(theirs,)))
            theirs.close()
            server = int(ours.recv())
            process.join()
        return server

    def start(self, tasks: Sequence[RankTask]) -> list[Any]:
        """One process per rank; they begin at once.

        Raises:
            OSError, EOFError: not all could be started; those that were are killed.
        """
        context = self._ready()
        assert self._lifeline is not None
        processes: list[Any] = []
        try:
            for task in tasks:
                process = context.Process(target=rank.main, args=(task, self._lifeline[0]))
                processes.append(self._started(process))
        except BaseException:
            for process in processes:
                process.kill()
            raise
        return processes

    def server_cpu_s(self) -> float:
        """Core seconds of the server itself: the imports that all ranks share."""
        try:
            stat = Path(f"/proc/{self._server}/stat").read_text(encoding="utf-8")
        except OSError:
            return 0.0
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def _ready(self) -> Any:
        if self._context is None:
            for name, value in ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            os.environ.setdefault("DS_ACCELERATOR", "cuda" if has_gpu() else "cpu")
            os.environ[COMMAND_VARIABLE] = str(os.getpid())
            if has_gpu():
                self._context = multiprocessing.get_context("spawn")
            else:
                self._context = multiprocessing.get_context("forkserver")
                self._context.set_forkserver_preload(list(self.preload))
            self._lifeline = multiprocessing.Pipe(duplex=False)
        return self._context

    def _started(self, process: Any) -> Any:
        with _without_main():
            if self._context.get_start_method() == "forkserver":
                with _signals_held():
                    multiprocessing.forkserver.ensure_running()
                process.start()
            else:
                with _signals_held():
                    process.start()
        return process


def _name_parent(connection: Connection) -> None:
    with contextlib.suppress(OSError):  # nobody waits for it any more
        connection.send(os.getppid())


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """What is started inside does not hear Ctrl-C, which a terminal sends to all at once.

    Python's own server ignores it only after its imports, and would die of a SIGTERM to the group.
    """
    multiprocessing.resource_tracker.ensure_running()  # its own start would unblock them again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Ranks need nothing of the program that was started, and would run it again to import it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def free_port() -> int:
    """A port that nothing on this machine listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
