"""Who paid for what: a study's costs attempt by attempt. Pure.

A later study of the same store reads what an earlier one made. Costs of cells are of the stages,
whoever paid for them; here they are told apart by the study whose command began each attempt.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scalesweep.cost_model.cost import NOTHING, Cost
from scalesweep.records import Outcome, StageKind, StageRef
from scalesweep.report.costs import JudgePay, StageCost, attempt_costs, idle_cost
from scalesweep.report.slurm_accounting import StageAccount
from scalesweep.report.stage_results import Attempt, StageResult

UNPAID = JudgePay()


class Part(enum.StrEnum):
    """What an amount was paid for. Each is of one part, so that parts add up to the whole."""

    work = "work"
    """What stands of data, base, align and tune stages, after their start-up."""
    evaluation = "evaluation"
    """The same of generate and judge stages."""
    startup = "startup"
    """Before the first sample, of all stages; and what was held without an attempt."""
    lost = "lost"
    """Work done again, or that ended in an error."""
    judges = "judges"
    """What judges were paid, as far as it is known; dollars, but no hours."""


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One attempt of a stage, or one run of a Slurm job in which no attempt was made."""

    stage: StageRef
    label: str
    number: int | None
    """Of the attempt; None for a run without one."""
    outcome: str
    """"unknown" where the attempt left no record."""
    failure: str = ""
    """Class of a bad end, where one was found."""
    payer: str
    """Study whose command began it; empty where that was not written down."""
    cost: StageCost
    judges: JudgePay = UNPAID
    cluster: str = ""
    device: str = ""
    job: str = ""
    """Slurm's; empty for a local command."""
    began: float | None = None
    """Seconds since 1970, by the clock of where it ran; None where that is not known."""
    usd_per_node_hour: float | None = None
    """None where nothing is known of the attempt."""
    is_running: bool = False
    """Its cost is what it took up to its last record."""

    @property
    def parts(self) -> dict[Part, Cost]:
        """Nothing is in two of them."""
        is_evaluation = self.stage.kind in (StageKind.generate, StageKind.judge)
        kept = self.cost.kept
        return {
            Part.work: NOTHING if is_evaluation else kept,
            Part.evaluation: kept if is_evaluation else NOTHING,
            Part.startup: self.cost.startup,
            Part.lost: self.cost.lost,
            Part.judges: Cost(micro_usd=self.judges.micro_usd),
        }


def ledger_rows(
    stages: Iterable[StageResult],
    judges: Mapping[StageRef, Mapping[int, JudgePay]] | None = None,
) -> tuple[LedgerRow, ...]:
    """Every attempt in the order of the plan; the costs of a stage's rows add up to the stage's.

    judges: what each attempt of a stage paid them, by its number.
    """
    rows: list[LedgerRow] = []
    for stage in stages:
        known = [(a, a.charged) for a in stage.attempts if a.charged is not None]
        costs = attempt_costs(
            [charged for _, charged in known],
            published=next((i for i, (a, _) in enumerate(known) if a.published), None),
        )
        by_number = {a.number: cost for (a, _), cost in zip(known, costs, strict=True)}
        paid = (judges or {}).get(stage.ref, {})
        rows += [
            _attempt_row(
                stage,
                attempt,
                cost=by_number.get(attempt.number, StageCost()),
                judges=paid.get(attempt.number, UNPAID),
            )
            for attempt in stage.attempts
        ]
        for run in stage.account.idle if stage.account is not None else ():
            rows.append(
                LedgerRow(
                    stage=stage.ref,
                    label=stage.label,
                    number=None,
                    outcome="no attempt",
                    payer=run.execution.study,
                    cost=idle_cost(run.usage),
                    cluster=run.execution.cluster,
                    device=run.execution.device,
                    job=run.job,
                    began=run.usage.started_at or None,
                    usd_per_node_hour=run.usage.usd_per_node_hour,
                    is_running=not run.is_over,
                )
            )
    return tuple(rows)


def _attempt_row(
    stage: StageResult, attempt: Attempt, *, cost: StageCost, judges: JudgePay
) -> LedgerRow:
    said = attempt.usage or attempt.charged
    how = attempt.execution
    return LedgerRow(
        stage=stage.ref,
        label=stage.label,
        number=attempt.number,
        outcome=str(said.outcome) if said is not None else "unknown",
        failure=said.failure if said is not None else "",
        payer=str(how.get("study") or ""),
        cost=cost,
        judges=judges,
        cluster=str(how.get("cluster") or ""),
        device=str(how.get("device") or ""),
        job=_job(stage.account, attempt.number),
        began=(said.started_at or None) if said is not None else None,
        usd_per_node_hour=(
            attempt.charged.usd_per_node_hour if attempt.charged is not None else None
        ),
        is_running=said is not None and said.outcome is Outcome.running,
    )


def _job(account: StageAccount | None, number: int) -> str:
    charges = account.charges if account is not None else ()
    return next((c.run.element for c in charges if c.number == number and c.run), "")


def by_payer(rows: Iterable[LedgerRow]) -> dict[str, StageCost]:
    """What each study paid for devices; under "" what is not told apart."""
    paid: dict[str, StageCost] = {}
    for row in rows:
        paid[row.payer] = paid.get(row.payer, StageCost()) + row.cost
    return paid


def by_part(rows: Iterable[LedgerRow]) -> dict[Part, Cost]:
    """What all rows paid for each; together it is all that was paid."""
    paid = dict.fromkeys(Part, NOTHING)
    for row in rows:
        for part, cost in row.parts.items():
            paid[part] += cost
    return paid
