"""One stage, run: the seam between launching and the work itself.

Every kind of stage is a function run(context) that reads its inputs' output folders and writes
only below its attempt. What starts it (a local worker, a Slurm job) is not its business.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalesweep.records import Done, Execution, StageKind, StageSpec, canonical_json
from scalesweep.rundir import AttemptDir, StageDir, Store, output_files

RUNNERS: Mapping[StageKind, str] = {
    StageKind.data: "scalesweep.data.stage",
    StageKind.base: "scalesweep.train.stage",
    StageKind.align: "scalesweep.train.stage",
    StageKind.tune: "scalesweep.train.stage",
    StageKind.generate: "scalesweep.evaluate.generate_stage",
    StageKind.judge: "scalesweep.evaluate.judge_stage",
}
"""Modules with a function run(context); imported where a stage runs, never on a login node."""

RENDEZVOUS_VARIABLE = "SCALESWEEP_RENDEZVOUS"
"""Environment variable with the file by which ranks on several nodes find each other."""


@dataclass
class StopFlag:
    """Set by a signal; long work looks at it between steps and then raises Interrupted."""

    event: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> bool:
        return self.event.is_set()


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """All that a running stage knows."""

    store: Store
    stage: StageDir
    attempt: AttemptDir
    spec: StageSpec
    execution: Execution
    inputs: Mapping[str, Path]
    """Role -> output folder of the parent, complete."""
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    stop_requested: Callable[[], bool] = field(default_factory=StopFlag)
    ends_at: float | None = None
    """Seconds since 1970 when the job's time limit ends it; None where it has none."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def earlier_attempts(self) -> list[AttemptDir]:
        """Attempts of lower epochs, newest first: where a checkpoint may be resumed from."""
        older = [a for a in self.stage.attempts() if a.number < self.attempt.number]
        return older[::-1]

    def inputs_digest(self) -> str:
        """Hash over the bytes of all inputs.

        What an earlier attempt left (a checkpoint, answers) is of use only when it had the same: a
        parent may have been made again since, with other bytes.
        """
        digests = {role: _digest(folder) for role, folder in sorted(self.inputs.items())}
        return hashlib.sha256(canonical_json(digests).encode()).hexdigest()

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one row to metrics.jsonl (rank zero only). Names: tracking/metric_names.py."""
        if self.is_main:
            line = json.dumps({"time": round(time.time(), 3), **row}, allow_nan=False)
            with self.attempt.metrics.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _digest(output: Path) -> str:
    """That of the done.json which published an output folder; one without it is hashed here."""
    if output.parent.parent.name == "attempts":
        done = StageDir(output.parents[2]).done()
        if done is not None and done.attempt == AttemptDir(output.parent).number:
            return done.digest
    return Done(attempt=0, files=output_files(output)).digest


def run(context: StageContext) -> None:
    """Run one stage in this process, as one rank of it."""
    module = importlib.import_module(RUNNERS[context.spec.kind])
    module.run(context)
