"""A store made by hand for reports: a study's plan, records and scores, without any training."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalesweep.plan.graph import Cell, Plan, PlannedStage
from scalesweep.records import (
    Done,
    Execution,
    Outcome,
    StageKind,
    StageRef,
    StageSpec,
    Usage,
)
from scalesweep.rundir import Store, output_files


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Without waiting for the disk: a test's store need not survive a power cut."""
    path.write_text(json.dumps(value), encoding="utf-8")


SIZES = {"mini_xs": (35_000, 0.4), "mini_s": (177_000, 1.0), "mini_m": (637_000, 2.0)}
"""Model -> parameters, time of a step relative to mini_s."""
CATEGORIES = ("color", "plus", "read", "shape")
START = 1_790_000_000.0
"""When the first attempt began, in seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One cell and what it is to score."""

    score: float
    text: float = 0.99
    before: float = 1.0
    model: str = "mini_s"
    pixels: int = 32
    mix: str = "mini_text"
    method: str = "full"
    rank: int = 8
    alpha: float = 16
    lr: float = 0.003
    blind: bool = False
    seed: int = 1
    step_s: float = 0.25
    """Seconds of an optimizer step at mini_s; the model's size multiplies it."""
    state: str = "done"
    """done | failed | missing: of the tune stage; what follows it is missing then."""

    @property
    def name(self) -> str:
        parts = [self.model, f"{self.pixels}px", self.mix, self.method]
        if self.method != "full":
            parts.append(f"rank{self.rank}-alpha{self.alpha:g}-lr{self.lr:g}")
        if self.blind:
            parts.append("blind")
        return "-".join([*parts, f"seed{self.seed}"])

    @property
    def config(self) -> dict[str, Any]:
        peft = self.method != "full"
        return {
            "seed": self.seed,
            "model": {"name": self.model},
            "resolution": {
                "name": f"{self.pixels}px",
                "pixels": self.pixels,
                "blind": self.blind,
            },
            "data_mix": {"name": self.mix},
            "tuning": {"method": self.method},
            "lora": {"rank": self.rank if peft else None, "alpha": self.alpha if peft else None},
            "optim": {"lr": self.lr},
            "align": {"name": "mini", "seed": self.seed},
            "evaluation": {
                "benchmarks": [{"name": "mini_vqa"}, {"name": "mini_text"}],
                "base_benchmarks": [{"name": "mini_text"}],
                "primary": "mini_vqa",
            },
        }


QUICKSTART = (
    Point(score=0.447, model="mini_xs", lr=0.005),
    Point(score=0.525),
    Point(score=0.610, model="mini_m", lr=0.002),
    Point(score=0.680, pixels=48, step_s=0.3),
    Point(score=0.430, mix="mini", text=0.99),
    Point(score=0.555, method="lora", lr=0.015),
    Point(score=0.540, method="qlora", lr=0.015, step_s=0.29),
    Point(score=0.300, method="lora", lr=0.0015),
    Point(score=0.310, method="lora", lr=0.0015, rank=64, step_s=0.27),
    Point(score=0.440, method="lora", lr=0.015, alpha=1),
    Point(score=0.170, blind=True),
)
"""Eleven cells in which every finding of the paper holds."""


@dataclass
class SyntheticStudy:
    """A study on disk."""

    store: Store
    plan: Plan
    num_questions: int
    clock: float = START
    made: set[StageRef] = field(default_factory=set)


def build_study(
    root: Path,
    points: Sequence[Point] = QUICKSTART,
    *,
    name: str = "quickstart",
    num_questions: int = 600,
    question: str = "What do size, resolution and tuning buy? A miniature of the paper.",
    notes: Sequence[str] = (),
    workers: int = 2,
) -> SyntheticStudy:
    """Writes plan.json and every stage of every cell."""
    stages: dict[StageRef, PlannedStage] = {}
    cells = [_cell(point, stages) for point in points]
    plan = Plan(
        study=name,
        cells=tuple(cells),
        stages=tuple(stages.values()),
        question=question,
        command=f"python -m scalesweep -m +sweep={name} store=/home/somebody/private/store",
        notes=tuple(notes),
    )
    study = SyntheticStudy(store=Store(root), plan=plan, num_questions=num_questions)
    folder = study.store.study(name)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "plan.json", plan.to_json())
    free = [START] * workers
    for point, cell in zip(points, cells, strict=True):
        for role in cell.stages:
            worker = free.index(min(free))
            study.clock = free[worker]
            _make(study, point, cell, role)
            free[worker] = study.clock
    return study


