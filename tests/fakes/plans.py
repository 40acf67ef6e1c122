"""Small graphs of fake stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scalesweep.plan.graph import Cell, Plan, PlannedStage
from scalesweep.records import Execution, StageKind, StageRef, StageSpec

RUNNER = "tests.fakes.stage_runner"
GROUPS = ("model", "resolution", "data_mix", "tuning")
"""Parts of a cell's config that its label is made of."""


def stage(
    label: str,
    do: str = "write",
    *,
    kind: StageKind = StageKind.tune,
    after: Sequence[PlannedStage] = (),
    devices: int = 1,
    usd_per_node_hour: float = 0.0,
    **identity: Any,
) -> PlannedStage:
    """A stage that reads the stages `after` it names and does what tests/fakes can do."""
    spec = StageSpec(
        kind=kind,
        label=label,
        recipe_version=1,
        identity={"label": label, "do": do, **identity},
        inputs={f"input{i}": parent.spec.ref for i, parent in enumerate(after)},
    )
    execution = Execution(
        cluster="local",
        devices_per_node=devices,
        node_devices=2,
        usd_per_node_hour=usd_per_node_hour,
    )
    return PlannedStage(spec=spec, execution=execution)


def plan_of(
    *stages: PlannedStage,
    cells: Mapping[str, Sequence[PlannedStage]] | None = None,
    study: str = "fake",
) -> Plan:
    """A plan of stages, parents first; without cells, one cell needs them all."""
    named = cells or {"all": stages}
    return Plan(
        study=study,
        stages=stages,
        cells=tuple(
            Cell(
                name=name,
                point={"cell": name},
                config={group: {"name": "fake", "method": "full"} for group in GROUPS},
                stages=roles(of),
                num_trainable_params=0,
                num_params=0,
                num_nodes=1,
            )
            for name, of in named.items()
        ),
    )


def roles(stages: Sequence[PlannedStage]) -> dict[str, StageRef]:
    return {planned.spec.label: planned.spec.ref for planned in stages}
