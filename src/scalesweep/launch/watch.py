"""Following a study on a cluster until nothing of it is left to wait for.

What must be done on the login node is done meanwhile: judge stages that wait for a network, and
jobs that Slurm holds after a failed launch. Jobs need none of this to go on; a watcher may be ended
and started again at any time.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TextIO

from scalesweep.launch import slurm
from scalesweep.launch.held import releasable
from scalesweep.launch.local import Scheduler, StudyResult
from scalesweep.launch.progress import PlainProgress, choose_progress, seconds_text
from scalesweep.launch.queue import QueueView, look
from scalesweep.launch.status import StageStatus, lines_in_one, study_status
from scalesweep.plan.graph import Plan
from scalesweep.records import StageRef
from scalesweep.rundir import Store

POLL_S = 5.0
GOING = ("running", "queued", "held")
OWN = ("login", "running", "done")
"""States of a judge stage that the running of it here tells about."""
PLAIN_INTERVAL_S = 60.0
MOST_ROWS = 12


@dataclass(kw_only=True)
class Watched:
    """How a study stood when nothing was left to wait for."""

    status: Mapping[StageRef, StageStatus]
    all_done: bool


def ready_on_login(plan: Plan, status: Mapping[StageRef, StageStatus]) -> Plan | None:
    """The judge stages that can be done here now, with what they need; None when there is none."""
    ready = [ref for ref, stage in status.items() if stage.state == "login"]
    if not ready:
        return None
    wanted = set(ready)
    for ref in ready:
        wanted |= plan.ancestors(ref)
    return Plan(
        study=plan.study,
        cells=plan.cells,
        stages=tuple(stage for stage in plan.stages if stage.spec.ref in wanted),
        question=plan.question,
        command=plan.command,
        notes=plan.notes,
    )


def run_on_login(plan: Plan, store: Store, *, stream: TextIO | None = None) -> StudyResult:
    """Run a plan's open stages in processes of this machine."""
    progress = PlainProgress(stream) if stream else choose_progress()
    with progress:
        return Scheduler(
            plan=plan, store=store, num_workers=1, progress=progress, announces=False
        ).run()


def release_held(store: Store, view: QueueView) -> list[str]:
    """Let elements go that Slurm holds after a failed launch and at whose stage nobody is."""
    released = []
    for element in releasable(store, {ref: place.row for ref, place in view.places.items()}):
        slurm.release(element)
        released.append(element)
    return released


@dataclass(kw_only=True)
class Watcher:
    """One `watch`."""

    plan: Plan
    store: Store
    poll_s: float = POLL_S
    stream: TextIO = field(default_factory=lambda: sys.stdout)
    begin: float = field(default_factory=time.monotonic)
    sleep: Callable[[float], None] = time.sleep
    _last: dict[StageRef, str] = field(default_factory=dict)
    _told: float = 0.0

    def run(self) -> Watched:
        """Until every stage is done, or none that is left can come to it by itself."""
        with _Screen(self.stream) as screen:
            while True:
                view = look(self.plan, self.store, with_ended=False)
                status = study_status(self.plan, self.store, view)
                self._tell(status, view, screen)
                if all(stage.state == "done" for stage in status.values()):
                    break
                if self._act(status, view, screen):
                    continue
                states = Counter(stage.state for stage in status.values())
                if not view.problem and not any(states[state] for state in GOING):
                    break
                self.sleep(self.poll_s)
            view = look(self.plan, self.store, with_ended=True)
            status = study_status(self.plan, self.store, view)
            screen.line(self._overall(status))
        return Watched(
            status=status, all_done=all(stage.state == "done" for stage in status.values())
        )

    def _act(
        self, status: Mapping[StageRef, StageStatus], view: QueueView, screen: _Screen
    ) -> bool:
        """Do what waits for the login node; whether anything was done."""
        try:
            for element in release_held(self.store, view):
                screen.line(f"{self._clock()} released {element}, held after a failed launch")
        except slurm.SlurmError as error:
            screen.line(f"{self._clock()} {error}")
        ready = ready_on_login(self.plan, status)
        if ready is None:
            return False
        with screen.paused():
            result = run_on_login(ready, self.store, stream=self.stream)
        return result.new_attempts > 0 and result.all_done

    def _tell(
        self, status: Mapping[StageRef, StageStatus], view: QueueView, screen: _Screen
    ) -> None:
        for ref, stage in status.items():
            before = self._last.get(ref)
            told_elsewhere = self.plan.stage(ref).execution.on_login and stage.state in OWN
            if (
                before not in (None, stage.state)
                and stage.state not in ("waiting", "queued")
                and not told_elsewhere
            ):
                detail = f": {stage.detail}" if stage.state not in ("done", "running") else ""
                screen.line(f"{self._clock()} {stage.state:<8} {stage.label}{detail}")
            self._last[ref] = stage.state
        if view.problem:
            screen.line(f"{self._clock()} Slurm is not seen: {view.problem}")
        now = time.monotonic()
        if screen.is_live or now - self._told >= PLAIN_INTERVAL_S or not self._told:
            self._told = now
            screen.show(self._rows(status), self._overall(status))

    def _rows(self, status: Mapping[StageRef, StageStatus]) -> list[str]:
        rows = [s for s in status.values() if s.state == "running"]
        lines = [f"{stage.label}: {stage.detail}" for stage in rows[:MOST_ROWS]]
        if len(rows) > MOST_ROWS:
            lines.append(f"... and {len(rows) - MOST_ROWS} more that run")
        return lines + lines_in_one(status.values())

    def _overall(self, status: Mapping[StageRef, StageStatus]) -> str:
        counts = Counter(stage.state for stage in status.values())
        done = counts.pop("done", 0)
        others = ", ".join(f"{count} {state}" for state, count in counts.most_common())
        return f"{self._clock()} {done}/{len(status)} stages done" + (
            f", {others}" if others else ""
        )

    def _clock(self) -> str:
        return f"{seconds_text(time.monotonic() - self.begin):>7}"


class _Screen:
    """Lines that stay, and below them on a terminal what changes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_live = stream.isatty()
        self._live: object | None = None

    def __enter__(self) -> _Screen:
        self._begin()
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _begin(self) -> None:
        if self.is_live:
            from rich.console import Console
            from rich.live import Live

            live = Live(console=Console(file=self._stream), auto_refresh=False, transient=True)
            live.__enter__()
            self._live = live

    def _end(self) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)  # type: ignore[attr-defined]
            self._live = None

    def paused(self) -> _Paused:
        """While something else draws."""
        return _Paused(self)

    def line(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)  # type: ignore[attr-defined]
        else:
            print(text, file=self._stream, flush=True)

    def show(self, rows: list[str], overall: str) -> None:
        if self._live is None:
            print(overall, file=self._stream, flush=True)
            return
        from rich.console import Group
        from rich.text import Text

        texts = [Text(row, no_wrap=True, overflow="ellipsis") for row in rows]
        self._live.update(Group(*texts, Text(overall, style="bold")), refresh=True)  # type: ignore[attr-defined]


class _Paused:
    def __init__(self, screen: _Screen) -> None:
        self._screen = screen

    def __enter__(self) -> None:
        self._screen._end()

    def __exit__(self, *error: object) -> None:
        self._screen._begin()