def _planned(
    kind: StageKind, label: str, identity: dict[str, Any], inputs: dict[str, StageRef], **how: Any
) -> PlannedStage:
    spec = StageSpec(kind=kind, label=label, recipe_version=1, identity=identity, inputs=inputs)
    execution = Execution(
        cluster="local",
        node_devices=2,
        usd_per_node_hour=0.1,
        price_is_example=True,
        micro_batch_size=40,
        paths={"language_model": "/home/somebody/private/mini"},
        **how,
    )
    return PlannedStage(spec=spec, execution=execution)


def _cell(point: Point, stages: dict[StageRef, PlannedStage]) -> Cell:
    def add(kind: StageKind, label: str, identity: dict[str, Any], **inputs: StageRef) -> StageRef:
        stage = _planned(kind, label, identity, inputs)
        stages.setdefault(stage.spec.ref, stage)
        return stage.spec.ref

    train = add(StageKind.data, "data mini_train", {"dataset": "mini_train"})
    test = add(StageKind.data, "data mini_test", {"dataset": "mini_test"})
    picture = {"model": point.model, "pixels": point.pixels, "blind": point.blind}
    align = add(
        StageKind.align,
        f"align {point.model} {point.pixels}px",
        {**picture, "seed": point.seed},
        train=train,
    )
    identity = {
        k: v
        for k, v in dataclasses.asdict(point).items()
        if k not in ("score", "text", "before", "step_s", "state")
    }
    tune = add(
        StageKind.tune,
        f"tune {point.name}",
        {**identity, "global_batch_size": 40},
        align=align,
        train=train,
    )
    generate = add(StageKind.generate, f"generate {point.name}", {}, checkpoint=tune, test=test)
    judge = add(StageKind.judge, f"judge {point.name}", {}, answers=generate, test=test)
    generate_base = add(
        StageKind.generate, f"generate base {point.model}", {"model": point.model}, test=test
    )
    judge_base = add(StageKind.judge, f"judge base {point.model}", {}, answers=generate_base)
    size = SIZES[point.model][0]
    return Cell(
        name=point.name,
        point={"model": point.model, "resolution": f"{point.pixels}px", "tuning": point.method},
        config=point.config,
        stages={
            "data:mini_train": train,
            "data:mini_test": test,
            "align": align,
            "tune": tune,
            "generate_base": generate_base,
            "judge_base": judge_base,
            "generate": generate,
            "judge": judge,
        },
        num_trainable_params=size + 4_000 if point.method == "full" else 4_300 * point.rank,
        num_params=size + 182_000,
        num_nodes=1,
    )


_SECONDS = {"data": 12.0, "align": 9.0, "generate": 6.0, "judge": 0.4}


def _make(study: SyntheticStudy, point: Point, cell: Cell, role: str) -> None:
    ref = cell.stages[role]
    if ref in study.made or study.store.stage(ref).done() is not None:
        return
    if point.state != "done" and role in ("generate", "judge"):
        return
    if point.state == "missing" and role == "tune":
        return
    study.made.add(ref)
    size = SIZES[point.model][1]
    steps = 150 if role == "tune" else 0
    seconds = _SECONDS.get(ref.kind, 0.0) * (size if role in ("align", "generate") else 1)
    if role == "tune":
        seconds = 1.5 + steps * point.step_s * size
    failed = role == "tune" and point.state == "failed"
    usage = Usage(
        outcome=Outcome.failed if failed else Outcome.done,
        cause="loss is NaN at step 41, see /home/somebody/private/store/log" if failed else "",
        started_at=study.clock,
        wall_s=seconds,
        startup_s=min(1.5, seconds / 2),
        cpu_s=seconds,
        peak_memory_bytes=900_000_000,
        num_devices=1,
        node_devices=2,
        usd_per_node_hour=0.1,
        steps=steps,
    )
    study.clock += seconds + 0.3
    number = add_attempt(study, ref, usage)
    folder = study.store.stage(ref).attempt(number)
    if role == "tune":
        write_metrics(folder.metrics, point, size=size, steps=steps)
    if role in ("judge", "judge_base"):
        _write_scores(folder.output, point, study.num_questions, of_base=role == "judge_base")
    if not failed:
        publish(study, ref, number)


