"""Predictions of a plan: whole, cheap, and of nothing that is not known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import pytest

from scalesweep.cost_model import table4
from scalesweep.cost_model.speeds import MeasuredRun, Speeds, Traits
from scalesweep.cost_model.stage_work import stage_work
from scalesweep.cost_model.token_cache import keep_statistics
from scalesweep.cost_model.token_statistics import training_data_key
from scalesweep.errors import PlanError
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.plan.known import Known, predicted
from scalesweep.plan.predict import Predictor, with_predictions
from scalesweep.plan.show_costs import expected_line
from scalesweep.records import StageKind
from scalesweep.rundir import Store
from tests.config.composing import cell

A100 = "cluster=azure_nd_a100_v4"


def plan_of(*cells: Iterable[str]) -> Plan:
    requests = [
        CellRequest(point={"cell": i}, config=cell(*words)) for i, words in enumerate(cells)
    ]
    return build_plan(requests, study="priced")


def tune_of(plan: Plan, number: int = 0) -> PlannedStage:
    return plan.stage(plan.cells[number].stages["tune"])


@pytest.mark.parametrize(
    ("size", "tuning"), [("33b", "lora"), ("33b", "qlora"), ("33b", "full"), ("65b", "full")]
)
def test_the_papers_cells_take_its_hours(tmp_path: Path, size: str, tuning: str) -> None:
    found = predicted(plan_of([f"model={size}", f"tuning={tuning}", A100]), Store(tmp_path))

    published = {
        (run.size.lower(), str(run.method)): run.node_hours
        for run in table4.PUBLISHED_RUNS
        if run.rank != 8
    }
    prediction = tune_of(found).execution.predicted
    assert prediction is not None
    assert prediction.node_hours == pytest.approx(published[size, tuning], rel=0.13)
    assert prediction.usd == pytest.approx(13.63 * prediction.node_hours)
    assert prediction.basis == "declared: 34.5% of A100-80GB"
    assert 25e9 < prediction.device_bytes < 85e9


def test_every_stage_of_the_shipped_studies_is_predicted(tmp_path: Path) -> None:
    for words in (["model=33b", A100], ["model=mini_s"], ["model=65b", "judge=gpt4", A100]):
        plan = predicted(plan_of(words), Store(tmp_path))
        for stage in plan.stages:
            prediction = stage.execution.predicted
            assert prediction is not None, stage.spec.label
            assert prediction.wall_s > 0, stage.spec.label
            assert prediction.host_bytes > 0, stage.spec.label


def test_a_plan_keeps_its_keys_and_all_but_the_predictions(tmp_path: Path) -> None:
    plan = plan_of(["model=33b", A100], ["model=33b", "tuning=full", A100])

    found = predicted(plan, Store(tmp_path))

    bare = [
        dataclasses.replace(s, execution=dataclasses.replace(s.execution, predicted=None))
        for s in found.stages
    ]
    assert tuple(bare) == plan.stages
    assert [s.ref for s in found.stages] == [s.spec.ref for s in plan.stages]
    assert found.cells == plan.cells


def test_where_no_device_is_named_nothing_is_said(tmp_path: Path) -> None:
    plan = plan_of(["model=33b", A100, "cluster.device=null"])

    assert all(s.execution.predicted is None for s in predicted(plan, Store(tmp_path)).stages)


def test_an_unknown_gpu_is_refused(tmp_path: Path) -> None:
    plan = plan_of(["model=33b", A100, "cluster.device=A100"])

    with pytest.raises(PlanError, match=r"cluster\.device=A100: nothing is known"):
        predicted(plan, Store(tmp_path))


def test_stages_on_data_that_nobody_knows_are_left_open(tmp_path: Path) -> None:
    mine = ["model=33b", A100, "data_mix.sources.0.file=mine.json"]

    plan = predicted(plan_of(mine), Store(tmp_path))

    assert tune_of(plan).execution.predicted is None
    align = plan.stage(plan.cells[0].stages["align"])
    assert align.execution.predicted is not None


def test_counted_tokens_go_before_declared_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = plan_of(["model=33b", A100])
    spec = tune_of(plan).spec
    declared = Known(store, plan).tokens(spec)
    assert declared is not None
    halves = {name: number // 2 for name, number in declared.to_json().items()}

    keep_statistics(store.cache, training_data_key(spec), halves)

    # Samples as before, but half as many: half the epoch.
    found = tune_of(predicted(plan, store)).execution.predicted
    usual = Predictor(speeds=Speeds.declared(), tokens=lambda _: declared).predicted(tune_of(plan))
    assert found is not None
    assert usual is not None
    assert found.flops == pytest.approx(usual.flops / 2, rel=0.01)


def test_measured_speed_goes_before_the_declared_one(tmp_path: Path) -> None:
    plan = plan_of(["model=mini_s"])
    known = Known(Store(tmp_path), plan)
    tune = tune_of(plan)
    work = stage_work(tune.spec, tune.execution, known.tokens(tune.spec))
    assert work is not None
    run = MeasuredRun(
        ref=tune.ref,
        traits=Traits.of(tune.spec, tune.execution),
        flops=work.flops,
        units=work.units,
        startup_s=3.0,
        work_s=20.0,
    )

    found = tune_of(with_predictions(plan, Speeds(runs=(run,)), known.tokens)).execution.predicted

    assert found is not None
    assert (found.startup_s, found.work_s) == (3.0, pytest.approx(20.0))
    assert found.basis.startswith("measured: 1 tune full run")


def test_cells_that_differ_in_a_seed_are_computed_once(tmp_path: Path) -> None:
    one = cell("model=33b", A100)
    requests = [
        CellRequest(point={"seed": n}, config=dataclasses.replace(one, seed=n)) for n in (1, 2, 3)
    ]
    plan = build_plan(requests, study="seeds")
    predictor = Predictor(speeds=Speeds.declared(), tokens=Known(Store(tmp_path), plan).tokens)
    tunes = [predictor.predicted(tune_of(plan, n)) for n in range(3)]

    assert tunes[0] is tunes[1] is tunes[2]


@pytest.mark.parametrize(
    "words",
    [
        ["tuning=full"],
        ["tuning=lora", "lora.rank=8"],
        ["tuning=lora", "optim.epochs=2"],
        ["tuning=lora", "batch.global_batch_size=512"],
        ["tuning=lora", "resolution=224px"],
        ["tuning=lora", "zero.gradient_checkpointing=none"],
        ["tuning=lora", "nodes=2"],
        ["tuning=lora", "cluster.usd_per_node_hour=1"],
    ],
    ids=lambda words: words[-1],
)
def test_what_changes_the_cost_is_never_taken_for_the_same(
    tmp_path: Path, words: list[str]
) -> None:
    """Against predicting each by itself."""
    plans = [plan_of(["model=13b", A100, *more]) for more in (["tuning=lora"], words)]
    known = Known(Store(tmp_path), plans[0])
    together = Predictor(speeds=Speeds.declared(), tokens=known.tokens)

    for plan in plans:
        for stage in plan.stages:
            alone = Predictor(speeds=Speeds.declared(), tokens=known.tokens)
            assert together.predicted(stage) == alone.predicted(stage)
    first, second = (together.predicted(tune_of(plan)) for plan in plans)
    assert first != second


def test_judges_are_paid_only_by_judge_stages(tmp_path: Path) -> None:
    plan = predicted(
        plan_of(["model=33b", "judge=gpt4", "evaluation=llava_bench", A100]), Store(tmp_path)
    )

    paid = {
        s.spec.kind: s.execution.predicted.judge_usd for s in plan.stages if s.execution.predicted
    }
    assert paid[StageKind.judge] == pytest.approx(180 * (0.0189 + 0.0075))
    assert sum(paid.values()) == paid[StageKind.judge]


def test_before_a_study_begins_one_line_says_what_to_expect(tmp_path: Path) -> None:
    plan = predicted(plan_of(["model=33b", "tuning=lora", A100]), Store(tmp_path))
    done = {stage.ref for stage in plan.stages}

    line = expected_line(plan, frozenset())

    assert line.startswith("expected: about ")
    assert "node-hours, $" in line
    assert "judges $" in line
    assert expected_line(plan, done) == ""
    assert expected_line(plan_of(["model=33b", A100]), frozenset()) == ""  # nothing is predicted
