"""What a person sees while a study runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from scalesweep.launch.attempts import RunningAttempt
from scalesweep.launch.local import StageRun, State
from scalesweep.records import StageRef
from scalesweep.tracking import metric_names as names
from scalesweep.tracking.metric_rows import last_row

REFRESH_S = 0.5
PLAIN_INTERVAL_S = 30.0
"""Between two plain lines about a stage that runs."""
BAR_WIDTH = 10


def seconds_text(seconds: float) -> str:
    """2:05, or 1:02:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def choose_progress(stream: TextIO | None = None) -> PlainProgress | LiveProgress:
    """Live on a terminal, plain lines otherwise."""
    stream = stream or sys.stdout
    return LiveProgress() if stream.isatty() else PlainProgress(stream)


@dataclass
class PlainProgress:
    """One line per event, and now and then one about each stage that runs; fit for a log file."""

    stream: TextIO
    begin: float = field(default_factory=time.monotonic)
    _told: float = field(default_factory=time.monotonic)

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def event(self, run: StageRun, what: str) -> None:
        self._line(event_text(run, what))

    def update(self, runs: Mapping[StageRef, StageRun]) -> None:
        if time.monotonic() - self._told < PLAIN_INTERVAL_S:
            return
        self._told = time.monotonic()
        for run in runs.values():
            if run.state is State.running and run.running is not None:
                self._line(f"at      {run.label}: {', '.join(filter(None, figures(run.running)))}")
        self._line(overall_text(runs))

    def _line(self, text: str) -> None:
        print(f"{seconds_text(time.monotonic() - self.begin):>7} {text}", file=self.stream)
        self.stream.flush()


def event_text(run: StageRun, what: str) -> str:
    """One line about what happened to a stage."""
    if what == "done" and not run.new_attempts:
        return f"done    {run.label} by another command"
    if what == "done":
        return f"done    {run.label} in {run.wall_s:.1f} s"
    if what in ("failed", "retry", "interrupted", "again", "left out", "out of budget"):
        log = f" (log: {run.log})" if what == "failed" and run.log else ""
        return f"{what:<7} {run.label}: {run.cause}{log}"
    if what == "elsewhere":
        return f"waits   {run.label}: {run.cause}"
    return f"{what:<7} {run.label}"


@dataclass
class LiveProgress:
    """A table of what runs, with a bar, loss, speed and time left; events scroll above it."""

    begin: float = field(default_factory=time.monotonic)
    _live: Any = None
    _drawn: float = 0.0

    def __enter__(self) -> LiveProgress:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), auto_refresh=False, transient=True)
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(*error)

    def event(self, run: StageRun, what: str) -> None:
        if what in ("start", "elsewhere"):
            return
        from rich.text import Text

        color = {"done": "green", "failed": "red", "retry": "yellow", "again": "yellow"}
        line = Text(event_text(run, what), style=color.get(what, ""), overflow="ellipsis")
        line.no_wrap = what == "done"
        self._live.console.print(line)

    def update(self, runs: Mapping[StageRef, StageRun]) -> None:
        now = time.monotonic()
        if now - self._drawn >= REFRESH_S:
            self._drawn = now
            self._live.update(self._table(runs), refresh=True)

    def _table(self, runs: Mapping[StageRef, StageRun]) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1), expand=True)  # so that labels take what is left
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(width=BAR_WIDTH)
        for _ in range(4):
            table.add_column(justify="right", no_wrap=True)
        for run in runs.values():
            if run.state is not State.running or run.running is None:
                continue
            row = last_row(run.running.attempt.metrics)
            done, total = row.get(names.PROGRESS_DONE, 0), row.get(names.PROGRESS_TOTAL, 0)
            bar = ProgressBar(total=total or 1, completed=done, width=BAR_WIDTH)
            table.add_row(Text(run.label), bar, *figures(run.running))
        overall = f"{overall_text(runs)}  {seconds_text(time.monotonic() - self.begin)}"
        return Group(table, Text(overall, style="bold"))


def figures(running: RunningAttempt) -> tuple[str, str, str, str]:
    """How far, loss, speed and time left; empty where the stage has none."""
    row = last_row(running.attempt.metrics)
    done, total = row.get(names.PROGRESS_DONE, 0), row.get(names.PROGRESS_TOTAL, 0)
    return (
        f"{done}/{total}" if total else "starts",
        f"loss {row[names.LOSS]:.3f}" if names.LOSS in row else "",
        _speed(row),
        _left(running.wall_s, done, total, row.get(names.STEP_SECONDS)),
    )


def _speed(row: Mapping[str, Any]) -> str:
    speed = row.get(names.TOKENS_PER_SECOND)
    return f"{speed / 1000:.1f}k tok/s" if speed else ""


def _left(wall_s: float, done: int, total: int, step_s: float | None) -> str:
    """Time left at the speed of the newest step, or at that so far where there are no steps."""
    if not (done and total):
        return ""
    return f"-{seconds_text((total - done) * (step_s or wall_s / done))}"


def overall_text(runs: Mapping[StageRef, StageRun]) -> str:
    """Counts of stages by state."""
    counts = Counter(run.state for run in runs.values())
    done = counts.pop(State.done, 0)
    others = [f"{counts[s]} {s}" for s in State if counts[s]]
    if not counts[State.running] and counts[State.waiting]:
        others.append("workers start")
    return ", ".join([f"{done}/{len(runs)} stages done", *others])