def add_attempt(study: SyntheticStudy, ref: StageRef, usage: Usage | None) -> int:
    """One more attempt of a stage; its number."""
    stage = study.store.stage(ref)
    planned = study.plan.stage(ref)
    number = len(stage.attempts()) + 1
    attempt = stage.attempt(number)
    attempt.output.mkdir(parents=True)
    write_json(stage.stage_file, planned.spec.to_json())
    execution = planned.execution.to_json()
    write_json(attempt.execution_file, {**execution, "versions": {"torch": "2.13.0"}})
    if usage is not None:
        write_json(attempt.usage_file, usage.to_json())
    return number


def publish(study: SyntheticStudy, ref: StageRef, number: int) -> None:
    """Takes an attempt's output for the stage's."""
    stage = study.store.stage(ref)
    inputs = {}
    for role, parent in study.plan.stage(ref).spec.inputs.items():
        done = study.store.stage(parent).done()
        assert done is not None
        inputs[role] = done.digest
    files = output_files(stage.attempt(number).output)
    write_json(stage.done_file, Done(attempt=number, files=files, inputs=inputs).to_json())


def write_metrics(
    path: Path, point: Point, *, size: float, steps: int, first_step: int = 0
) -> None:
    """Loss curves that end the lower, the higher the score."""
    draw = random.Random(point.name)
    lines = []
    for step in range(first_step + 1, steps + 1):
        end = 1.3 - 1.4 * point.score
        loss = end + (3.6 - end) * math.exp(-step / 22) + draw.gauss(0, 0.03)
        seconds = point.step_s * size * draw.uniform(0.97, 1.03)
        row = {"step": step, "loss": round(loss, 4), "step_s": round(seconds, 5)}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_scores(output: Path, point: Point, num_questions: int, *, of_base: bool) -> None:
    text = point.before if of_base else point.text
    asked = {"mini_text": text} if of_base else {"mini_vqa": point.score, "mini_text": text}
    entries = {}
    (output / "items").mkdir()
    for name, score in asked.items():
        rows = answers(point, name, score, num_questions)
        path = output / "items" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        entries[name] = summary(rows)
    write_json(output / "scores.json", {"benchmarks": entries})


def answers(point: Point, benchmark: str, score: float, num_questions: int) -> list[dict[str, Any]]:
    """Right answers for exactly round(score x questions) of them; what is hard is shared."""
    hard = random.Random(f"{benchmark} difficulty")
    luck = random.Random(f"{benchmark} {point.name}")
    ranks = [(hard.gauss(0, 1) + luck.gauss(0, 0.8), i) for i in range(num_questions)]
    right = {i for _, i in sorted(ranks)[: round(score * num_questions)]}
    return [
        {
            "question_id": f"{benchmark}-{i}",
            "category": CATEGORIES[i % len(CATEGORIES)],
            "correct": int(i in right),
        }
        for i in range(num_questions)
    ]


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """An entry of scores.json."""

    def part(values: Sequence[int]) -> dict[str, Any]:
        mean = sum(values) / len(values)
        return {
            "score": mean,
            "standard_error": math.sqrt(mean * (1 - mean) / len(values)),
            "num_questions": len(values),
        }

    return {
        **part([row["correct"] for row in rows]),
        "num_missing": 0,
        "categories": {
            name: part([row["correct"] for row in rows if row["category"] == name])
            for name in sorted({row["category"] for row in rows})
        },
    }
