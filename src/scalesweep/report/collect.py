"""Everything a report is made of, read once from a plan and the store's records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.plan.graph import Cell, Plan
from scalesweep.records import StageKind, StageRef
from scalesweep.report.checks import report_warnings
from scalesweep.report.costs import CellCosts, JudgePay, StageCost, cell_costs
from scalesweep.report.labels import seed_of, setting_labels, value_at
from scalesweep.report.ledger import LedgerRow, by_payer, ledger_rows
from scalesweep.report.pricing import Pricing
from scalesweep.report.scores import (
    AnsweringTime,
    BenchmarkResult,
    answering_times,
    judge_pay,
    read_scores,
)
from scalesweep.report.slurm_accounting import StudyAccount, study_account
from scalesweep.report.stage_accounts import StageAccounts
from scalesweep.report.stage_results import (
    LossPoint,
    StageResult,
    StageState,
    loss_curve,
    metric_rows,
    read_stages,
)
from scalesweep.rundir import Store, read_json
from scalesweep.tracking import metric_names


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """One cell: where it stands, what it scored and what it cost."""

    cell: Cell
    label: str
    """Of its setting: cells that differ in their seed alone share it."""
    seed: int
    state: StageState
    cause: str
    """One line when it is not done: the stage that stopped it, and why."""
    scores: Mapping[str, BenchmarkResult]
    """Benchmark -> score of the tuned checkpoint; empty until it is judged."""
    before: Mapping[str, BenchmarkResult]
    """Benchmark -> score of its language model before any tuning."""
    costs: CellCosts
    costs_are_whole: bool
    """Every stage is done: the costs will not grow."""
    loss: tuple[LossPoint, ...]
    """Of the tune stage, one point per optimizer step."""
    step_seconds: tuple[float, ...]
    """Wall time of the tune stage's optimizer steps."""
    devices: int
    """Devices of the tune stage."""
    samples_per_step: int
    wall_s: float
    """Of all attempts of the tune stage."""
    queued_s: int | None = None
    """Seconds all its stages waited in Slurm's queue; None where its account does not say."""
    answering: Mapping[str, AnsweringTime] = field(default_factory=dict)
    """Benchmark -> how fast the tuned checkpoint answered it; empty until it has."""

    @property
    def config(self) -> Mapping[str, Any]:
        return self.cell.config

    def score(self, benchmark: str) -> float | None:
        """Of the tuned checkpoint; None until it is judged."""
        found = self.scores.get(benchmark)
        return found.score if found is not None else None

    @property
    def is_blind(self) -> bool:
        return bool(value_at(self.cell.config, "resolution.blind"))


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a node-hour was taken to cost."""

    usd_per_node_hour: float
    node_devices: int
    cluster: str
    is_example: bool


@dataclass(frozen=True, kw_only=True)
class Repriced:
    """That the report takes another price than attempts were charged at."""

    asked: str
    charged: tuple[Price, ...]


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """A study as the store knows it now. Frozen: all reports of it agree."""

    plan: Plan
    stages: Mapping[StageRef, StageResult]
    cells: tuple[CellResult, ...]
    primary: str
    """The benchmark that findings and figures compare."""
    text_benchmark: str | None
    """The benchmark without pictures that is also asked before tuning."""
    total: StageCost
    """Of all stages of the study."""
    prices: tuple[Price, ...]
    versions: Mapping[str, tuple[str, ...]]
    """Package -> versions that attempts recorded; empty where none did."""
    other_studies: Mapping[str, int]
    """Other study of the store -> number of this study's stages it also contains."""
    warnings: tuple[str, ...]
    account: StudyAccount | None = None
    """None where Slurm ran nothing of it."""
    judges: Mapping[StageRef, JudgePay] = field(default_factory=dict)
    """What judges were paid, of each stage that asked one."""
    judges_of_attempts: Mapping[StageRef, Mapping[int, JudgePay]] = field(default_factory=dict)
    """The same by number of the attempt."""
    repriced: Repriced | None = None

    @cached_property
    def ledger(self) -> tuple[LedgerRow, ...]:
        """All attempts of its stages, whoever made them."""
        return ledger_rows(self.stages.values(), self.judges_of_attempts)

    @property
    def paid_by(self) -> dict[str, StageCost]:
        """Study -> what it paid of these stages; "": from before that was written down."""
        return by_payer(self.ledger)

    @property
    def judging(self) -> JudgePay | None:
        """Of the whole study; None where no judge was asked."""
        return sum(self.judges.values(), JudgePay()) if self.judges else None

    @property
    def num_done(self) -> int:
        return sum(cell.state is StageState.done for cell in self.cells)

    def queued_s(self, kind: StageKind | None) -> int | None:
        """Seconds that jobs of a kind, or all, waited; None where Slurm's account does not say."""
        stages = (s for s in self.stages.values() if kind is None or s.kind is kind)
        return _queued_s(stages)

    @property
    def cost_by_kind(self) -> dict[StageKind, StageCost]:
        costs: dict[StageKind, StageCost] = {}
        for stage in self.stages.values():
            costs[stage.kind] = costs.get(stage.kind, StageCost()) + stage.cost
        return costs


