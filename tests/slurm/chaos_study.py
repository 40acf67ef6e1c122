"""The study that faults are injected into, its user, and how its end is judged."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalesweep.plan.graph import Plan
from scalesweep.records import Done
from scalesweep.rundir import AttemptDir, StageDir, Store, output_files, read_json, write_json
from scalesweep.stages import StageContext
from tests.fakes import slow_trainer
from tests.slurm.cluster import SlurmCluster

COMMAND = (sys.executable, "-m", "scalesweep")
ROOT = Path(__file__).parents[2]
NAME = "chaos"
CELLS: Mapping[int, Sequence[str]] = {
    2: ("tuning=lora,full",),
    3: ("tuning=lora,full,qlora",),
    4: ("tuning=lora,full", "data_mix=mini,mini_text"),
}
SMALL = (
    "align.optim.max_steps=12",
    "optim.max_steps=30",
    "cluster.checkpoint_every_steps=4",
    "datasets.mini_train.parameters.num_pictures=200",
    "datasets.mini_train.parameters.num_text=50",
    "datasets.mini_test.parameters.num_questions=60",
    "datasets.mini_test.parameters.num_text_questions=60",
)
"""What makes the real stack's study a matter of minutes."""
SECONDS_A_RUN, SHARE = 2.0, 0.01
"""By how much reported and accounted GPU seconds may differ: the larger of the two."""


