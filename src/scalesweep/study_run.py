"""Running a plan on this machine, and what follows: W&B runs, the report, the summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scalesweep.config.run import RunConfig
from scalesweep.errors import PlanError
from scalesweep.plan.feasible import machine, refuse_impossible
from scalesweep.plan.graph import Plan
from scalesweep.plan.show import is_done
from scalesweep.rundir import Store


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command ended."""

    exit_status: int
    scores: Mapping[str, float]
    """Cell name -> primary score, for cells that are done."""


def check_can_run(plan: Plan, store: Store, config: RunConfig) -> None:
    """Refuse what cannot run here, before anything is started.

    Raises:
        PlanError: no such cluster here, not enough memory, or weights or data are missing.
    """
    if config.cluster.kind == "slurm":
        raise PlanError(
            f"cluster={config.cluster.name}: this version runs studies on one machine and does "
            "not submit to Slurm yet; take cluster=local, or `plan`"
        )
    todo = [stage for stage in plan.stages if not is_done(store, stage.spec.ref)]
    refuse_impossible(plan, machine(), todo)