def collect(store: Store, plan: Plan, *, pricing: Pricing | None = None) -> StudyResults:
    """Reads all records of a plan's stages.

    pricing: None takes the prices that counted when attempts ran.

    Raises:
        ConfigError: an attempt has no price of the name that is asked for.
    """
    accounts = StageAccounts(store)
    stages = read_stages(store, plan, accounts)
    charged = prices = _prices(plan, stages)
    if pricing is not None:
        stages = {
            ref: pricing.stage(stage, planned=plan.stage(ref).execution)
            for ref, stage in stages.items()
        }
        prices = _prices(plan, stages, pricing)
    labels = setting_labels(plan.cells)
    asked = {
        ref: {
            attempt.number: pay
            for attempt in store.stage(ref).attempts()
            if (pay := judge_pay([attempt.path]))
        }
        for ref, stage in stages.items()
        if stage.kind is StageKind.judge
    }
    judges = {ref: sum(pays.values(), JudgePay()) for ref, pays in asked.items() if pays}
    costs = cell_costs(plan.cells, {ref: stage.cost for ref, stage in stages.items()}, judges)
    damaged: list[str] = []
    judged = {
        ref: read_scores(stage, damaged)
        for ref, stage in stages.items()
        if stage.kind is StageKind.judge
    }
    cells = tuple(
        _cell_result(store, cell, plan, stages, judged, label=labels[cell.name], costs=costs)
        for cell in plan.cells
    )
    primary, text_benchmark = _benchmarks(plan, cells)
    return StudyResults(
        plan=plan,
        stages=stages,
        cells=cells,
        primary=primary,
        text_benchmark=text_benchmark,
        total=sum((stage.cost for stage in stages.values()), StageCost()),
        prices=prices,
        repriced=Repriced(asked=pricing.asked, charged=charged) if pricing is not None else None,
        versions=_versions(stages),
        other_studies=_other_studies(store, plan),
        warnings=(*damaged, *report_warnings(stages, cells)),
        judges=judges,
        judges_of_attempts=asked,
        account=study_account(
            ((s.label, s.account) for s in stages.values() if s.account is not None),
            num_local=sum(len(s.attempts) for s in stages.values() if s.account is None),
            problem=accounts.problem,
        ),
    )


def _queued_s(stages: Iterable[StageResult]) -> int | None:
    waits = [stage.queued_s for stage in stages if stage.queued_s is not None]
    return sum(waits) if waits else None


def _cell_result(
    store: Store,
    cell: Cell,
    plan: Plan,
    stages: Mapping[StageRef, StageResult],
    judged: Mapping[StageRef, Mapping[str, BenchmarkResult]],
    *,
    label: str,
    costs: Mapping[str, CellCosts],
) -> CellResult:
    state, cause = _cell_state(cell, stages)
    tune = cell.stages.get("tune")
    rows: list[dict[str, Any]] = []
    devices, samples, wall_s = 1, 0, 0.0
    if tune is not None:
        published = next((a.number for a in stages[tune].attempts if a.published), None)
        rows = metric_rows(store.stage(tune), published=published)
        planned = plan.stage(tune)
        devices = planned.execution.world_size
        samples = int(planned.spec.identity.get("global_batch_size", 0))
        usages = [a.charged for a in stages[tune].attempts if a.charged is not None]
        wall_s = sum(usage.wall_s for usage in usages)
        if usages:
            devices = usages[-1].num_devices
    return CellResult(
        cell=cell,
        label=label,
        seed=seed_of(cell),
        state=state,
        cause=cause,
        scores=judged.get(cell.stages["judge"], {}) if "judge" in cell.stages else {},
        before=judged.get(cell.stages["judge_base"], {}) if "judge_base" in cell.stages else {},
        costs=costs[cell.name],
        costs_are_whole=all(stages[ref].is_done for ref in cell.stages.values()),
        loss=loss_curve(rows),
        step_seconds=tuple(
            float(row[metric_names.STEP_SECONDS])
            for row in rows
            if metric_names.STEP_SECONDS in row
        ),
        devices=devices,
        samples_per_step=samples,
        wall_s=wall_s,
        queued_s=_queued_s(stages[ref] for ref in set(cell.stages.values())),
        answering=answering_times(stages[cell.stages["generate"]])
        if "generate" in cell.stages
        else {},
    )


