"""Processes that run stages: forked from a server that has imported everything once.

On two cores starting so takes half the time of spawning each worker with its own imports. CUDA does
not survive a fork, so where there is a GPU ranks are spawned.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from scalesweep.launch import rank
from scalesweep.launch.rank import RankTask

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
    _environment: dict[str, str | None] = field(default_factory=dict)

    def start(self, tasks: Sequence[RankTask]) -> list[Any]:
        """One process per rank; they begin at once."""
        context = self._ready()
        assert self._lifeline is not None
        processes = []
        for task in tasks:
            process = context.Process(target=rank.main, args=(task, self._lifeline[0]))
            process.start()
            processes.append(process)
        return processes

    def _ready(self) -> Any:
        if self._context is None:
            for name, value in ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            os.environ.setdefault("DS_ACCELERATOR", "cuda" if has_gpu() else "cpu")
            if has_gpu():
                self._context = multiprocessing.get_context("spawn")
            else:
                self._context = multiprocessing.get_context("forkserver")
                self._context.set_forkserver_preload(list(self.preload))
            self._lifeline = multiprocessing.Pipe(duplex=False)
        return self._context


def free_port() -> int:
    """A port that nothing on this machine listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
