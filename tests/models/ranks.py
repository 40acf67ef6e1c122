"""A split model asked by real processes, one for each rank, and what they found."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from scalesweep.launch.rank import COMMAND_VARIABLE
from scalesweep.launch.workers import ENVIRONMENT, PRELOAD
from scalesweep.models.replica import Replica, join

Work = Callable[..., Any]
"""work(replica, *arguments) -> what it found; importable, as it runs in another process."""


@dataclass
class Ranks:
    """Processes of one replica, under way."""

    folder: Path
    processes: list[Any] = field(default_factory=list)

    def start(self, work: Work, size: int, *arguments: Any) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        os.environ[COMMAND_VARIABLE] = str(os.getpid())
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOAD))
        for rank in range(size):
            process = context.Process(target=_run, args=(self.folder, rank, size, work, arguments))
            process.start()
            self.processes.append(process)

    def wait(self, *, timeout_s: float = 90) -> None:
        until = time.monotonic() + timeout_s
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        left = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        for process in self.processes:
            process.kill()
            process.join()
        assert not left, f"ranks {left} did not end within {timeout_s} s"

    def said(self, rank: int) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / f"error-{rank}.txt").read_text("utf-8")
        return ""

    def found(self) -> list[Any]:
        self.wait()
        errors = [self.said(rank) for rank in range(len(self.processes))]
        assert not any(errors), "\n".join(errors)
        return [
            torch.load(self.folder / f"found-{rank}.pt", weights_only=False)
            for rank in range(len(self.processes))
        ]


def together(folder: Path, work: Work, size: int, *arguments: Any) -> list[Any]:
    """What each rank of a replica found."""
    folder.mkdir(parents=True, exist_ok=True)
    ranks = Ranks(folder)
    ranks.start(work, size, *arguments)
    return ranks.found()


def alone(work: Work, *arguments: Any) -> Any:
    """What this process finds, with as many threads as a rank has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work(Replica(), *arguments)
    finally:
        torch.set_num_threads(threads)


def _run(folder: Path, rank: int, size: int, work: Work, arguments: Sequence[Any]) -> None:
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cpu = torch.device("cpu")
            replica = join(folder / "ranks.json", rank=rank, size=size, device=cpu)
            found = work(replica, *arguments)
        torch.save(found, folder / f"found-{rank}.pt")
    except BaseException:
        (folder / f"error-{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        os._exit(1)
    os._exit(0)
