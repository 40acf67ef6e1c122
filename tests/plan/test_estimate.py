"""Estimates of a plan are sums of what was predicted of its stages."""

from __future__ import annotations

import dataclasses

import pytest

from scalesweep.plan.estimate import plan_estimate
from scalesweep.plan.graph import PlannedStage
from scalesweep.records import Predicted
from tests.fakes.plans import plan_of, stage


def priced(stage: PlannedStage, *, wall_s: float, judge_usd: float = 0.0) -> PlannedStage:
    """At one dollar per hour of a node of two devices, one of them held."""
    found = Predicted(
        startup_s=0.0,
        work_s=wall_s,
        flops=0.0,
        device_bytes=0.0,
        host_bytes=0.0,
        node_hours=wall_s / 2 / 3600,
        usd=wall_s / 2 / 3600,
        judge_usd=judge_usd,
    )
    execution = dataclasses.replace(stage.execution, predicted=found)
    return dataclasses.replace(stage, execution=execution)


def test_a_stage_that_two_cells_share_is_paid_once() -> None:
    align = priced(stage("align"), wall_s=3600)
    lora = priced(stage("tune", "lora", after=[align]), wall_s=7200, judge_usd=2.5)
    full = priced(stage("tune", "full", after=[align]), wall_s=14400)
    plan = plan_of(align, lora, full, cells={"lora": [align, lora], "full": [align, full]})

    found = plan_estimate(plan, done=frozenset())

    assert found.total.node_hours == pytest.approx(0.5 + 1.0 + 2.0)
    assert found.unshared.node_hours == pytest.approx(2 * 0.5 + 1.0 + 2.0)
    assert found.saved_by_sharing == pytest.approx(0.5 / 4.0)
    assert found.cells["lora"].standalone.usd == pytest.approx(1.5)
    assert found.cells["lora"].share.usd == pytest.approx(1.25)
    assert found.cells["lora"].tune.usd == pytest.approx(1.0)
    assert found.judge_micro_usd == 2_500_000


def test_what_is_done_costs_nothing_more() -> None:
    align = priced(stage("align"), wall_s=3600)
    lora = priced(stage("tune", after=[align]), wall_s=7200)
    plan = plan_of(align, lora, cells={"lora": [align, lora]})

    found = plan_estimate(plan, done={align.ref})

    assert found.to_run.node_hours == pytest.approx(1.0)
    assert found.cells["lora"].to_run.node_hours == pytest.approx(1.0)
    assert found.cells["lora"].standalone.node_hours == pytest.approx(1.5)


def test_a_stage_without_a_prediction_is_named() -> None:
    tune = stage("tune")

    found = plan_estimate(plan_of(tune), done=frozenset())

    assert found.unknown == (tune.ref,)
    assert found.total.node_hours == 0
