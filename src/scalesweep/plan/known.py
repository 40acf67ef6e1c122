"""A plan with predictions, from what its store knows: counted tokens, and how fast stages ran."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from scalesweep.cost_model.stage_work import stage_work
from scalesweep.cost_model.token_cache import stage_tokens
from scalesweep.cost_model.token_statistics import TokenStatistics
from scalesweep.plan.calibration import UNREADABLE, read_speeds
from scalesweep.plan.graph import Plan
from scalesweep.plan.predict import with_predictions
from scalesweep.records import Execution, StageKind, StageRef, StageSpec
from scalesweep.rundir import Store
from scalesweep.specs import DataSpec


def predicted(plan: Plan, store: Store) -> Plan:
    """The same plan with a prediction for every stage of which something can be said.

    Raises:
        PlanError: a cluster's device is none that is known.
    """
    if not any(stage.execution.device for stage in plan.stages):
        return plan
    known = Known(store, plan)
    speeds = read_speeds(store, known.amounts)
    return with_predictions(plan, speeds, known.tokens)


class Known:
    """Data sets of a plan's stages and of those in the store, and their tokens."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store = store
        self._datasets: dict[StageRef, DataSpec | None] = {}
        self._roots: dict[str, Path] = {}
        for stage in plan.stages:
            if stage.spec.kind is StageKind.data:
                found = DataSpec.from_identity(stage.spec.identity)
                self._datasets[stage.ref] = found
                if root := stage.execution.paths.get(f"data:{found.dataset}"):
                    self._roots[found.dataset] = Path(root)

    def tokens(self, spec: StageSpec) -> TokenStatistics | None:
        """Of a stage's samples or questions."""
        return stage_tokens(
            spec, dataset=self._dataset, caches=(self._store.cache,), roots=self._roots
        )

    def amounts(self, spec: StageSpec, execution: Execution) -> tuple[float, float]:
        """FLOPs and units of a stage that ran; 0 where they cannot be counted."""
        work = stage_work(spec, execution, self.tokens(spec))
        return (0.0, 0.0) if work is None else (work.flops, work.units)

    def _dataset(self, ref: StageRef) -> DataSpec | None:
        if ref not in self._datasets:
            self._datasets[ref] = None
            with contextlib.suppress(*UNREADABLE):
                identity: Mapping[str, object] = self._store.stage(ref).spec().identity
                self._datasets[ref] = DataSpec.from_identity(identity)
        return self._datasets[ref]
