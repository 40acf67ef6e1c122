"""The ranks of one attempt, started by srun on all nodes of the job."""

from __future__ import annotations

import collections
import signal
import subprocess
import sys
import threading
from pathlib import Path

from scalesweep.launch.rank import die_with_parent
from scalesweep.records import Execution

STEP_WITHIN_S = 60
"""For a step to get its cores: those of one whose slurmstepd was killed stay taken for ever."""
END_WITHIN_S = 15
KEPT_LINES = 60
"""Of what srun says; the rest is in the job's log."""


def srun_command(task_file: Path, execution: Execution) -> list[str]:
    """One task a rank. Cores are named again: srun does not take them from sbatch since 22.05."""
    return [
        "srun",
        "--kill-on-bad-exit=1",
        "--unbuffered",
        "--mpi=none",
        "--wait=0",  # a rank that ends early does not end the others, whatever the site's default
        f"--immediate={STEP_WITHIN_S}",
        f"--nodes={execution.num_nodes}",
        f"--ntasks={execution.world_size}",
        f"--ntasks-per-node={execution.devices_per_node}",
        f"--cpus-per-task={execution.cpus_per_rank}",
        sys.executable,
        "-u",
        "-P",
        "-m",
        "scalesweep.launch.slurm_rank",
        str(task_file),
    ]


class Step:
    """A job step that runs."""

    def __init__(self, task_file: Path, execution: Execution) -> None:
        self._process = subprocess.Popen(
            srun_command(task_file, execution),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # srun would outlive a supervisor that is killed, and the ranks with it.
            preexec_fn=die_with_parent,
        )
        self._said: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._said.append(line)
                try:
                    print(line, end="", flush=True)
                except OSError:  # the log lies on a full disk; what is said is still needed
                    continue

    def poll(self) -> int | None:
        return self._process.poll()

    @property
    def exit_code(self) -> int:
        code = self._process.wait()
        self._reader.join(timeout=5)
        return code

    @property
    def said(self) -> str:
        return "".join(self._said)

    def ask_to_stop(self) -> None:
        """All ranks write a checkpoint and end. srun passes USR2 on; of TERM it would kill them."""
        self._process.send_signal(signal.SIGUSR2)

    def end(self) -> None:
        """Kill ranks that may be dead already, and srun, which may not notice."""
        self.kill()
        try:
            self._process.wait(timeout=END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGTERM)
