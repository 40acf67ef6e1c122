"""A real Slurm cluster on this machine, handled by tests; launchers/slurm_cluster makes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "launchers" / "slurm_cluster" / "cluster.sh"
PROGRAMS = ("slurmctld", "slurmd", "munged")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "sacct")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
"""States of a job that will not run again."""


def missing_programs(*, accounting: bool = True) -> list[str]:
    """Programs that a cluster needs and this machine lacks."""
    needed = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return [name for name in needed if shutil.which(name, path=path) is None]


def until(condition: Callable[[], object], *, timeout_s: float, what: str) -> None:
    """Returns soon after a condition holds; fails when it never does. Conditions start programs."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.15)


@dataclass(frozen=True, kw_only=True)
class SlurmCluster:
    """One cluster. Commands that fail raise, but where the name says try."""

    folder: Path
    num_nodes: int = 4
    num_gpus: int = 8
    """Fake ones, on each node."""
    accounting: bool = True

    @property
    def nodes(self) -> list[str]:
        return [f"n{i}" for i in range(self.num_nodes)]

    @property
    def has_namespaces(self) -> bool:
        """Whether nodes have host names and processes of their own (started by root)."""
        return "NS=1" in (self.folder / "etc" / "settings").read_text().split()

    @property
    def shared(self) -> Path:
        """What is mounted below it while the cluster runs is seen on all nodes."""
        return self.folder / "mnt"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def env(self, **more: str) -> dict[str, str]:
        """Environment of a shell on the login node, in which nothing else of ours is set."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SCALESWEEP", "SLURM", "SBATCH", "PYTEST"))
        }
        return {**kept, "SLURM_CONF": str(self.folder / "etc" / "slurm.conf"), **more}

    # --- the whole of it

    def start(self, *, watched_pid: int | None = None) -> None:
        """Start it, or what of it does not run.

        watched_pid: a watchdog stops the cluster when this process is gone, however it ended.
        """
        self._script("up", *(() if watched_pid is None else ("--with-pid", str(watched_pid))))

    def stop(self) -> None:
        self._script("down")

    def wipe(self) -> None:
        """Stop it and delete its folder."""
        self._script("wipe")

    def heal(self) -> None:
        """As after the start: no jobs, every daemon and node up. Cheap where nothing is wrong."""
        if self.accounting:
            self.start_database()  # first: a controller that never saved what it knows needs it
        self.start_controller()
        self.run("scancel", "--quiet", "--user", self.run("id", "-un").strip())
        for node in self.nodes:
            self._script("node-up", node)
            self.start_slurmd(node)
        until(self._is_whole, timeout_s=90, what="idle nodes and an empty queue")

    def _is_whole(self) -> bool:
        states = self.node_states().values()
        if any(state.startswith(("drain", "down", "fail")) for state in states):
            self.resume_nodes()
        return set(states) == {"idle"} and not self.squeue()

    # --- faults

    def kill_node(self, node: str) -> None:
        """Power cut: every process of it dies at once."""
        self._script("node-kill", node)

    def start_node(self, node: str) -> None:
        self._script("node-up", node)

    def kill_slurmd(self, node: str) -> None:
        """Its jobs run on."""
        self._script("slurmd-kill", node)

    def start_slurmd(self, node: str) -> None:
        self._script("slurmd-up", node)

    def kill_controller(self) -> None:
        self._script("ctl-kill")

    def start_controller(self) -> None:
        self._script("ctl-up")

    def kill_database(self) -> None:
        """Its slurmdbd."""
        self._script("dbd-kill")

    def start_database(self) -> None:
        self._script("dbd-up")

    def resume_nodes(self) -> None:
        """Give drained and downed nodes back to the scheduler."""
        self._script("resume-nodes")

    # --- Slurm's commands

    def run(self, *words: str, timeout_s: float = 60, **env: str) -> str:
        """What a command on the login node prints. env: more of its environment."""
        ended = self.try_run(*words, timeout_s=timeout_s, **env)
        assert ended.returncode == 0, f"{' '.join(words)}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def try_run(
        self, *words: str, timeout_s: float = 60, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            env=self.env(**env),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def sbatch(self, script: str, *options: str) -> int:
        """Submits a shell script; the id of its job."""
        return int(self.run("sbatch", "--parsable", *options, "--wrap", script))

    def squeue(self, *options: str, fields: str = "%i|%T|%N|%r") -> list[list[str]]:
        """Rows of all jobs that wait or run, elements of arrays one by one."""
        return _rows(self.run("squeue", "-h", "-r", "-a", *options, "-o", fields))

    def sacct(
        self, *options: str, fields: str = "JobID,State,ElapsedRaw", **env: str
    ) -> list[list[str]]:
        """Rows of accounting: every run of every job (-D), without steps."""
        return _rows(self.run("sacct", "-D", "-X", "-P", "-n", *options, "-o", fields, **env))

    def scontrol(self, *words: str) -> str:
        return self.run("scontrol", *words)

    def job(self, job_id: int | str) -> dict[str, str]:
        """Fields of `scontrol show job`; empty when Slurm has forgotten it."""
        ended = self.try_run("scontrol", "-o", "show", "job", str(job_id))
        if ended.returncode:
            return {}
        return dict(word.split("=", 1) for word in ended.stdout.split() if "=" in word)

    def node_states(self) -> dict[str, str]:
        return dict(row for row in _rows(self.run("sinfo", "-hN", "-p", "main", "-o", "%N|%T")))

    # --- waiting

    def wait_for_state(self, job_id: int | str, *states: str, timeout_s: float = 60) -> str:
        """Waits until a job is in one of the states, and says in which."""

        def come() -> bool:
            return self.job(job_id).get("JobState") in states

        until(come, timeout_s=timeout_s, what=f"job {job_id} to be {' or '.join(states)}")
        return self.job(job_id)["JobState"]

    def wait_for_end(self, job_id: int | str, *, timeout_s: float = 60) -> str:
        """The state in which a job ended."""
        return self.wait_for_state(job_id, *ENDED, timeout_s=timeout_s)

    def wait_for_empty_queue(self, *, timeout_s: float = 60) -> None:
        until(lambda: not self.squeue(), timeout_s=timeout_s, what="an empty queue")

    def wait_for_rows(
        self,
        condition: Callable[[list[list[str]]], object],
        *options: str,
        fields: str = "JobID,State,ElapsedRaw",
        timeout_s: float = 60,
    ) -> list[list[str]]:
        """Rows of accounting, which arrive late, as soon as a condition holds for them."""
        until(
            lambda: condition(self.sacct(*options, fields=fields)),
            timeout_s=timeout_s,
            what=f"sacct {' '.join(options)}",
        )
        return self.sacct(*options, fields=fields)

    # --- processes

    def processes(self) -> list[int]:
        """Everything that belongs to it: daemons, nodes and what their jobs started."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:  # it ended just now, or is another user's
                continue
            if bytes(self.folder) in text and state not in "ZX" and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        return found

    def _script(self, *words: str) -> None:
        ended = subprocess.run(
            [str(SCRIPT), *words],
            env=self.env(**self._settings()),
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        assert ended.returncode == 0, f"cluster.sh {' '.join(words)}: {ended.stderr}"

    def _settings(self) -> Mapping[str, str]:
        return {
            "SCALESWEEP_CLUSTER_DIR": str(self.folder),
            "SCALESWEEP_CLUSTER_NODES": str(self.num_nodes),
            "SCALESWEEP_CLUSTER_GPUS": str(self.num_gpus),
            "SCALESWEEP_CLUSTER_DBD": str(int(self.accounting)),
        }


def _rows(text: str) -> list[list[str]]:
    return [line.split("|") for line in text.splitlines() if line]
