"""A study on disk with all that an export must get right."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from scalesweep.plan.graph import Plan
from scalesweep.records import Outcome, StageRef, Usage
from tests.report.synthetic import (
    Point,
    SyntheticStudy,
    add_attempt,
    build_study,
    publish,
    write_json,
    write_metrics,
)

FULL = Point(score=0.5)
LORA = Point(score=0.6, method="lora")
"""Shares its align stage with FULL."""
FAILED = Point(score=0.7, pixels=48, state="failed")
KILLED_AT, RESUMED_FROM, NUM_STEPS = 30, 25, 150


def study_with_everything(root: Path) -> SyntheticStudy:
    """Three cells: one resumed after a kill, one sharing its align stage, one failed."""
    study = build_study(root, [FULL, LORA, FAILED], num_questions=40)
    align = study.plan.cells[0].stages["align"]
    write_metrics(study.store.stage(align).attempt(1).metrics, FULL, size=1, steps=20)
    resume(study, study.plan.cells[0].stages["tune"], FULL)
    return study


def resume(study: SyntheticStudy, ref: StageRef, point: Point) -> None:
    """Lets a finished stage have been killed after step 30 and resumed from step 25."""
    folder = study.store.stage(ref)
    usage = folder.attempt(1).usage()
    assert usage is not None
    cut_short(study, ref, point)
    number = add_attempt(study, ref, dataclasses.replace(usage, first_step=RESUMED_FROM))
    again = dataclasses.replace(point, seed=point.seed + 100)  # other noise on the same curve
    write_metrics(
        folder.attempt(number).metrics, again, size=1, steps=NUM_STEPS, first_step=RESUMED_FROM
    )
    folder.done_file.unlink(missing_ok=True)
    publish(study, ref, number)


def cut_short(study: SyntheticStudy, ref: StageRef, point: Point) -> None:
    """Lets the first attempt of a stage have been killed after step 30."""
    attempt = study.store.stage(ref).attempt(1)
    usage = attempt.usage()
    assert usage is not None
    killed: Usage = dataclasses.replace(usage, outcome=Outcome.killed, steps=KILLED_AT)
    write_json(attempt.usage_file, killed.to_json())
    write_metrics(attempt.metrics, point, size=1, steps=KILLED_AT)


def change_plan(study: SyntheticStudy, plan: Plan) -> None:
    """Puts another plan in the place of a study's."""
    study.plan = plan
    write_json(study.store.study(plan.study) / "plan.json", plan.to_json())
