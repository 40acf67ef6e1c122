"""submitit, which writes batch scripts and hands them to sbatch. Nothing else imports it.

Two things are not as submitit does by itself. A batch script runs our supervisor, told by a folder
what to run: no pickle must be moved after sbatch has answered, so a submitter that dies then loses
nothing. And sbatch gets a chosen environment.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import submitit

from scalesweep.launch.slurm import SlurmError, asked
from scalesweep.rundir import write_atomic

SBATCH_TIMEOUT_S = 120
BATCH_SCRIPT = "job.sh"


@dataclass(frozen=True, kw_only=True)
class JobShape:
    """What sbatch is asked for; equal for all elements of an array."""

    nodes: int
    tasks_per_node: int
    devices_per_node: int
    gres: str | None
    cpus_per_task: int
    memory_gb: float | None
    timeout_min: int
    signal_lead_s: int
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    exclusive: bool
    array_parallelism: int
    options: tuple[str, ...] = ()
    """Further options of sbatch, "--name=value" or "--name"."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a batch script does before it becomes the supervisor."""

    code: Path
    """Folder for PYTHONPATH."""
    preamble: str | None = None
    """File that is sourced."""
    env: Mapping[str, str] = field(default_factory=dict)
    directory: Path
    """Where it runs."""


class _Supervised(submitit.SlurmExecutor):  # type: ignore[misc]
    """submitit's executor with another program in the script."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder=folder)
        self._command = " ".join(
            (
                "exec",
                self.python,
                "-u -P -m scalesweep.launch.supervise",
                shlex.quote(str(folder)),
            )
        )

    @property
    def _submitit_command_str(self) -> str:
        return self._command


def batch_script(
    folder: Path,
    *,
    name: str,
    shape: JobShape,
    script: Script,
    indices: Sequence[int],
    dependency: str,
    comment: str,
) -> str:
    """Text of a batch script for a job array. folder: of the submission, its logs go there."""
    executor = _Supervised(folder)
    options: dict[str, object] = {
        "array": f"{compact(indices)}%{shape.array_parallelism}",
        # To the batch script alone: it tells the ranks, and knows afterwards why they stopped.
        "signal": f"B:USR2@{shape.signal_lead_s}",
        "requeue": True,
        "kill-on-invalid-dep": "yes",
        "chdir": str(script.directory),
    }
    for option in shape.options:
        key, equals, value = option.removeprefix("--").partition("=")
        options[key] = value if equals else True
    resources = {
        "job_name": name,
        "comment": comment,
        "nodes": shape.nodes,
        "ntasks_per_node": shape.tasks_per_node,
        "cpus_per_task": shape.cpus_per_task,
        "mem": None if shape.memory_gb is None else _memory(shape.memory_gb),
        "gres": _gres(shape),
        "time": shape.timeout_min,
        "partition": shape.partition,
        "account": shape.account,
        "qos": shape.qos,
        "constraint": shape.constraint,
        "exclusive": True if shape.exclusive else None,
        "dependency": dependency or None,
        "wckey": None,
    }
    executor.update_parameters(
        **resources,
        setup=_setup(script),
        stderr_to_stdout=True,
        use_srun=False,
        array_parallelism=shape.array_parallelism,
        additional_parameters=options,
    )
    executor.parameters["map_count"] = len(indices)
    return str(executor._make_submission_file_text(executor._submitit_command_str, name))


def _setup(script: Script) -> list[str]:
    lines = ["trap '' USR2  # until the supervisor knows what to do with it"]
    if script.preamble:
        path = shlex.quote(script.preamble)
        lines.append(f"source {path} || exit 78")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(script.env.items())]
    # Ours first; what preamble and cluster.env put there stays behind it.
    lines.append(f"export PYTHONPATH={shlex.quote(str(script.code))}${{PYTHONPATH:+:$PYTHONPATH}}")
    return lines


def _gres(shape: JobShape) -> str | None:
    if shape.gres is None or not shape.devices_per_node:
        return None
    return f"{shape.gres}:{shape.devices_per_node}"


def _memory(gigabytes: float) -> str:
    return "0" if gigabytes == 0 else f"{max(1, round(gigabytes * 1000))}M"


def compact(indices: Sequence[int]) -> str:
    """0,1,2,7 -> "0-2,7", as --array takes it."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def sbatch(folder: Path, text: str, *, env: Mapping[str, str]) -> int:
    """Submit a batch script; the job id of the array.

    Raises:
        SlurmError: sbatch refused it, or could not be reached. In the second case the job may
            exist all the same: look for its name.
    """
    script = folder / BATCH_SCRIPT
    write_atomic(script, text)
    command = _Supervised(folder)._make_submission_command(script)
    # It must not go on trying alone when we are killed: the next command would not know of it.
    said = asked(command, env=env, timeout_s=SBATCH_TIMEOUT_S, dies_with_us=True)
    found = re.search(r"job (\d+)", said)
    if found is None:
        raise SlurmError(f"sbatch: cannot find a job id in its answer {said.strip()!r}")
    return int(found.group(1))
