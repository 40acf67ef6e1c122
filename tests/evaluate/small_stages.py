"""Small generate and judge stages: contexts for run(), and running one in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalesweep.data.miniature import generate
from scalesweep.launch.workers import ENVIRONMENT
from scalesweep.records import Execution, StageKind, StageSpec
from scalesweep.rundir import Store, write_json
from scalesweep.specs import BenchmarkSpec, JudgeSpec, Method
from scalesweep.stages import StageContext
from tests.models.checkpoints import generate_spec
from tests.train.small_stages import PATHS

VQA = BenchmarkSpec(name="mini_vqa", dataset="test", file="vqa.jsonl")
TEXT = BenchmarkSpec(name="mini_text", dataset="test", file="text.jsonl")
QUESTIONS = {"seed": 6, "num_questions": 12, "text_seed": 8, "num_text_questions": 10}


def make_questions(folder: Path) -> Path:
    """12 questions with a picture each, 10 without."""
    folder.mkdir(parents=True)
    generate("questions", QUESTIONS, folder, tick=lambda _: None)
    return folder


@dataclass(kw_only=True)
class SmallStage:
    """One stage in a store of its own."""

    root: Path
    kind: StageKind
    identity: Mapping[str, Any]
    inputs: Mapping[str, Path]
    micro_batch_size: int = 4
    devices_per_replica: int = 1

    @property
    def spec(self) -> StageSpec:
        return StageSpec(
            kind=self.kind, label="small", recipe_version=1, identity=dict(self.identity)
        )

    def context(
        self, *, stop: Callable[[], bool] = lambda: False, world_size: int = 1
    ) -> StageContext:
        """The next attempt, as its rank zero sees it."""
        stage = Store(self.root / "store").stage(self.spec.ref)
        attempt = stage.attempt(len(stage.attempts()) + 1)
        attempt.path.mkdir(parents=True)
        write_json(stage.stage_file, self.spec.to_json())
        return self.attempted(attempt.number, stop=stop, world_size=world_size)

    def attempted(
        self, number: int, *, stop: Callable[[], bool] = lambda: False, world_size: int = 1
    ) -> StageContext:
        """An attempt that there is."""
        store = Store(self.root / "store")
        stage = store.stage(self.spec.ref)
        return StageContext(
            store=store,
            stage=stage,
            attempt=stage.attempt(number),
            spec=self.spec,
            execution=Execution(
                cluster="local",
                paths=PATHS,
                micro_batch_size=self.micro_batch_size,
                devices_per_replica=self.devices_per_replica,
            ),
            inputs=self.inputs,
            world_size=world_size,
            stop_requested=stop,
        )


def generate_stage(
    root: Path, method: Method | None, inputs: Mapping[str, Path], **changes: Any
) -> SmallStage:
    """inputs: the checkpoint, unless the base is asked, and the questions."""
    benchmarks = [TEXT] if method is None else [VQA, TEXT]
    spec = generate_spec(method, **{"benchmarks": benchmarks, **changes})
    return SmallStage(
        root=root, kind=StageKind.generate, identity=spec.to_identity(), inputs=inputs
    )


def judge_stage(root: Path, inputs: Mapping[str, Path], **changes: Any) -> SmallStage:
    spec = JudgeSpec(**{"benchmarks": [VQA, TEXT], "scorer": "exact_match", **changes})
    return SmallStage(root=root, kind=StageKind.judge, identity=spec.to_identity(), inputs=inputs)


def asked_in(context: StageContext) -> int:
    """Answers that were given in this attempt."""
    logs = context.attempt.path.glob("answered-*.jsonl")
    return sum("question_id" in row for log in logs for row in rows(log))


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def answers(context: StageContext) -> dict[str, list[str]]:
    """What was published, by benchmark."""
    folder = context.attempt.output / "answers"
    return {file.stem: [row["text"] for row in rows(file)] for file in sorted(folder.iterdir())}


def run_alone(context: StageContext, *, killed_after: int | None = None) -> tuple[int, list[str]]:
    """(exit code, modules it imported) of the stage in a fresh process.

    killed_after: SIGKILL in the middle of a batch, once so many answers are written down.
    """
    task = {
        "store": str(context.store.root),
        "ref": str(context.spec.ref),
        "attempt": context.attempt.number,
        "micro_batch_size": context.execution.micro_batch_size,
        "inputs": {role: str(path) for role, path in context.inputs.items()},
        "paths": PATHS,
        "killed_after": killed_after,
    }
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.evaluate.alone", json.dumps(task)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout.split()
