"""The demo study as a whole: time, where it goes, and how much memory it takes.

Memory is the proportional set size of the command and all its workers, added up twice a second:
pages that forked workers share count once.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from scalesweep.plan.graph import Plan
from scalesweep.rundir import Store, read_json

LINE = ["-m", "scalesweep", "-m", "+sweep=quickstart"]
SAMPLE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Run:
    wall_s: float
    peak_bytes: int
    last_lines: list[str]


def main() -> None:
    """Run the demo in a store of its own, twice; print what both took."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        first = run_demo(store)
        print("\n".join(first.last_lines))
        print(f"peak memory of all processes together: {first.peak_bytes / 1e9:.2f} GB")
        _print_shares(Store(store), first.wall_s)
        again = run_demo(store)
        print("\n".join(again.last_lines))
        print(
            f"typed again: {again.wall_s:.1f} s, {again.wall_s / first.wall_s:.3f} times the first"
        )


def run_demo(store: Path) -> Run:
    """The demo study's command in a store, to its end; exits with what it said where it fails."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *LINE, f"store={store}"], stdout=output, stderr=subprocess.STDOUT
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, _tree_bytes(process.pid))
            time.sleep(SAMPLE_S)
        output.seek(0)
        lines = output.read().splitlines()
    if process.returncode:
        raise SystemExit("\n".join(lines[-20:]))
    return Run(wall_s=time.perf_counter() - begin, peak_bytes=peak, last_lines=lines[-3:])


def _print_shares(store: Store, wall_s: float) -> None:
    """Which part of the devices' time went where."""
    plan = Plan.from_json(read_json(store.study("quickstart") / "plan.json"))
    usages = [
        usage
        for stage in plan.stages
        for attempt in store.stage(stage.spec.ref).attempts()
        if (usage := attempt.usage()) is not None
    ]
    devices = max(usage.node_devices for usage in usages)
    held = sum(usage.wall_s * usage.num_devices for usage in usages)
    startup = sum(usage.startup_s * usage.num_devices for usage in usages)
    print(
        f"{devices} devices x {wall_s:.0f} s: stages held {held / (devices * wall_s):.0%}; "
        f"start-up (imports, loading, first batch) was {startup / held:.0%} of what they held, "
        f"{startup / len(usages):.2f} s a stage"
    )


def _tree_bytes(root: int) -> int:
    return sum(_pss_bytes(pid) for pid in _tree(root))


def _tree(root: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 (many times a minute)
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += parents.get(pid, [])
    return found


def _pss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
