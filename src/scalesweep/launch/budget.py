"""What a study is held to, written down for all that run its stages.

<store>/studies/<name>/budget.json is of the last command that ran the study; written beside,
flushed and renamed. It names the bounds, what does not fit, and where to look for what was spent
(budget_guard.py).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.plan.admission import NOTHING, Admission, Amount, Budget, study_budget
from scalesweep.plan.graph import Plan
from scalesweep.plan.show_budget import study_admission
from scalesweep.plan.spending import UNREADABLE, held_for, study_spending
from scalesweep.records import SCHEMA, StageRef, check_schema
from scalesweep.rundir import ABSENT, Store, read_json, write_json


@dataclass(frozen=True, kw_only=True)
class StudyBudget:
    """budget.json: what a study is held to."""

    study: str
    budget: Budget
    stages: frozenset[StageRef]
    """All whose attempts count, but those that base is about."""
    base: Amount = NOTHING
    """Spent for stages at which nothing follows, when it was written."""
    left_out: frozenset[StageRef] = frozenset()
    """Stages of cells that do not fit."""
    cells_left_out: tuple[str, ...] = ()
    per_hour: Amount = NOTHING
    """If all its open stages ran at once."""

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "study": self.study,
            "micro_usd": self.budget.micro_usd,
            "node_ms": self.budget.node_ms,
            "order": self.budget.order,
            "base": vars(self.base),
            "per_hour": vars(self.per_hour),
            "cells_left_out": list(self.cells_left_out),
            "left_out": sorted(map(str, self.left_out)),
            "stages": sorted(map(str, self.stages)),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StudyBudget:
        check_schema(data, "budget.json")
        return cls(
            study=data["study"],
            budget=Budget(
                micro_usd=data["micro_usd"], node_ms=data["node_ms"], order=data["order"]
            ),
            base=Amount(**data["base"]),
            per_hour=Amount(**data["per_hour"]),
            cells_left_out=tuple(data["cells_left_out"]),
            left_out=frozenset(map(StageRef.parse, data["left_out"])),
            stages=frozenset(map(StageRef.parse, data["stages"])),
        )


def budget_file(store: Store, study: str) -> Path:
    return store.study(study) / "budget.json"


def read_budget(store: Store, study: str) -> StudyBudget | None:
    """What a study is held to; None where nothing bounds it.

    Raises:
        StoreError: the record is damaged.
    """
    file = budget_file(store, study)
    with contextlib.suppress(*ABSENT):
        try:
            return StudyBudget.from_json(read_json(file))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(
                f"{file} is damaged ({error}); type the study's line with its budget again"
            ) from error
    return None


def admit_study(store: Store, plan: Plan) -> Admission | None:
    """What a plan's budget has room for, written down for all that run stages of its study.

    None where its settings name no budget: from now on nothing bounds it.

    Raises:
        StoreError: the store cannot be written.
    """
    file = budget_file(store, plan.study)
    if study_budget(plan) is None:
        try:
            with contextlib.suppress(*ABSENT):
                file.unlink()
        except OSError as error:
            raise _not_written(store, error) from error
        return None
    spending = study_spending(plan, store, besides=_of_other_commands(store, plan.study))
    admission = study_admission(plan, store, spending)
    assert admission is not None
    record = StudyBudget(
        study=plan.study,
        budget=admission.budget,
        stages=frozenset(spending.open_stages),
        base=spending.base,
        left_out=admission.stages_left_out,
        cells_left_out=tuple(cell.name for cell in admission.left_out),
        per_hour=sum(
            (held_for(plan.stage(ref).execution, 3600) for ref in admission.stages), NOTHING
        ),
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, record.to_json())
    except OSError as error:
        raise _not_written(store, error) from error
    return admission


def _not_written(store: Store, error: OSError) -> StoreError:
    return StoreError(
        f"store={store.root}: cannot be written ({error.strerror or error}); choose another "
        "with store=DIR"
    )


def _of_other_commands(store: Store, study: str) -> set[StageRef]:
    """Stages of the lines typed before, which may still run other cells of the study."""
    found: set[StageRef] = set()
    with contextlib.suppress(*UNREADABLE):
        before = read_budget(store, study)
        found.update(before.stages if before is not None else ())
    with contextlib.suppress(*UNREADABLE):
        written = read_json(store.study(study) / "plan.json")
        found.update(stage.ref for stage in Plan.from_json(written).stages)
    return found


def admitted_part(plan: Plan, admission: Admission | None) -> Plan:
    """The cells that a budget has room for, with their stages; all where there is no budget."""
    if admission is None:
        return plan
    names = {cell.name for cell in admission.admitted}
    cells = tuple(cell for cell in plan.cells if cell.name in names)
    needed = {ref for cell in cells for ref in plan.needed_by(cell)}
    return replace(
        plan, cells=cells, stages=tuple(stage for stage in plan.stages if stage.ref in needed)
    )
