"""What srun starts, once for each rank.

python -m scalesweep.launch.slurm_rank <attempt>/task.json
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from scalesweep.launch import rank
from scalesweep.launch.workers import ENVIRONMENT, has_gpu
from scalesweep.records import SCHEMA, StageRef
from scalesweep.rundir import AttemptDir, read_json, write_json

TASK_FILE = "task.json"


def write_task(attempt: AttemptDir, task: rank.RankTask) -> Path:
    """Write down what every rank of an attempt is told; its own number it has from Slurm."""
    path = attempt.path / TASK_FILE
    data = {
        "schema": SCHEMA,
        "store": str(task.store),
        "ref": str(task.ref),
        "attempt": task.attempt,
        "inputs": {role: str(folder) for role, folder in task.inputs.items()},
        "world_size": task.world_size,
        "started_at": task.started_at,
        "runner": task.runner,
        "ends_at": task.ends_at,
    }
    write_json(path, data)
    return path


def read_task(path: Path, environment: Mapping[str, str]) -> rank.RankTask:
    """The task of the rank that Slurm's variables name."""
    data = read_json(path)
    started_at = float(data["started_at"])
    return rank.RankTask(
        store=Path(data["store"]),
        ref=StageRef.parse(data["ref"]),
        attempt=data["attempt"],
        inputs={role: Path(folder) for role, folder in data["inputs"].items()},
        rank=int(environment.get("SLURM_PROCID", 0)),
        local_rank=local_device(environment),
        world_size=data["world_size"],
        port=0,
        started_at=started_at,
        # Nodes have clocks of their own; half a second between them does not matter here.
        started_monotonic=time.monotonic() - max(0.0, time.time() - started_at),
        runner=data["runner"],
        rendezvous=path.with_name("rendezvous.json"),
        ends_at=data["ends_at"],
    )


def local_device(environment: Mapping[str, str]) -> int:
    """Which of the devices that it sees a rank takes.

    Some sites let every task see its own alone, which is number 0 for each of them.
    """
    local_rank = int(environment.get("SLURM_LOCALID", 0))
    seen = [d for d in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    return local_rank % len(seen) if seen else local_rank


def main(arguments: list[str]) -> None:
    # slurmstepd is our parent: without it Slurm knows nothing of us any more.
    rank.die_with_parent()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if has_gpu() else "cpu")
    task = read_task(Path(arguments[0]), os.environ)
    rank.serve(task, stopped_by=(signal.SIGTERM, signal.SIGUSR2))


if __name__ == "__main__":
    main(sys.argv[1:])