@dataclass(kw_only=True)
class ChaosStudy:
    """One study on one cluster, typed as a line in a shell."""

    cluster: SlurmCluster
    folder: Path
    """Working directory, all its own."""
    store: Store
    num_cells: int = 4
    real: bool = False
    """The real stack; otherwise a trainer without torch."""
    step_s: float = 0.2
    """Of that trainer."""
    devices: int = 1
    """Ranks of a stage."""

    @property
    def line(self) -> list[str]:
        words = [
            *("-m", "model=mini_xs", *CELLS[self.num_cells], f"study={NAME}"),
            *("cluster=slurm_local", "tracking=none", f"store={self.store.root}"),
            f"cluster.stage_devices={self.devices}",
        ]
        if self.real:
            return [*words, *SMALL]
        preamble = self.folder / "preamble.sh"
        # Jobs see the copied package and nothing else of the checkout.
        preamble.write_text(
            f'exec() {{ builtin exec env "PYTHONPATH=$PYTHONPATH:{ROOT}" "$@"; }}\n'
        )
        step_s = f"+cluster.env.{slow_trainer.STEP_SECONDS}='{self.step_s}'"
        return [*words, f"cluster.preamble={preamble}", step_s]

    @property
    def environment(self) -> dict[str, str]:
        runner = {} if self.real else {"SCALESWEEP_RUNNER": slow_trainer.__name__}
        return self.cluster.env(**runner)

    def begun(self, *words: str) -> subprocess.Popen[str]:
        """A line under way, in a process group of its own."""
        return subprocess.Popen(
            [*COMMAND, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def typed(self, *words: str, timeout_s: float = 300) -> tuple[int, str]:
        """Exit status and output of a line, to its end."""
        process = self.begun(*words)
        try:
            said, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            said += f"\n(killed after {timeout_s:.0f} s)"
        return process.returncode, said

    # --- how it stands

    @property
    def plan(self) -> Plan:
        return Plan.from_json(read_json(self.store.study(NAME) / "plan.json"))

    def stages(self) -> list[StageDir]:
        return [self.store.stage(stage.spec.ref) for stage in self.plan.stages]

    def num_done(self) -> int:
        """Published stages; 0 while the store cannot be seen."""
        with contextlib.suppress(OSError):
            return sum(stage.done_file.exists() for stage in self.stages())
        return 0

    def is_done(self) -> bool:
        with contextlib.suppress(OSError):
            return self.num_done() == len(self.plan.stages)
        return False

    def attempts(self) -> list[AttemptDir]:
        return [attempt for stage in self.stages() for attempt in stage.attempts()]

    def digests(self) -> dict[str, str]:
        """Stage -> hash over all bytes that it published and that lie there now."""
        found = {}
        for stage in self.plan.stages:
            folder = self.store.stage(stage.spec.ref)
            done = folder.done()
            if done is not None:
                there = output_files(folder.attempt(done.attempt).output)
                found[str(stage.spec.ref)] = Done(attempt=done.attempt, files=there).digest
        return found

    # --- what it should be

    def reference(self, folder: Path) -> dict[str, str]:
        """Digests of the same stages, undisturbed: computed once, and kept in a folder."""
        kept = folder / f"reference-{self.num_cells}-{'real' if self.real else 'light'}.json"
        if not kept.exists():
            store = Store(folder / "reference" / "store")
            write_json(kept, self._run_here(store) if self.real else self._stepped_here(store))
        return dict(read_json(kept))

    def _run_here(self, store: Store) -> dict[str, str]:
        """The real stack on this machine, without Slurm."""
        words = [word for word in self.line if not word.startswith(("store=", "cluster="))]
        status, said = self.typed(*words, "cluster=local", f"store={store.root}", timeout_s=1800)
        assert status == 0, said
        return ChaosStudy(
            cluster=self.cluster, folder=self.folder, store=store, real=True
        ).digests()

    def _stepped_here(self, store: Store) -> dict[str, str]:
        """The light trainer, stage by stage in this process."""
        outputs: dict[str, Path] = {}
        digests = {}
        before = os.environ.get(slow_trainer.STEP_SECONDS)
        os.environ[slow_trainer.STEP_SECONDS] = "0"
        try:
            for stage in self.plan.stages:
                attempt = store.stage(stage.spec.ref).attempt(1)
                attempt.output.mkdir(parents=True)
                slow_trainer.run(
                    StageContext(
                        store=store,
                        stage=store.stage(stage.spec.ref),
                        attempt=attempt,
                        spec=stage.spec,
                        execution=stage.execution,
                        inputs={r: outputs[str(ref)] for r, ref in stage.spec.inputs.items()},
                    )
                )
                name = str(stage.spec.ref)
                outputs[name] = attempt.output
                digests[name] = Done(attempt=1, files=output_files(attempt.output)).digest
        finally:
            os.environ.pop(slow_trainer.STEP_SECONDS)
            if before is not None:
                os.environ[slow_trainer.STEP_SECONDS] = before
        return digests


@dataclass(kw_only=True)
class Verdict:
    """What was found when all faults were over."""

    faults: list[str] = field(default_factory=list)
    """Each in one line; none: the study survived."""
    num_attempts: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    accounted_s: float = 0.0
    """GPU seconds by sacct."""
    reported_s: float = 0.0
    """GPU seconds that the report says are sacct's."""
    by_journal: int = 0
    """Attempts of which sacct knows nothing."""
    endless: int = 0
    """Rows of sacct that run on though nothing does: a killed controller never told their end."""
    worst_journal_s: float = 0.0
    """Largest difference of one attempt's own account from what it is charged."""


def judged(study: ChaosStudy, reference: Mapping[str, str]) -> Verdict:
    """Compares a study that ran to its end with the undisturbed one, and its costs with sacct."""
    verdict = Verdict()
    status, said = study.typed("status", NAME, "--store", str(study.store.root), "--json")
    cells = json.loads(said)["cells"] if status == 0 else []
    if len(cells) != study.num_cells or {cell["state"] for cell in cells} != {"done"}:
        verdict.faults.append(f"cells are not all done: {cells or said}")
    digests = study.digests()
    for ref in sorted(reference.keys() | digests.keys()):
        if digests.get(ref) != reference.get(ref):
            verdict.faults.append(f"{ref}: other bytes than the undisturbed study's")
    for stage in study.stages():
        published = sorted(path.name for path in stage.path.glob("done*"))
        if published != ["done.json"]:
            verdict.faults.append(f"{stage.path}: published {published}")
    attempts = study.attempts()
    verdict.num_attempts = len(attempts)
    verdict.outcomes = Counter(
        "unwritten" if (usage := attempt.usage()) is None else str(usage.outcome)
        for attempt in attempts
    )
    if study.cluster.accounting:
        _compare_costs(study, verdict)
    return verdict


def _compare_costs(study: ChaosStudy, verdict: Verdict) -> None:
    status, said = study.typed("report", NAME, "--store", str(study.store.root), "--format", "json")
    if status:
        verdict.faults.append(f"no report: {said}")
        return
    stages = json.loads(said)["stages"]
    attempts = [attempt for stage in stages for attempt in stage["attempts"]]
    journaled = [a for a in attempts if a["charged_by"] == "journal"]
    verdict.by_journal = len(journaled)
    whole_s = sum(stage["costs"]["total"]["device_seconds"] for stage in stages)
    verdict.reported_s = whole_s - sum(_gpu_seconds(a) for a in journaled)
    rows = accounted_runs(study)
    verdict.endless = sum(row.end is None for row in rows)
    verdict.accounted_s = sum(_held_s(row, rows, attempts) for row in rows)
    allowed = max(SECONDS_A_RUN * len(rows), SHARE * verdict.accounted_s)
    if abs(verdict.reported_s - verdict.accounted_s) > allowed:
        verdict.faults.append(
            f"reported {verdict.reported_s:.0f} GPU s by sacct, which says "
            f"{verdict.accounted_s:.0f} in {len(rows)} runs"
        )
    verdict.worst_journal_s = max(
        (
            abs(a["charged_s"] - (a["wall_s"] or 0.0))
            for a in attempts
            if a["charged_by"] == "sacct" and a["charged_s"] is not None
        ),
        default=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class AccountedRun:
    """A row of sacct."""

    job: str
    start: float
    end: float | None
    elapsed_s: float
    gpus: int


def accounted_runs(study: ChaosStudy) -> list[AccountedRun]:
    """Every run that sacct knows of the study's jobs."""
    jobs = {path.name for path in (study.store.root / "jobs").iterdir()}
    rows = study.cluster.sacct(
        "--starttime=now-1days",
        fields="JobName%80,JobID,ElapsedRaw,AllocTRES,Start,End",
        SLURM_TIME_FORMAT="%s",
    )
    return [
        AccountedRun(
            job=job,
            start=float(start),
            end=float(end) if end.isdigit() else None,
            elapsed_s=float(elapsed),
            gpus=_gpus(tres),
        )
        for name, job, elapsed, tres, start, end in rows
        if name in jobs and start.isdigit()
    ]


def _held_s(
    row: AccountedRun, rows: Sequence[AccountedRun], attempts: Sequence[Mapping[str, Any]]
) -> float:
    """GPU seconds of a run; where its end is not known, those that its attempts wrote down."""
    if row.end is not None:
        return row.elapsed_s * row.gpus
    until = min((r.start for r in rows if r.job == row.job and r.start > row.start), default=None)
    return row.gpus * sum(
        a["wall_s"] or 0.0
        for a in attempts
        if a["job"] == row.job
        and (a["started_at"] or 0.0) >= row.start - 1
        and (until is None or a["started_at"] < until - 1)
    )


def _gpus(tres: str) -> int:
    fields = dict(part.split("=", 1) for part in tres.split(",") if "=" in part)
    return int(fields.get("gres/gpu", 0))


def _gpu_seconds(attempt: Mapping[str, Any]) -> float:
    return float((attempt["charged_s"] or 0.0) * (attempt["charged_devices"] or 0))
