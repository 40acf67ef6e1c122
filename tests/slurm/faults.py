"""Faults that a cluster and its people bring about, injected into a running study.

A fault is a function of the chaos that says what it hit, or None where there was nothing to hit.
What must be undone later it hands to chaos.later().
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

from scalesweep.rundir import Store
from tests.slurm.chaos_study import NAME, ChaosStudy
from tests.slurm.cluster import SlurmCluster


@dataclass(frozen=True)
class Element:
    """A job of the study that runs."""

    name: str
    """As scontrol takes it: 12_3."""
    job_id: str
    node: str
    seconds: int

    def __str__(self) -> str:
        return f"{self.name} on {self.node}"


class Chaos(Protocol):
    """What faults see of the run that they belong to."""

    rng: Random
    cluster: SlurmCluster
    study: ChaosStudy
    disk: StoreDisk | None
    down: set[str]
    """What was broken and is not mended yet: "controller", "database", "store", names of nodes."""

    def later(self, after_s: float, undo: Callable[[], None]) -> None: ...
    def rest(self) -> None:
        """A moment, in which what is due is undone."""


@dataclass(kw_only=True)
class StoreDisk:
    """A file system for the store that all nodes see, small enough to be filled. Root only."""

    path: Path
    """Below SlurmCluster.shared."""
    aside: Path
    """A folder of the login node alone."""
    size_mb: int
    _mounted: bool = field(default=False, init=False)

    def mount(self) -> None:
        self.path.mkdir(exist_ok=True)
        self.aside.mkdir(exist_ok=True)
        _root("mount", "-t", "tmpfs", "-o", f"size={self.size_mb}m", "tmpfs", str(self.path))
        self._mounted = True

    def unmount(self) -> None:
        if self._mounted:
            _root("umount", "--lazy", str(self.path))
            self._mounted = False

    def make_read_only(self) -> None:
        """By covering it: a file system that is written to cannot be made read-only itself.

        The cover is seen on all nodes, and read-only there too since a bind mount takes its flags
        along. Files that are open go on being written.
        """
        _root("mount", "--bind", str(self.path), str(self.aside))
        _root("mount", "--make-private", str(self.aside))
        _root("mount", "-o", "remount,ro,bind", str(self.aside))
        _root("mount", "--bind", str(self.aside), str(self.path))

    def make_writable(self) -> None:
        _root("umount", "--lazy", str(self.path))
        _root("umount", "--lazy", str(self.aside))

    def fill(self) -> None:
        with self._filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
                file.flush()

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self.path / "filler"


def _root(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=30)


# --- what can be hit


def running(chaos: Chaos) -> list[Element]:
    """Jobs of the study that run; none where the controller does not answer."""
    if "controller" in chaos.down:
        return []
    ended = chaos.cluster.try_run("squeue", "-h", "-r", "-t", "R", "-o", "%i|%A|%N|%M|%j")
    rows = [line.split("|") for line in ended.stdout.splitlines() if not ended.returncode]
    return [
        Element(name, job_id, node, _seconds(spent))
        for name, job_id, node, spent, job_name in rows
        if job_name.startswith(NAME)
    ]


def _seconds(text: str) -> int:
    minutes, _, seconds = text.rpartition(":")
    return int(seconds) + 60 * int(minutes.rpartition(":")[2] or 0)


def chosen(chaos: Chaos) -> Element | None:
    found = running(chaos)
    return chaos.rng.choice(found) if found else None


def job_processes(cluster: SlurmCluster, module: str) -> list[int]:
    """Processes of jobs on any node that run a module of scalesweep."""
    conf = f"SLURM_CONF={cluster.folder / 'etc' / 'slurm.conf'}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            is_it = words[0].endswith(b"python") or b"python3" in words[0]
            if is_it and module.encode() in words:
                environment = (folder / "environ").read_bytes().split(b"\0")
                if conf in environment:
                    found.append(int(folder.name))
    return sorted(found)


def step_daemons(cluster: SlurmCluster) -> list[tuple[int, str]]:
    """Process id and title ("slurmstepd: [12.batch]") of every step's daemon."""
    logs = {cluster.log / f"slurmd-{node}.log" for node in cluster.nodes}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text().strip() != "slurmstepd":
                continue
            if any(handle.readlink() in logs for handle in (folder / "fd").iterdir()):
                title = (folder / "cmdline").read_bytes().partition(b"\0")[0].decode()
                found.append((int(folder.name), title))
    return sorted(found)


