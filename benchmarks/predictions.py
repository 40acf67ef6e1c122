"""How well a store that has run the demo predicts the demo in an empty store.

The demo study runs in store A; its stages are predicted from A's records, as for a store in which
nothing is done; then it runs in store B. Judged is the time that each stage held its devices, by
the rules of report --predictions. Beside the prediction stand what it is to be compared with:

    declared      the planner without a measured run
    mean of kind  every stage takes what those of its kind took in A on average
    unseen        the planner, had this very stage not run in A: how it predicts new cells
    twin          each stage takes what the very same stage took in A: two runs differ by that, so
                  no prediction from one run can do much better

Once more all of it in core seconds: predicted from those that A's stages used, measured by those
that B's used. Others on the machine change them little, so they tell a wrong prediction from a busy
machine.

    python -m benchmarks.predictions A B     of two stores in which the demo has run already
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.demo import run_demo
from scalesweep.cost_model.speeds import MeasuredRun, Speeds
from scalesweep.plan.calibration import read_speeds
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.plan.known import Known
from scalesweep.plan.predict import Predictor, with_predictions
from scalesweep.records import Outcome, StageKind, StageRef, Usage
from scalesweep.report.predictions import Amount, errors
from scalesweep.rundir import Store, read_json

STUDY = "quickstart"
GOAL = 0.2
"""Median of the absolute errors."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One stage: seconds that it was predicted to hold its devices, and what it held them."""

    ref: StageRef
    label: str
    kind: StageKind
    basis: str
    startup_s: Amount
    wall_s: Amount
    others: Mapping[str, float]
    """Seconds by the other ways of predicting."""

    def error_of(self, way: str) -> float:
        return Amount(predicted=self.others[way], measured=self.wall_s.measured).error


def main() -> None:
    """Run the demo twice and print what was predicted of the second time."""
    with tempfile.TemporaryDirectory() as folder:
        stores = [Store(Path(folder) / name) for name in ("a", "b")]
        for store in stores:
            begin = time.perf_counter()
            run_demo(store.root)
            print(f"demo in store {store.root.name}: {time.perf_counter() - begin:.0f} s, "
                  f"load {os.getloadavg()[1]:.1f}", flush=True)  # fmt: skip
        print_stores(*stores)


def print_stores(a: Store, b: Store) -> None:
    held = compare(a, b)
    print_stages(held)
    print("\nIn seconds held:")
    print_errors(held)
    print("\nIn core seconds:")
    print_errors(compare(a, b, clock=core_seconds))
    median = errors("all", "either", [stage.wall_s for stage in held]).median
    print(
        f"\nmedian error of a stage's time held: {median:.1%}, "
        f"{'within' if median <= GOAL else 'NOT within'} {GOAL:.0%}"
    )
    print(
        f"seconds held for each core second of a tune stage: {held_per_core_second(a):.2f} in the "
        f"first store, {held_per_core_second(b):.2f} in the second (about 1 on a quiet machine)"
    )


def held_per_core_second(store: Store) -> float:
    """Of tune stages, which have one thread: how much of their time the machine gave to others."""
    plan = Plan.from_json(read_json(store.study(STUDY) / "plan.json"))
    tuned = [
        usage
        for stage in plan.stages
        if stage.spec.kind is StageKind.tune and (usage := _clean_usage(store, stage))
    ]
    return sum(usage.wall_s for usage in tuned) / max(sum(usage.cpu_s for usage in tuned), 1e-9)


Clock = Callable[[Usage], Usage]
"""A stage's usage as one way of taking its time has it."""


def held_seconds(usage: Usage) -> Usage:
    return usage


def core_seconds(usage: Usage) -> Usage:
    share = usage.cpu_s / usage.wall_s
    return replace(usage, wall_s=usage.cpu_s, startup_s=share * usage.startup_s)


