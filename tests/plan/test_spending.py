"""A study has spent what attempts cost that its command began."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from scalesweep.plan.admission import Amount
from scalesweep.plan.graph import PlannedStage
from scalesweep.plan.spending import kept_progress, study_spending
from scalesweep.records import Outcome, StageKind, Usage
from scalesweep.rundir import AttemptDir, Store, write_json
from scalesweep.tracking import metric_names as names
from tests.fakes.plans import plan_of, stage

TUNE = stage("tune", usd_per_node_hour=3600)
JUDGE = stage("judge", kind=StageKind.judge, after=[TUNE])
PLAN = plan_of(TUNE, JUDGE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def attempt(
    store: Store,
    planned: PlannedStage,
    outcome: Outcome,
    wall_s: float,
    *,
    study: str = "fake",
    number: int = 1,
) -> AttemptDir:
    """One of two devices, half a dollar a second."""
    found = store.stage(planned.ref).attempt(number)
    found.path.mkdir(parents=True, exist_ok=True)
    execution = dataclasses.replace(planned.execution, study=study)
    write_json(found.execution_file, execution.to_json())
    usage = Usage(outcome=outcome, wall_s=wall_s, node_devices=2, usd_per_node_hour=3600)
    write_json(found.usage_file, usage.to_json())
    return found


def test_every_attempt_of_the_study_counts_however_it_ended(store: Store) -> None:
    spending = study_spending(PLAN, store)
    assert spending.look() == Amount()
    for number, outcome in enumerate((Outcome.failed, Outcome.killed, Outcome.interrupted), 1):
        attempt(store, TUNE, outcome, 2.0, number=number)
    attempt(store, TUNE, Outcome.running, 1.0, number=4)
    attempt(store, JUDGE, Outcome.running, 1.0, study="")  # before it was written down

    assert spending.look().usd == pytest.approx(3 * 1.0 + 0.5 + 0.5)

    attempt(store, TUNE, Outcome.done, 5.0, number=4)
    assert spending.look().usd == pytest.approx(3 * 1.0 + 2.5 + 0.5)
    assert spending.look().node_hours == pytest.approx((6 + 5 + 1) / 2 / 3600)


def test_what_others_paid_does_not_count_nor_what_the_caller_counts_itself(store: Store) -> None:
    attempt(store, TUNE, Outcome.done, 2.0, study="other")
    attempt(store, JUDGE, Outcome.failed, 4.0)
    attempt(store, JUDGE, Outcome.running, 8.0, number=2)
    spending = study_spending(PLAN, store)

    assert spending.look().usd == pytest.approx(6.0)
    assert spending.num_running == 1
    assert spending.total(besides={(JUDGE.ref, 2)}).usd == pytest.approx(2.0)


def test_what_died_without_a_word_does_not_run(store: Store) -> None:
    for number in (1, 2, 3):
        attempt(store, TUNE, Outcome.running, 2.0, number=number)
    spending = study_spending(PLAN, store)

    assert spending.look().usd == pytest.approx(3.0)
    assert spending.num_running == 1

    attempt(store, TUNE, Outcome.failed, 2.0, number=3)
    spending.look()
    assert spending.num_running == 0


def test_a_stage_that_is_done_is_not_looked_at_again(store: Store) -> None:
    attempt(store, TUNE, Outcome.done, 2.0)
    store.stage(TUNE.ref).done_file.touch()
    spending = study_spending(PLAN, store)

    assert spending.look().usd == pytest.approx(1.0)
    assert spending.open_stages == (JUDGE.ref,)
    assert spending.look().usd == pytest.approx(1.0)


def test_stages_that_left_the_plan_were_paid_all_the_same(store: Store) -> None:
    before = stage("before", usd_per_node_hour=3600)
    attempt(store, before, Outcome.done, 2.0)
    attempt(store, stage("of-another"), Outcome.done, 2.0, study="other")

    assert study_spending(PLAN, store).look().usd == pytest.approx(1.0)


def test_judge_dollars_count_with_what_may_have_been_paid(store: Store) -> None:
    asked = attempt(store, JUDGE, Outcome.interrupted, 2.0)
    write_json(asked.path / "judging.json", {"usd": 0.25, "unsure_usd": 0.125, "benchmarks": {}})
    free = attempt(store, JUDGE, Outcome.interrupted, 2.0, number=2)
    write_json(free.path / "judging.json", {"usd": None, "unsure_usd": None, "benchmarks": {}})

    found = study_spending(PLAN, store).look()

    assert found.micro_usd == 2_000_000 + 375_000
    assert found.node_hours == pytest.approx(2 / 3600)


def test_an_attempt_leaves_what_its_last_checkpoint_has(store: Store) -> None:
    row = {names.STEP: 70, names.PROGRESS_DONE: 70, names.PROGRESS_TOTAL: 200}
    killed = attempt(store, TUNE, Outcome.killed, 2.0)
    write_row(killed, row)

    assert kept_progress(PLAN, store) == {TUNE.ref: 50 / 200}  # every 50 steps

    write_row(attempt(store, TUNE, Outcome.interrupted, 2.0, number=2), row)
    assert kept_progress(PLAN, store) == {TUNE.ref: 70 / 200}
    store.stage(TUNE.ref).done_file.touch()
    assert kept_progress(PLAN, store) == {}


def write_row(of: AttemptDir, row: dict[str, int]) -> None:
    of.metrics.write_text(json.dumps(row) + "\n", encoding="utf-8")