def _killed(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


# --- faults


def submitter_killed(chaos: Chaos) -> str | None:
    """kill -9 of the command at some moment between its start and its end."""
    before = _num_submissions(chaos.study.store)
    process = chaos.study.begun(*chaos.study.line)
    begin = time.monotonic()
    wanted = chaos.rng.choice((0, 1, 2, 4))
    wait_s = chaos.rng.uniform(0.5, 6.0) if wanted == 0 else chaos.rng.uniform(0.0, 0.3)
    # Until it has begun so many submissions, which it may not where all is in the queue.
    while wanted and process.poll() is None and time.monotonic() < begin + 8:
        if _num_submissions(chaos.study.store) >= before + wanted:
            break
        time.sleep(0.01)
    time.sleep(wait_s)
    lived = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if not lived:
        return None
    new = _num_submissions(chaos.study.store) - before
    return f"after {time.monotonic() - begin:.1f} s, {new} submissions begun"


def _num_submissions(store: Store) -> int:
    with contextlib.suppress(OSError):
        return sum(1 for _ in (store.root / "jobs").iterdir())
    return 0


def preempted(chaos: Chaos) -> str | None:
    """Somebody more important needs the node."""
    victim = chosen(chaos)
    if victim is None:
        return None
    options = ("--partition=urgent", "--exclusive", f"--nodelist={victim.node}")
    ended = chaos.cluster.try_run(
        *("sbatch", *options, "--job-name=urgent", "--output=/dev/null", "--wrap=sleep 2")
    )
    return None if ended.returncode else f"all jobs on {victim.node}"


def requeued(chaos: Chaos) -> str | None:
    victim = chosen(chaos)
    if victim is None or chaos.cluster.try_run("scontrol", "requeue", victim.name).returncode:
        return None
    return str(victim)


def usr2(chaos: Chaos) -> str | None:
    """What a job hears some time before its time limit."""
    victim = chosen(chaos)
    if victim is None:
        return None
    ended = chaos.cluster.try_run("scancel", "--signal=USR2", "--batch", victim.name)
    return None if ended.returncode else str(victim)


def node_power_cut(chaos: Chaos) -> str | None:
    """A node dies; it is back after a while, which may be before or after Slurm noticed."""
    victim = chosen(chaos)
    if victim is None or victim.node in chaos.down:
        return None
    chaos.cluster.kill_node(victim.node)
    _until_mended(
        chaos,
        victim.node,
        chaos.rng.choice((2.0, 12.0, 40.0)),
        lambda: chaos.cluster.start_node(victim.node),
    )
    return victim.node


def slurmd_killed(chaos: Chaos) -> str | None:
    victim = chosen(chaos)
    if victim is None or victim.node in chaos.down:
        return None
    chaos.cluster.kill_slurmd(victim.node)
    _until_mended(
        chaos,
        victim.node,
        chaos.rng.uniform(2, 8),
        lambda: chaos.cluster.start_slurmd(victim.node),
    )
    return victim.node


def slurmstepd_killed(chaos: Chaos) -> str | None:
    """The daemon of a step or of a batch script: what it started lives on as an orphan."""
    found = step_daemons(chaos.cluster)
    if not found:
        return None
    pid, title = chaos.rng.choice(found)
    return title if _killed(pid) else None


def controller_killed(chaos: Chaos) -> str | None:
    if "controller" in chaos.down:
        return None
    chaos.cluster.kill_controller()
    _until_mended(chaos, "controller", chaos.rng.uniform(2, 12), lambda: _start_controller(chaos))
    return "slurmctld"


def _start_controller(chaos: Chaos) -> None:
    if chaos.cluster.accounting:
        chaos.cluster.start_database()  # a controller that never saved what it knows needs it
        chaos.down.discard("database")
    chaos.cluster.start_controller()


def database_killed(chaos: Chaos) -> str | None:
    if "database" in chaos.down or not chaos.cluster.accounting:
        return None
    chaos.cluster.kill_database()
    _until_mended(chaos, "database", chaos.rng.uniform(4, 15), chaos.cluster.start_database)
    return "slurmdbd"


def rank_killed(chaos: Chaos) -> str | None:
    return _job_process_killed(chaos, "scalesweep.launch.slurm_rank")


def supervisor_killed(chaos: Chaos) -> str | None:
    return _job_process_killed(chaos, "scalesweep.launch.supervise")


def _job_process_killed(chaos: Chaos, module: str) -> str | None:
    found = job_processes(chaos.cluster, module)
    if not found:
        return None
    pid = chaos.rng.choice(found)
    return f"process {pid}" if _killed(pid) else None


def store_read_only(chaos: Chaos) -> str | None:
    if chaos.disk is None or "store" in chaos.down:
        return None
    chaos.disk.make_read_only()
    _until_mended(chaos, "store", chaos.rng.uniform(2, 8), chaos.disk.make_writable)
    return "store"


def store_full(chaos: Chaos) -> str | None:
    if chaos.disk is None or "store" in chaos.down:
        return None
    chaos.disk.fill()
    _until_mended(chaos, "store", chaos.rng.uniform(2, 8), chaos.disk.empty)
    return "store"


def launch_failed_held(chaos: Chaos) -> str | None:
    """slurmctld dies before it has saved that a job started; Slurm then holds the job.

    The moment is made by requeueing a job, which starts again some seconds later.
    """
    victim = chosen(chaos)
    if victim is None or chaos.cluster.try_run("scontrol", "requeue", victim.name).returncode:
        return None
    end = time.monotonic() + 20
    while time.monotonic() < end and "controller" not in chaos.down:
        again = [e for e in running(chaos) if e.seconds <= 1]
        if again:
            chaos.cluster.kill_controller()
            _until_mended(chaos, "controller", 1.0, lambda: _start_controller(chaos))
            return f"{again[0]}, {again[0].seconds} s after its start"
        chaos.rest()
    return None


def _until_mended(chaos: Chaos, what: str, after_s: float, undo: Callable[[], None]) -> None:
    def mend() -> None:
        undo()
        chaos.down.discard(what)

    chaos.down.add(what)
    chaos.later(after_s, mend)


FAULTS: Mapping[str, Callable[[Chaos], str | None]] = {
    fault.__name__: fault
    for fault in (
        submitter_killed,
        preempted,
        requeued,
        usr2,
        node_power_cut,
        slurmd_killed,
        slurmstepd_killed,
        controller_killed,
        database_killed,
        rank_killed,
        supervisor_killed,
        store_read_only,
        store_full,
        launch_failed_held,
    )
}
NEEDS_DISK = ("store_read_only", "store_full")