def compare(a: Store, b: Store, *, clock: Clock = held_seconds) -> list[Compared]:
    """Stages that ran once and whole in both, in the plan's order."""
    plan = Plan.from_json(read_json(a.study(STUDY) / "plan.json"))
    known = Known(a, plan)
    before = _usages(a, plan, clock)
    after = _usages(b, plan, clock)
    speeds = Speeds(runs=tuple(_timed(read_speeds(a, known.amounts), before)))
    from_a = with_predictions(plan, speeds, known.tokens)
    declared = with_predictions(plan, Speeds.declared(), known.tokens)
    of_kind = {
        kind: statistics.fmean(usage.wall_s for ref, usage in before.items() if ref.kind is kind)
        for kind in {ref.kind for ref in before}
    }
    found = []
    for stage, bare in zip(from_a.stages, declared.stages, strict=True):
        expected, without = stage.execution.predicted, bare.execution.predicted
        usage = after.get(stage.ref)
        unseen = Predictor(speeds=speeds.without(stage.ref), tokens=known.tokens).predicted(stage)
        if usage is None or stage.ref not in before:
            continue
        assert expected is not None
        assert without is not None
        assert unseen is not None
        found.append(
            Compared(
                ref=stage.ref,
                label=stage.spec.label,
                kind=stage.spec.kind,
                basis=expected.basis,
                startup_s=Amount(predicted=expected.startup_s, measured=usage.startup_s),
                wall_s=Amount(predicted=expected.wall_s, measured=usage.wall_s),
                others={
                    "declared": without.wall_s,
                    "mean of kind": of_kind[stage.spec.kind],
                    "unseen": unseen.wall_s,
                    "twin": before[stage.ref].wall_s,
                },
            )
        )
    return found


def _timed(speeds: Speeds, before: Mapping[StageRef, Usage]) -> Iterator[MeasuredRun]:
    """Runs by the clock of the usages."""
    for run in speeds.runs:
        if usage := before.get(run.ref):
            work_s = usage.wall_s - usage.startup_s
            yield replace(run, startup_s=usage.startup_s, work_s=work_s)


def _usages(store: Store, plan: Plan, clock: Clock) -> dict[StageRef, Usage]:
    """Of stages that used something, by a clock."""
    found = {stage.ref: _clean_usage(store, stage) for stage in plan.stages}
    return {ref: clock(usage) for ref, usage in found.items() if usage and usage.cpu_s > 0}


def _clean_usage(store: Store, stage: PlannedStage) -> Usage | None:
    """Of a stage's only attempt; None where it had several, or is not done."""
    attempts = store.stage(stage.ref).attempts()
    usage = attempts[0].usage() if len(attempts) == 1 else None
    return usage if usage is not None and usage.outcome is Outcome.done else None


def print_stages(stages: Sequence[Compared]) -> None:
    width = max(len(stage.label) for stage in stages)
    print(f"\n{'seconds':<{width}}  predicted  measured  start-up pred./meas.   error  basis")
    for stage in stages:
        wall, startup = stage.wall_s, stage.startup_s
        print(
            f"{stage.label:<{width}}  {wall.predicted:>9.2f} {wall.measured:>9.2f}"
            f"{startup.predicted:>12.2f} /{startup.measured:>6.2f} {wall.error:>+9.0%}  "
            f"{stage.basis}"
        )


def print_errors(stages: Sequence[Compared]) -> None:
    """By kind: of the planner, and of the other ways."""
    print(
        f"{'absolute error':<14} {'stages':>7}  median of the predicted, worst; and the median of"
    )
    ways = list(stages[0].others)
    print(f"{'':<14} {'':>7} {'median':>8} {'worst':>8}", *(f"{way:>13}" for way in ways))
    kinds = [kind for kind in StageKind if any(stage.kind is kind for stage in stages)]
    for name, group in [
        *((str(kind), [s for s in stages if s.kind is kind]) for kind in kinds),
        ("all", list(stages)),
        ("all over 1 s", [s for s in stages if s.wall_s.measured > 1]),
    ]:
        if not group:
            continue
        found = errors(name, "either", [stage.wall_s for stage in group])
        others = [statistics.median(abs(stage.error_of(way)) for stage in group) for way in ways]
        print(
            f"{name:<14} {found.num_stages:>7} {found.median:>8.1%} {found.worst:>+8.0%}",
            *(f"{other:>13.1%}" for other in others),
        )
    total = Amount(
        predicted=sum(stage.wall_s.predicted for stage in stages),
        measured=sum(stage.wall_s.measured for stage in stages),
    )
    print(
        f"device time of all: predicted {total.predicted:.0f} s, "
        f"measured {total.measured:.0f} s, {total.error:+.1%}"
    )


if __name__ == "__main__":
    print_stores(*(Store(Path(place)) for place in sys.argv[1:3]))
