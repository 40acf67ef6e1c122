"""A study stops at its budget, keeps what was done, and goes on when there is more."""

from __future__ import annotations

import dataclasses
import errno
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from scalesweep.launch import budget_guard
from scalesweep.launch.budget import admit_study, admitted_part, read_budget
from scalesweep.launch.budget_guard import Guard, budget_lines
from scalesweep.launch.local import State, StudyResult
from scalesweep.launch.status import study_status
from scalesweep.plan.admission import Amount
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.records import Outcome, StageKind, Usage
from scalesweep.rundir import Store, write_json
from scalesweep.study_run import exit_status
from tests.fakes.plans import plan_of, stage
from tests.fakes.processes import wait_for
from tests.fakes.stage_runner import journal, output_text
from tests.launch.running import run, states
from tests.plan.test_admission import priced

STEP_S = 0.02
PRICE = 3600
"""Dollars a node-hour: a stage on one of a node's two devices costs half a dollar a second."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def counting(
    label: str, *, steps: int, every: int = 10, step_s: float = STEP_S, **more: Any
) -> PlannedStage:
    """Trains for so many steps of 0.02 s, with a checkpoint after each; declares every tenth."""
    found = stage(label, "count", steps=steps, step_s=step_s, usd_per_node_hour=PRICE, **more)
    execution = dataclasses.replace(found.execution, checkpoint_every_steps=every)
    return dataclasses.replace(found, execution=execution)


def held_to(plan: Plan, **bounds: Any) -> Plan:
    """The same plan with a budget in its settings."""
    return dataclasses.replace(
        plan,
        cells=tuple(
            dataclasses.replace(cell, config={**cell.config, "budget": bounds})
            for cell in plan.cells
        ),
    )


def bounded(plan: Plan, store: Store, **bounds: Any) -> StudyResult:
    """Run a plan as a command does."""
    plan = held_to(plan, **bounds)
    admit_study(store, plan)
    return run(plan, store)


def usages(store: Store, planned: PlannedStage) -> list[Usage]:
    return [u for a in store.stage(planned.ref).attempts() if (u := a.usage()) is not None]


def spent_usd(plan: Plan, store: Store) -> float:
    return sum(usage.cost_usd for planned in plan.stages for usage in usages(store, planned))


def test_what_would_overrun_stops_at_a_checkpoint_and_goes_on_when_the_budget_is_raised(
    store: Store,
) -> None:
    long = counting("long", steps=60)
    plan = plan_of(long, stage("child", after=[long], text="read "))

    # The stage needs 60 x 0.02 x 0.5 = 0.6 dollars and more.
    result = bounded(plan, store, usd=0.5)

    assert states(result) == {"long": State.out_of_budget, "child": State.left_out}
    assert exit_status(result) == 1
    (usage,) = usages(store, long)
    assert (usage.outcome, usage.failure) == (Outcome.interrupted, "budget")
    assert "budget.usd=0.5 would be overrun: stopped at a checkpoint" in usage.cause
    assert 0 < usage.steps < 60
    assert spent_usd(plan, store) < 0.5 + 10 * STEP_S * 0.5
    status = study_status(held_to(plan, usd=0.5), store)
    assert [(s.state, s.detail) for s in status.values()] == [
        ("out of budget", usage.cause), ("left out", "needs long"),
    ]  # fmt: skip

    assert states(bounded(plan, store, usd=0.5)) == {
        "long": State.out_of_budget if len(usages(store, long)) > 1 else State.left_out,
        "child": State.left_out,
    }
    again = bounded(plan, store, usd=5)

    assert again.all_done
    assert journal(store, "step60") == ["long"]
    assert all(len(journal(store, f"step{n}")) == 1 for n in range(1, 61))  # none done twice
    assert output_text(store, plan.stages[1].ref) == "read "
    assert read_budget(store, "fake") is not None
    assert "budget.usd=5" in budget_lines(plan, store)[0]


def test_of_stages_that_run_at_once_each_overshoots_less_than_its_interval(store: Store) -> None:
    pair = [counting(label, steps=100, step_s=0.05) for label in ("one", "two")]
    plan = plan_of(*pair, cells={"one": pair[:1], "two": pair[1:]})

    # A dollar a second for both: 3 of the 5 seconds they need.
    result = bounded(plan, store, usd=3.0)

    assert set(states(result).values()) == {State.out_of_budget}
    interval_usd = 10 * 0.05 * 0.5
    assert spent_usd(plan, store) < 3.0 + 2 * interval_usd
    assert all(0 < usage.steps < 100 for planned in pair for usage in usages(store, planned))


def test_cells_that_do_not_fit_are_not_begun(store: Store) -> None:
    cheap = priced(counting("cheap", steps=2), 0.5, hours=1e-6)
    dear = priced(counting("dear", steps=2), 9, hours=1e-6)
    plan = plan_of(dear, cheap, cells={"dear": [dear], "cheap": [cheap]})

    result = bounded(plan, store, usd=5)

    assert states(result) == {"cheap": State.done, "dear": State.left_out}
    assert result.runs[dear.ref].cause == "budget.usd=5 has no room for it"
    assert usages(store, dear) == []
    status = study_status(held_to(plan, usd=5), store)
    assert status[dear.ref].state == "left out"
    admission = admit_study(store, held_to(plan, usd=5))
    assert [cell.name for cell in admitted_part(plan, admission).cells] == ["cheap"]


def test_what_failed_attempts_of_the_study_cost_counts(store: Store) -> None:
    bad = stage("bad", "fail", usd_per_node_hour=PRICE)
    good = counting("good", steps=2)
    plan = plan_of(bad, good, cells={"bad": [bad], "good": [good]})
    run(plan_of(bad), store)
    (usage,) = usages(store, bad)
    assert usage.cost_usd > 0

    result = bounded(plan, store, usd=usage.cost_usd * 0.99)

    assert states(result) == {"bad": State.left_out, "good": State.left_out}
    assert bounded(plan, store, usd=100).runs[good.ref].state is State.done


def test_node_hours_bound_a_study_too(store: Store) -> None:
    long = counting("long", steps=200)

    result = bounded(plan_of(long), store, node_hours=1 / 3600)

    # Half a node: 2 s of the 4 s it needs; 0.2 s to a checkpoint, and 0.4 s between two looks.
    assert states(result) == {"long": State.out_of_budget}
    (usage,) = usages(store, long)
    assert usage.node_hours == pytest.approx(1 / 3600, abs=0.45 / 3600)


def test_what_has_done_nothing_yet_is_not_waited_for(store: Store) -> None:
    deaf = stage("deaf", "stubborn", usd_per_node_hour=PRICE)
    began = time.monotonic()

    result = bounded(plan_of(deaf), store, usd=0.2)

    assert states(result) == {"deaf": State.out_of_budget}
    (usage,) = usages(store, deaf)
    assert (usage.outcome, usage.failure) == (Outcome.killed, "budget")
    assert "stopped before it had done anything" in usage.cause
    assert time.monotonic() - began < budget_guard.PATIENCE_S / 2


def test_a_command_that_runs_heeds_a_budget_that_is_raised_meanwhile(store: Store) -> None:
    long = counting("long", steps=60)
    plan = plan_of(long)

    def raise_it() -> None:
        attempt = store.stage(long.ref).attempt(1)
        wait_for(lambda: len(list(attempt.metric_rows())) > 3, timeout_s=20, what="steps")
        admit_study(store, held_to(plan, usd=50))

    thread = threading.Thread(target=raise_it)
    thread.start()
    # The first look of the command was at 0.55 dollars, the next follows after two seconds.
    result = bounded(plan, store, usd=2.0)
    thread.join()

    assert result.all_done
    guard = Guard(store=store, study="fake")
    guard.look()
    assert guard.held_to is not None
    assert guard.held_to.budget.micro_usd == 50_000_000


def test_a_stage_that_runs_again_though_it_was_done_counts_too(store: Store) -> None:
    broken, beside = counting("broken", steps=50), counting("beside", steps=600)
    plan = plan_of(broken, beside)
    assert run(plan_of(broken), store).all_done
    for name in ("output", "checkpoints"):
        shutil.rmtree(store.stage(broken.ref).attempt(1).path / name)
    before = spent_usd(plan, store)

    result = bounded(plan, store, usd=before + 4.0)

    assert states(result) == {"broken": State.done, "beside": State.out_of_budget}
    assert spent_usd(plan, store) == pytest.approx(before + 4.0, abs=0.4)


def test_what_another_command_of_the_study_begins_later_counts(store: Store) -> None:
    first, second = counting("first", steps=20), counting("second", steps=20)
    admit_study(store, held_to(plan_of(first), usd=50))
    admit_study(store, held_to(plan_of(second), usd=50))
    guard = Guard(store=store, study="fake")
    assert guard.look() == Amount()

    assert run(plan_of(first), store).all_done

    assert guard.look().usd == pytest.approx(spent_usd(plan_of(first), store), abs=1e-5)


def test_a_budget_that_cannot_be_read_once_is_read_at_the_next_look(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit_study(store, held_to(plan_of(counting("one", steps=1)), usd=50))
    guard = Guard(store=store, study="fake")

    def stale(*_: Any) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(budget_guard, "read_budget", stale)
        with pytest.raises(OSError, match="Stale"):
            guard.look()
    guard.look()

    assert guard.held_to is not None


def test_without_a_budget_nothing_bounds_a_study_that_had_one(store: Store) -> None:
    plan = plan_of(counting("one", steps=100))
    assert states(bounded(plan, store, usd=1e-6)) == {"one": State.out_of_budget}
    assert admit_study(store, plan) is None

    assert run(plan, store).all_done
    assert read_budget(store, "fake") is None
    assert budget_lines(plan, store) == []


def test_the_way_to_the_end_counts_where_it_is_shorter_than_to_a_checkpoint(store: Store) -> None:
    # 10 steps need 0.1 dollars; a checkpoint every 1000 would need 10.
    short = counting("short", steps=10, every=1000)

    assert bounded(plan_of(short), store, usd=3).all_done


def test_looks_come_as_often_as_the_budget_could_be_spent(store: Store) -> None:
    # Two stages at once spend 2 x 1800 dollars an hour: a dollar a second.
    pair = [counting(label, steps=1) for label in ("one", "two")]
    admit_study(store, held_to(plan_of(*pair), usd=50))
    guard = Guard(store=store, study="fake")

    spent = guard.look()

    assert spent == Amount()
    assert 40 <= guard.next_look_s(spent) <= 50
    assert guard.next_look_s(Amount(micro_usd=49_500_000)) == budget_guard.LOOK_S
    assert Guard(store=store, study="other").next_look_s(spent) == budget_guard.NO_BUDGET_S


def test_dollars_of_judges_that_run_are_counted(store: Store) -> None:
    asks = stage("asks", "wait", kind=StageKind.judge, gate="gate")
    plan = plan_of(asks)

    def paid() -> None:
        attempt = store.stage(asks.ref).attempt(1)
        wait_for(attempt.lease.exists, timeout_s=20, what="an attempt")
        write_json(attempt.path / "judging.json", {"usd": 1.5, "unsure_usd": 0.0})

    thread = threading.Thread(target=paid)
    thread.start()
    result = bounded(plan, store, usd=1.0)
    thread.join()

    assert states(result) == {"asks": State.out_of_budget}
    assert "$1.50 spent, $0.50 over" in budget_lines(plan, store)[0]
