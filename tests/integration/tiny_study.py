"""The smallest study of the real stack: two cells of the smallest miniature, a dozen steps each."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from scalesweep.plan.graph import Plan
from scalesweep.records import StageKind
from scalesweep.rundir import Store, read_json
from tests.fakes.processes import started

COMMAND = (sys.executable, "-m", "scalesweep")
STEPS = 20
CHECKPOINT_EVERY = 4
TINY = (
    "model=mini_xs",
    "align.optim.max_steps=6",
    f"cluster.checkpoint_every_steps={CHECKPOINT_EVERY}",
    "datasets.mini_train.parameters.num_pictures=200",
    "datasets.mini_train.parameters.num_text=50",
    "datasets.mini_test.parameters.num_questions=60",
    "datasets.mini_test.parameters.num_text_questions=60",
    "tracking=none",
)
STUDY = ("-m", "tuning=lora,full", f"optim.max_steps={STEPS}", "study=tiny", *TINY)


def environment() -> dict[str, str]:
    """Of a shell in which nothing of scalesweep is set."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("SCALESWEEP", "PYTHON"))}


def typed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A line typed in a folder, to its end."""
    return subprocess.run(
        [*COMMAND, *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def begun(folder: Path, *words: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """A line typed in a folder, under way."""
    return started([*COMMAND, *words], cwd=folder, env=environment())


def store_of(folder: Path) -> Store:
    return Store(folder / "store")


def plan_in(folder: Path, study: str = "tiny") -> Plan:
    return Plan.from_json(read_json(store_of(folder).study(study) / "plan.json"))


def digests(folder: Path) -> dict[str, str]:
    """Stage -> hash over all bytes that it published."""
    found = {}
    for planned in plan_in(folder).stages:
        done = store_of(folder).stage(planned.spec.ref).done()
        assert done is not None, f"{planned.spec.label} is not done"
        found[str(planned.spec.ref)] = done.digest
    return found


def scores(folder: Path) -> dict[str, bytes]:
    """Judge stage -> its scores.json, byte for byte."""
    return {
        planned.spec.key: (
            store_of(folder).stage(planned.spec.ref).output() / "scores.json"
        ).read_bytes()
        for planned in plan_in(folder).stages
        if planned.spec.kind is StageKind.judge
    }


def weights(folder: Path) -> dict[str, str]:
    """Every published safetensors file -> its sha256."""
    found = {}
    for planned in plan_in(folder).stages:
        done = store_of(folder).stage(planned.spec.ref).done()
        assert done is not None
        for name, file in done.files.items():
            if name.endswith(".safetensors"):
                found[f"{planned.spec.ref}/{name}"] = file.sha256
    return found


def count_attempts(folder: Path) -> int:
    return len(list((folder / "store" / "stages").glob("*/*/attempts/[0-9]*")))
