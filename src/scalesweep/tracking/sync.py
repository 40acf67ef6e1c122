"""A study's W&B runs brought up to date on the server, each row once.

One round: settle what an earlier round left half-sent, export what the records say now, upload it,
and ask the server whether it is there. Whatever breaks in between is kept on disk and done by the
next round.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scalesweep.errors import ServerDown, StoreError
from scalesweep.rundir import Store
from scalesweep.tracking.broken_uploads import begun, expected_rows, settle
from scalesweep.tracking.export import runs_folder
from scalesweep.tracking.one_at_a_time import alone
from scalesweep.tracking.upload import upload
from scalesweep.tracking.uploaded import is_uploaded, run_directories, run_id_of, unmark_uploaded
from scalesweep.tracking.wandb_server import Server, connect

LAG_S = 15.0
"""How long the server may take to count what it was sent."""
_POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Synced:
    """How a round ended."""

    num_sent: int
    """Runs that were uploaded now."""
    num_left: int
    """Runs that W&B does not have, or not all of."""
    problem: str
    """Why runs are left; empty where none is."""
    url: str
    """Of the project; empty where nothing was to be sent."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Syncing:
    """What to bring where."""

    store: Store
    study: str
    project: str
    entity: str | None
    stall_s: float
    lag_s: float = LAG_S

    @property
    def folder(self) -> Path:
        return runs_folder(self.store, self.study)

    def round(self) -> Synced:
        """Errors: ConfigError where the login is missing or refused, StoreError from the export."""
        server, problem = None, ""
        try:
            if self._begun():
                server = connect(self.entity)
                self._settle(server)
        except ServerDown as error:
            problem = str(error)
        self._export()  # in any case: what is kept is then up to date
        with alone(self.folder) as lock:
            todo = [p for p in run_directories(self.folder) if not is_uploaded(p)]
            if not todo:
                return Synced(num_sent=0, num_left=0, problem="", url="")
            unclear = self._begun()
            if problem:
                return _left(todo, problem)
            try:
                server = server or connect(self.entity)
                ready = [path for path in todo if path not in unclear]
                if ready:
                    problem = upload(ready, server=server.address, stall_s=self.stall_s, lock=lock)
                num_sent, warnings = self._check(server, ready)
            except ServerDown as error:
                return _left([p for p in todo if not is_uploaded(p)], str(error))
        left = {run_id_of(path) for path in run_directories(self.folder) if not is_uploaded(path)}
        if left and not problem:
            problem = "the server does not say that it has all rows that it was sent"
        return Synced(
            num_sent=num_sent,
            num_left=len(left),
            problem=problem,
            url=f"{server.url}/{server.entity}/{self.project}",
            warnings=warnings,
        )

    def _begun(self) -> list[Path]:
        return begun(self.folder, project=self.project, entity=self.entity)

    def _settle(self, server: Server) -> None:
        with alone(self.folder):
            ids = {run_id_of(path) for path in self._begun()}
            num_rows = self._settled_rows(server, ids)
            settle(self.folder, num_rows, project=self.project, entity=self.entity)

    def _settled_rows(self, server: Server, ids: set[str]) -> Mapping[str, int | None]:
        """Rows by run, once two answers agree: what was sent last may still be counted."""
        deadline = time.monotonic() + self.lag_s
        last = server.num_rows(ids, project=self.project, entity=self.entity)
        while True:
            time.sleep(min(_POLL_S, self.lag_s))
            now = server.num_rows(ids, project=self.project, entity=self.entity)
            if now == last or time.monotonic() > deadline:
                return now
            last = now

    def _export(self) -> None:
        """In a process that knows no login, so that nothing of it can get into a run."""
        words = ["--project", self.project, *(["--entity", self.entity] if self.entity else [])]
        command = "scalesweep.tracking.export_command"
        ended = subprocess.run(
            [sys.executable, "-m", command, str(self.store.root), self.study, *words],
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            lines = ended.stderr.strip().splitlines() or ["the export failed"]
            raise StoreError(lines[-1])

    def _check(self, server: Server, sent: list[Path]) -> tuple[int, tuple[str, ...]]:
        """Number of runs that arrived, and warnings; the others are marked as broken off."""
        marked = [path for path in sent if is_uploaded(path)]
        ids = {run_id_of(path) for path in marked}
        expected = expected_rows(self.folder, project=self.project, entity=self.entity)
        deadline = time.monotonic() + self.lag_s
        while True:
            there = server.num_rows(ids, project=self.project, entity=self.entity)
            short = {i for i in ids if (n := there[i]) is not None and n < expected.get(i, 0)}
            if not short or time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        for path in marked:
            if run_id_of(path) in short:
                unmark_uploaded(path)
        more = [i for i in sorted(ids) if (n := there[i]) is not None and n > expected.get(i, 0)]
        warnings = tuple(
            f"W&B has {there[id_]} rows of run {id_}, of which {expected.get(id_, 0)} were sent "
            "from this store: another store's study of this name is in this project, or "
            "directories were uploaded twice by hand"
            for id_ in more
        )
        return len(ids - short), warnings


def _left(folders: list[Path], problem: str) -> Synced:
    num_left = len({run_id_of(path) for path in folders})
    return Synced(num_sent=0, num_left=num_left, problem=problem, url="")
