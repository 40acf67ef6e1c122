"""Who paid for what: a study's costs attempt by attempt. Pure.

A later study of the same store reads what an earlier one made. Costs of cells are of the stages,
whoever paid for them; here they are told apart by the study whose command began each attempt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scalesweep.records import StageRef
from scalesweep.report.costs import StageCost, attempt_costs, idle_cost
from scalesweep.report.stage_results import StageResult


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One attempt of a stage, or one run of a Slurm job in which no attempt was made."""

    stage: StageRef
    label: str
    number: int | None
    """Of the attempt; None for a run without one."""
    outcome: str
    """"unknown" where the attempt left no record."""
    payer: str
    """Study whose command began it; empty where that was not written down."""
    cost: StageCost


def ledger_rows(stages: Iterable[StageResult]) -> tuple[LedgerRow, ...]:
    """Every attempt in the order of the plan; the costs of a stage's rows add up to the stage's."""
    rows = []
    for stage in stages:
        known = [(a, a.charged) for a in stage.attempts if a.charged is not None]
        costs = attempt_costs(
            [charged for _, charged in known],
            published=next((i for i, (a, _) in enumerate(known) if a.published), None),
        )
        by_number = {a.number: cost for (a, _), cost in zip(known, costs, strict=True)}
        for attempt in stage.attempts:
            said = attempt.usage or attempt.charged
            rows.append(
                LedgerRow(
                    stage=stage.ref,
                    label=stage.label,
                    number=attempt.number,
                    outcome=str(said.outcome) if said is not None else "unknown",
                    payer=str(attempt.execution.get("study") or ""),
                    cost=by_number.get(attempt.number, StageCost()),
                )
            )
        for run in stage.account.idle if stage.account is not None else ():
            rows.append(
                LedgerRow(
                    stage=stage.ref,
                    label=stage.label,
                    number=None,
                    outcome="no attempt",
                    payer="",
                    cost=idle_cost(run.usage),
                )
            )
    return tuple(rows)


def by_payer(rows: Iterable[LedgerRow]) -> dict[str, StageCost]:
    """What each study paid; under "" what is not told apart."""
    paid: dict[str, StageCost] = {}
    for row in rows:
        paid[row.payer] = paid.get(row.payer, StageCost()) + row.cost
    return paid
