"""What was predicted of each stage beside what it took. Pure, from the records of attempts.

Judged are stages that ran once, from their beginning to their end: of others part of the time went
into work done twice or a wait for a node that died, which no prediction is about. They are listed,
and marked with why they are not judged.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scalesweep.errors import StoreError
from scalesweep.records import Execution, Outcome, StageKind, StageRef, Usage
from scalesweep.report.stage_results import Attempt, StageResult


@dataclass(frozen=True, kw_only=True)
class Amount:
    """One number, predicted and measured; both above 0."""

    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """predicted / measured - 1: negative where too little was expected."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True, kw_only=True)
class Graded:
    """One stage that has run, and of which something was predicted."""

    ref: StageRef
    label: str
    kind: StageKind
    basis: str
    """What its speed was taken from, as the planner said."""
    wall_s: Amount
    node_hours: Amount | None
    """None where nothing is held that has a node-hour."""
    device_bytes: Amount | None
    """Peak on the fullest device; None where none was measured or predicted."""
    host_bytes: Amount | None
    """Resident memory: shared pages count once for each rank, so it is no more than shown."""
    not_judged: str
    """Why it does not count; empty where it does."""

    @property
    def is_measured(self) -> bool:
        """Whether the speed was that of runs of the store."""
        return self.basis.startswith("measured")


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Of a group of judged stages: fractions of what was measured, of their time held."""

    name: str
    """A kind, or "all"."""
    basis: str
    """declared | measured | either"""
    num_stages: int
    median: float
    """Of the absolute errors."""
    quartiles: tuple[float, float]
    """Of the absolute errors; the smallest and the largest of fewer than four."""
    worst: float
    bias: float
    """Median of the signed errors."""


@dataclass(frozen=True, kw_only=True)
class PredictionReport:
    study: str
    stages: tuple[Graded, ...]
    """In the plan's order."""
    groups: tuple[Errors, ...]
    """By kind and basis, then over all."""
    without: tuple[str, ...]
    """Labels of stages that ran without a prediction."""

    @property
    def judged(self) -> tuple[Graded, ...]:
        return tuple(stage for stage in self.stages if not stage.not_judged)


def prediction_report(study: str, stages: Iterable[StageResult]) -> PredictionReport:
    """Grades of every stage that has an attempt which used something."""
    graded: list[Graded] = []
    without: list[str] = []
    for stage in stages:
        attempt = _attempt(stage)
        if attempt is None:
            continue
        found = graded_stage(stage, attempt)
        if found is None:
            without.append(stage.label)
        else:
            graded.append(found)
    return PredictionReport(
        study=study,
        stages=tuple(graded),
        groups=tuple(grouped(graded)),
        without=tuple(without),
    )


def _attempt(stage: StageResult) -> Attempt | None:
    """The one that was published, or else the last that is over."""
    over = [
        attempt
        for attempt in stage.attempts
        if attempt.charged is not None and attempt.charged.outcome is not Outcome.running
    ]
    published = [attempt for attempt in over if attempt.published]
    return next(iter([*published, *reversed(over)]), None)


def graded_stage(stage: StageResult, attempt: Attempt) -> Graded | None:
    """An attempt's prediction beside what it took; None where it has none."""
    used = attempt.charged
    assert used is not None
    execution = _execution(attempt)
    predicted = execution.predicted if execution is not None else None
    wall_s = _amount(predicted.wall_s, used.wall_s) if predicted is not None else None
    if execution is None or predicted is None or wall_s is None:
        return None
    return Graded(
        ref=stage.ref,
        label=stage.label,
        kind=stage.kind,
        basis=predicted.basis,
        wall_s=wall_s,
        node_hours=_amount(predicted.node_hours, used.node_hours),
        device_bytes=_amount(predicted.device_bytes, used.peak_device_bytes),
        host_bytes=_amount(
            predicted.host_bytes, used.peak_memory_bytes * execution.devices_per_node
        ),
        not_judged=_not_judged(stage, used),
    )


def _execution(attempt: Attempt) -> Execution | None:
    try:
        return Execution.from_json(attempt.execution)
    except (StoreError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _amount(predicted: float, measured: float) -> Amount | None:
    if not predicted > 0 or not measured > 0:
        return None
    return Amount(predicted=predicted, measured=measured)


def _not_judged(stage: StageResult, used: Usage) -> str:
    if not stage.is_done:
        return str(stage.state)
    if len(stage.attempts) > 1:
        return f"{len(stage.attempts)} attempts"
    if used.first_step:
        return f"resumed after step {used.first_step}"
    return ""


def grouped(stages: Sequence[Graded]) -> list[Errors]:
    """Errors by kind and by what the speed was taken from, then of all."""
    judged = [stage for stage in stages if not stage.not_judged]
    found = []
    for kind in StageKind:
        for basis in ("declared", "measured"):
            group = [
                stage
                for stage in judged
                if stage.kind is kind and stage.is_measured is (basis == "measured")
            ]
            if group:
                found.append(errors(str(kind), basis, [stage.wall_s for stage in group]))
    if judged:
        bases = {stage.is_measured for stage in judged}
        basis = "either" if len(bases) > 1 else "measured" if bases.pop() else "declared"
        found.append(errors("all", basis, [stage.wall_s for stage in judged]))
    return found


def errors(name: str, basis: str, amounts: Sequence[Amount]) -> Errors:
    """amounts: at least one."""
    signed = [amount.error for amount in amounts]
    sizes = sorted(map(abs, signed))
    if len(sizes) < 4:
        low, high = sizes[0], sizes[-1]
    else:
        low, _, high = statistics.quantiles(sizes, n=4, method="inclusive")
    return Errors(
        name=name,
        basis=basis,
        num_stages=len(sizes),
        median=statistics.median(sizes),
        quartiles=(low, high),
        worst=max(signed, key=abs),
        bias=statistics.median(signed),
    )
