"""Lines typed on the login node of a test cluster, and what they leave in the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalesweep.launch.jobs import StageJobs
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.records import StageKind
from scalesweep.rundir import AttemptDir, StageDir, Store, read_json
from tests.integration.tiny_study import TINY
from tests.slurm.cluster import SlurmCluster, until

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "scalesweep")
LIGHT = "tests.fakes.slow_trainer"
"""Runner without torch: stages of a second or so, exact about every step."""


@dataclass(kw_only=True)
class Login:
    """A shell on the login node."""

    cluster: SlurmCluster
    folder: Path
    study: str
    runner: str | None = None
    step_s: float = 0.05
    settings: tuple[str, ...] = ()
    more_env: Mapping[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    def environment(self) -> dict[str, str]:
        env = self.cluster.env(**self.more_env)
        if self.runner:
            env["SCALESWEEP_RUNNER"] = self.runner
        return env

    def line(self, *words: str) -> list[str]:
        """The study's line."""
        extra = ["cluster=slurm_local", f"study={self.study}", *self.settings]
        if self.runner:  # jobs import it, and are told its pace
            extra += [
                f"+cluster.env.PYTHONPATH='{ROOT}'",
                f"+cluster.env.SLOW_TRAINER_STEP_S='{self.step_s}'",
            ]
        return [*COMMAND, "-m", *TINY, *extra, *words]

    def submit(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        ended = self._run(self.line(*words))
        if check:
            assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended

    def verb(self, verb: str, *words: str, check: bool = True) -> str:
        ended = self._run([*COMMAND, verb, *words])
        if check:
            assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def _run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.verb("status", self.study, "--json")))

    def states(self) -> dict[str, str]:
        """Label of a stage -> its state."""
        return {stage["label"]: stage["state"] for stage in self.status()["stages"]}

    def plan(self) -> Plan:
        return Plan.from_json(read_json(self.store.study(self.study) / "plan.json"))

    def wait_for_queue(self, *, timeout_s: float = 240) -> None:
        """Until no job of the cluster waits or runs."""
        until(lambda: not self.cluster.squeue(), timeout_s=timeout_s, what="an empty queue")

    def stage(self, kind: StageKind, part: str = "") -> PlannedStage:
        """The one stage of a kind whose label has a part in it."""
        found = [s for s in self.plan().stages if s.spec.kind is kind and part in s.spec.label]
        assert len(found) == 1, [s.spec.label for s in found]
        return found[0]

    def folder_of(self, stage: PlannedStage) -> StageDir:
        return self.store.stage(stage.spec.ref)

    def element(self, stage: PlannedStage) -> str:
        """Its element of a job array, as Slurm names it."""
        job = StageJobs(self.folder_of(stage)).newest()
        assert job is not None
        record = read_json(self.store.root / "jobs" / job.submission / "job.json")
        return f"{record['job_id']}_{job.index}"

    def wait_for_step(
        self, stage: PlannedStage, *, attempt: int, step: int = 3, timeout_s: float = 90
    ) -> AttemptDir:
        """An attempt as soon as it has done some steps more than the one before left."""
        found = self.folder_of(stage).attempt(attempt)
        until(
            lambda: len(list(found.metric_rows())) >= step,
            timeout_s=timeout_s,
            what=f"{step} steps of {stage.spec.label}, attempt {attempt}",
        )
        return found

    def digests(self) -> dict[str, str]:
        """Stage -> hash over all bytes that it published."""
        found = {}
        for stage in self.plan().stages:
            done = self.folder_of(stage).done()
            assert done is not None, f"{stage.spec.label} is not done"
            found[str(stage.spec.ref)] = done.digest
        return found

    def logs(self) -> str:
        """What all supervisors printed: why a test failed."""
        files = sorted((self.store.root / "jobs").glob("*/*_log.out"), key=os.path.getmtime)
        return "\n".join(f"== {f.name}\n{f.read_text(errors='replace')}" for f in files)