_WORST_FIRST = (
    StageState.failed,
    StageState.killed,
    StageState.interrupted,
    StageState.running,
    StageState.missing,
    StageState.stale,
)


def _cell_state(cell: Cell, stages: Mapping[StageRef, StageResult]) -> tuple[StageState, str]:
    own = [stages[ref] for ref in sorted(set(cell.stages.values()))]
    order = list(StageKind)
    own.sort(key=lambda stage: order.index(stage.kind))
    for state in _WORST_FIRST:
        for stage in own:
            if stage.state is state:
                return state, f"{stage.kind}: {stage.cause}{_log_of(stage)}"
    return StageState.done, ""


def _log_of(stage: StageResult) -> str:
    """Where to read more of what ended badly, below the store."""
    if stage.state not in (StageState.failed, StageState.killed) or not stage.attempts:
        return ""
    return f"; log: stages/{stage.ref}/attempts/{stage.attempts[-1].number:04d}/log"


def _benchmarks(plan: Plan, cells: tuple[CellResult, ...]) -> tuple[str, str | None]:
    """The benchmark to compare by, and the one without pictures."""
    for cell in plan.cells:
        asked = [entry["name"] for entry in value_at(cell.config, "evaluation.benchmarks") or []]
        of_base = value_at(cell.config, "evaluation.base_benchmarks") or []
        text = next((entry["name"] for entry in of_base if entry["name"] in asked), None)
        primary = value_at(cell.config, "evaluation.primary")
        if primary or asked:
            return str(primary or asked[0]), text
    scored = [name for cell in cells for name in cell.scores]
    return (scored[0] if scored else "score"), None


def _prices(
    plan: Plan, stages: Mapping[StageRef, StageResult], pricing: Pricing | None = None
) -> tuple[Price, ...]:
    """Prices of the stages' attempts; of a study not started, those planned.

    pricing: at which the stages are.
    """
    may_be_example = pricing is None or pricing.is_example_kept
    found: dict[Price, None] = {}
    for stage in plan.stages:
        planned = stage.execution
        for attempt in stages[stage.spec.ref].attempts:
            if attempt.usage is not None:
                found[
                    Price(
                        usd_per_node_hour=attempt.usage.usd_per_node_hour,
                        node_devices=attempt.usage.node_devices,
                        cluster=str(attempt.execution.get("cluster", planned.cluster)),
                        is_example=may_be_example
                        and bool(
                            attempt.execution.get("price_is_example", planned.price_is_example)
                        ),
                    )
                ] = None
    if not found:
        found = {
            Price(
                usd_per_node_hour=stage.execution.usd_per_node_hour
                if pricing is None
                else pricing.price({}, planned=stage.execution),
                node_devices=stage.execution.node_devices,
                cluster=stage.execution.cluster,
                is_example=may_be_example and stage.execution.price_is_example,
            ): None
            for stage in plan.stages
        }
    return tuple(found)


def _versions(stages: Mapping[StageRef, StageResult]) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for stage in stages.values():
        for attempt in stage.attempts:
            versions = attempt.execution.get("versions")
            if isinstance(versions, Mapping):
                for package, version in versions.items():
                    found.setdefault(str(package), {})[str(version)] = None
    return {package: tuple(versions) for package, versions in sorted(found.items())}


def _other_studies(store: Store, plan: Plan) -> dict[str, int]:
    own = {str(stage.spec.ref) for stage in plan.stages}
    found = {}
    for name in store.study_names():
        if name != plan.study:
            # Another study's damage is not ours to report.
            with contextlib.suppress(OSError, StoreError, KeyError, TypeError):
                stages = read_json(store.study(name) / "plan.json")["stages"]
                common = own & {f"{stage['kind']}/{stage['key']}" for stage in stages}
                if common:
                    found[name] = len(common)
    return found
