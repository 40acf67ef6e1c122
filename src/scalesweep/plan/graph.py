"""A plan: the cells of a study and the graph of stages they need. Pure data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from scalesweep.errors import PlanError
from scalesweep.records import (
    SCHEMA,
    Execution,
    StageRef,
    StageSpec,
    check_schema,
    known_fields,
)


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """One node of the graph: what to run, and how."""

    spec: StageSpec
    execution: Execution

    @cached_property
    def ref(self) -> StageRef:
        """Its name in the store; a hash of the whole spec, so taken once."""
        return self.spec.ref

    def to_json(self) -> dict[str, Any]:
        return {**self.spec.to_json(), "execution": self.execution.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlannedStage:
        return cls(spec=StageSpec.from_json(data), execution=Execution.from_json(data["execution"]))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of points."""

    name: str
    """Unique in its study, fit for a file name: "mini_s-32px-lora"."""
    point: Mapping[str, Any]
    """What varies in this study only: override key -> value ("model": "mini_s")."""
    config: Mapping[str, Any]
    """The whole config of the cell, plain values."""
    stages: Mapping[str, StageRef]
    """Role -> stage. Roles: data:<dataset>, base (language model), tower, align, tune, generate,
    judge, generate_base, judge_base. The last two score the language model before tuning."""
    num_trainable_params: int
    """In the tune stage: adapters, projector, and the language model when it is tuned in full."""
    num_params: int
    """Language model, tower and projector."""
    num_nodes: int
    """Of the tune stage."""

    def to_json(self) -> dict[str, Any]:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**fields, "stages": {role: str(ref) for role, ref in self.stages.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        fields = known_fields(cls, data)
        stages = {role: StageRef.parse(text) for role, text in data["stages"].items()}
        return cls(**{**fields, "stages": stages})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Cells, and every stage that any of them needs, once, parents before children."""

    study: str
    cells: tuple[Cell, ...]
    stages: tuple[PlannedStage, ...]
    question: str = ""
    """What the study asks; first lines of its sweep file."""
    command: str = ""
    """The command line that asked for it."""
    notes: tuple[str, ...] = ()
    """What a reader must know ("the price is an example")."""

    def __post_init__(self) -> None:
        seen: set[StageRef] = set()
        for stage in self.stages:
            missing = set(stage.spec.inputs.values()) - seen
            if missing:
                raise PlanError(f"{stage.ref} comes before its input {min(missing)}")
            if stage.ref in seen:
                raise PlanError(f"{stage.ref} stands twice in the plan")
            seen.add(stage.ref)

    def stage(self, ref: StageRef) -> PlannedStage:
        return self.by_ref[ref]

    @cached_property
    def by_ref(self) -> dict[StageRef, PlannedStage]:
        return {stage.ref: stage for stage in self.stages}

    def ancestors(self, ref: StageRef) -> set[StageRef]:
        """All stages that a stage needs, itself left out."""
        by_ref = self.by_ref
        found: set[StageRef] = set()
        todo = list(by_ref[ref].spec.inputs.values())
        while todo:
            parent = todo.pop()
            if parent not in found:
                found.add(parent)
                todo += by_ref[parent].spec.inputs.values()
        return found

    def needed_by(self, cell: Cell) -> set[StageRef]:
        """All stages that a cell needs, those included that its stages read."""
        by_ref = self.by_ref
        found: set[StageRef] = set()
        todo = list(cell.stages.values())
        while todo:
            ref = todo.pop()
            if ref not in found:
                found.add(ref)
                todo += by_ref[ref].spec.inputs.values()
        return found

    def cells_of(self, ref: StageRef) -> Sequence[Cell]:
        """Cells that need a stage."""
        return self._cells_by_ref.get(ref, ())

    @cached_property
    def _cells_by_ref(self) -> dict[StageRef, list[Cell]]:
        cells: dict[StageRef, list[Cell]] = {}
        for cell in self.cells:
            for ref in dict.fromkeys(cell.stages.values()):
                cells.setdefault(ref, []).append(cell)
        return cells

    def header_json(self) -> dict[str, Any]:
        """All but cells and stages; SCHEMA first."""
        return {
            "schema": SCHEMA,
            "study": self.study,
            "question": self.question,
            "command": self.command,
            "notes": list(self.notes),
        }

    def to_json(self) -> dict[str, Any]:
        return {
            **self.header_json(),
            "cells": [cell.to_json() for cell in self.cells],
            "stages": [stage.to_json() for stage in self.stages],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        check_schema(data, "plan.json")
        return cls(
            study=data["study"],
            question=data["question"],
            command=data["command"],
            notes=tuple(data["notes"]),
            cells=tuple(Cell.from_json(cell) for cell in data["cells"]),
            stages=tuple(PlannedStage.from_json(stage) for stage in data["stages"]),
        )
