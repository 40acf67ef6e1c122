"""How fast the stages of a store ran, read from what their attempts recorded.

What counts is clean work, or the part of it that an attempt did:

- of a stage that is done, the attempt that was published, and those that were asked to stop and
  went on from a checkpoint: each with the steps or questions that it did itself;
- nothing of attempts that were killed or failed: their clock ran until somebody noticed;
- nothing of a stage that is not done, of another machine's processor, or of records that cannot be
  read;
- of a judge only a first attempt, since a later one finds replies of the one before.

What cannot be seen is whether something else had a part of the machine meanwhile. A median over
alike runs bears a few of those, and a prediction is of a machine that is as busy as it was.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from scalesweep.cost_model.speeds import MeasuredRun, Speeds, Traits
from scalesweep.cost_model.stage_work import TRAINING
from scalesweep.errors import StoreError
from scalesweep.models.devices import processor_name
from scalesweep.records import Execution, Outcome, StageKind, StageSpec, Usage
from scalesweep.rundir import AttemptDir, StageDir, Store, read_json
from scalesweep.slurm_records import slurm_run

MOST_OF_A_KIND = 200
"""Stages of each kind that are read, the newest: a plan must not wait for a large store."""
LEAST_SHARE = 0.1
"""Of a stage's work: what did less of it is mostly beginning and end."""
UNREADABLE = (OSError, StoreError, KeyError, TypeError, ValueError, AttributeError)
OLD = (*UNREADABLE, AssertionError)
"""Of what is worked out from a record: an older one may say what no setting can be today."""

Amounts = Callable[[StageSpec, Execution], tuple[float, float]]
"""FLOPs and units (steps, questions, items) of a whole stage; 0 where they cannot be counted."""


def read_speeds(store: Store, amounts: Amounts) -> Speeds:
    """All measured runs of a store; of one that is not there, none."""
    return Speeds(
        runs=tuple(
            run
            for kind in StageKind
            for folder in _newest(store.root / "stages" / kind)
            for run in _runs(StageDir(folder), amounts)
        )
    )


def _newest(folder: Path) -> list[Path]:
    """Stages, the one that was changed last in front."""
    found: list[tuple[int, str]] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found.append((entry.stat().st_mtime_ns, entry.name))
    return [folder / name for _, name in sorted(found, reverse=True)[:MOST_OF_A_KIND]]


def _runs(stage: StageDir, amounts: Amounts) -> Iterator[MeasuredRun]:
    """What the attempts of one stage say; nothing of one that is damaged."""
    try:
        done = read_json(stage.done_file)
        published = stage.attempt(int(done["attempt"]))
        spec = stage.spec()
        last = published.usage()
    except UNREADABLE:
        return
    if last is None:
        return
    tried = [published]
    if last.first_step:  # others did a part of it
        tried += [attempt for attempt in stage.attempts() if attempt.number < published.number]
    for attempt in tried:
        with contextlib.suppress(*OLD):
            run = _run(spec, attempt, amounts, total_steps=last.first_step + last.steps)
            if run is not None:
                yield run


def _run(
    spec: StageSpec, attempt: AttemptDir, amounts: Amounts, *, total_steps: int
) -> MeasuredRun | None:
    usage, execution = attempt.usage(), attempt.execution()
    if usage is None or execution is None or not _is_clean(usage):
        return None
    if not _ran_on_such_a_machine(attempt, execution):
        return None
    share = _share(spec.kind, attempt, usage, total_steps=total_steps)
    if share < LEAST_SHARE:
        return None
    flops, units = amounts(spec, execution)
    return MeasuredRun(
        ref=spec.ref,
        traits=Traits.of(spec, execution),
        flops=flops * share,
        units=units * share,
        startup_s=usage.startup_s,
        work_s=usage.wall_s - usage.startup_s,
        share=share,
    )


def _is_clean(usage: Usage) -> bool:
    return (
        usage.outcome in (Outcome.done, Outcome.interrupted) and 0 <= usage.startup_s < usage.wall_s
    )


def _ran_on_such_a_machine(attempt: AttemptDir, execution: Execution) -> bool:
    """A store may have come from another machine; jobs of Slurm run on its nodes, not on this."""
    if execution.device not in ("", "cpu"):
        return True
    work = attempt.work_done()
    if work is None or not work.device or work.device == processor_name():
        return True
    return slurm_run(attempt) is not None


def _share(kind: StageKind, attempt: AttemptDir, usage: Usage, *, total_steps: int) -> float:
    """Part of the stage's work that an attempt did; 0 where that cannot be said."""
    if kind in TRAINING:
        return usage.steps / total_steps if total_steps else 0.0
    if usage.outcome is not Outcome.done:
        return 0.0
    if attempt.number == 1 or kind is StageKind.data:
        return 1.0
    if kind is not StageKind.generate:
        return 0.0
    work = attempt.work_done()
    answers = read_json(attempt.path / "generation.json")["all"]["answers"]
    return work.units / answers if work is not None and answers else 0.0
