"""Cells are admitted as long as what is predicted of them fits; hand-computed."""

from __future__ import annotations

import dataclasses

import pytest

from scalesweep.plan.admission import Admission, Amount, Budget, admit, still_to_pay
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.plan.show_budget import admission_json, admission_lines, spent_text
from scalesweep.records import Predicted
from tests.fakes.plans import plan_of, stage


def priced(
    planned: PlannedStage, usd: float, *, hours: float = 1.0, judge_usd: float = 0.0
) -> PlannedStage:
    """Predicted to cost so much; a quarter of its time is start-up."""
    found = Predicted(
        startup_s=hours * 900,
        work_s=hours * 2700,
        flops=0.0,
        device_bytes=0.0,
        host_bytes=0.0,
        node_hours=hours,
        usd=usd,
        judge_usd=judge_usd,
    )
    execution = dataclasses.replace(planned.execution, predicted=found)
    return dataclasses.replace(planned, execution=execution)


DEAR, CHEAP = priced(stage("align-dear"), 10), priced(stage("align-cheap"), 2)
FULL = priced(stage("full", after=[DEAR]), 5)
LORA = priced(stage("lora", after=[DEAR]), 1)
TEXT = priced(stage("text", after=[CHEAP]), 7)
PLAN = plan_of(
    DEAR, CHEAP, FULL, LORA, TEXT,
    cells={"full": [DEAR, FULL], "lora": [DEAR, LORA], "text": [CHEAP, TEXT]},
)  # fmt: skip
"""Alone they cost 15, 11 and 9."""


def admitted(plan: Plan = PLAN, *, usd: float | None = None, **settings: object) -> Admission:
    budget = Budget.of(usd=usd, node_hours=settings.pop("node_hours", None),  # type: ignore[arg-type]
                       order=settings.pop("order", "cheapest"))  # type: ignore[arg-type]  # fmt: skip
    assert budget is not None
    return admit(plan, budget, done=settings.pop("done", frozenset()), **settings)  # type: ignore[arg-type]


def names(found: Admission) -> tuple[list[str], list[str]]:
    return [cell.name for cell in found.admitted], [cell.name for cell in found.left_out]


def test_a_cell_costs_what_it_adds_to_those_before_it() -> None:
    found = admitted(usd=100)

    # text 9 first, then lora 10 + 1, and then of full only its own 5 are left to pay
    assert [(cell.name, cell.adds.usd) for cell in found.admitted] == [
        ("text", 9), ("lora", 11), ("full", 5),
    ]  # fmt: skip
    assert found.reserved.usd == 25
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("usd", "order", "fit", "left_out"),
    [
        (25, "cheapest", ["text", "lora", "full"], []),
        (24.999999, "cheapest", ["text", "lora"], [("full", 5)]),
        (19, "cheapest", ["text"], [("full", 15), ("lora", 11)]),
        (8.99, "cheapest", [], [("full", 15), ("lora", 11), ("text", 9)]),
        (16, "listed", ["full", "lora"], [("text", 9)]),
        (24, "listed", ["full", "lora"], [("text", 9)]),
        (14, "listed", ["lora"], [("full", 5), ("text", 9)]),
    ],
)
def test_what_does_not_fit_is_left_out_with_what_it_would_add(
    usd: float, order: str, fit: list[str], left_out: list[tuple[str, float]]
) -> None:
    found = admitted(usd=usd, order=order)

    assert [cell.name for cell in found.admitted] == fit
    assert [(cell.name, cell.adds.usd) for cell in found.left_out] == left_out
    assert found.reserved.usd <= usd


def test_a_stage_that_an_admitted_cell_makes_is_not_left_out_with_the_others() -> None:
    found = admitted(usd=20)

    assert names(found) == (["text", "lora"], ["full"])
    assert found.stages == {DEAR.ref, LORA.ref, CHEAP.ref, TEXT.ref}
    assert found.stages_left_out == {FULL.ref}


def test_what_was_spent_and_what_is_done_count() -> None:
    assert names(admitted(usd=20, spent=Amount(micro_usd=1)))[1] == ["full", "lora"]
    # 10 of 12 are spent, align is done: lora's 1 fits, and text's 9 do not
    found = admitted(usd=12, spent=Amount(micro_usd=10_000_000), done={DEAR.ref})
    assert names(found) == (["lora"], ["full", "text"])


def test_with_nothing_left_only_cells_are_admitted_that_begin_nothing() -> None:
    spent = Amount(micro_usd=12_000_000)

    found = admitted(usd=12, spent=spent, done={DEAR.ref, LORA.ref})

    assert names(found) == (["lora"], ["full", "text"])
    assert found.stages == frozenset()
    unknown = plan_of(stage("unknown"))
    assert names(admitted(unknown, usd=12, spent=spent)) == ([], ["all"])


def test_judges_are_paid_from_the_dollars_and_not_from_the_hours() -> None:
    tune = priced(stage("tune"), 1.0)
    judge = priced(stage("judge", after=[tune]), 0.5, judge_usd=3.0)
    plan = plan_of(tune, judge)

    assert admitted(plan, usd=4.5).reserved.usd == 4.5
    assert names(admitted(plan, usd=4.49)) == ([], ["all"])
    assert names(admitted(plan, node_hours=2)) == (["all"], [])
    assert names(admitted(plan, node_hours=1.99)) == ([], ["all"])


def test_both_bounds_hold() -> None:
    quick = priced(stage("quick"), 3.0, hours=1)
    slow = priced(stage("slow"), 1.0, hours=5)
    plan = plan_of(quick, slow, cells={"quick": [quick], "slow": [slow]})

    assert names(admitted(plan, usd=3.5)) == (["slow"], ["quick"])
    assert names(admitted(plan, usd=3.5, node_hours=4)) == (["quick"], ["slow"])
    assert names(admitted(plan, node_hours=4)) == (["quick"], ["slow"])


def test_of_a_stage_that_goes_on_its_start_and_the_rest_of_its_work_are_paid() -> None:
    tune = priced(stage("tune"), 8.0, hours=2, judge_usd=1.0)

    # A quarter is start-up; of the other three quarters two thirds are done.
    left = still_to_pay(tune, progress=2 / 3)

    assert left == Amount(micro_usd=round((8 * (1 / 4 + 1 / 4) + 1 / 3) * 1e6), node_ms=3_600_000)
    assert still_to_pay(stage("unknown")) == Amount()


def test_stages_without_a_prediction_are_named() -> None:
    unknown = stage("unknown", after=[DEAR])
    plan = plan_of(DEAR, unknown)

    found = admitted(plan, usd=10)

    assert names(found) == (["all"], [])
    assert found.unknown == (unknown.ref,)
    assert "1 stages to run have no prediction" in admission_lines(plan, found, str)[-1]


def test_many_cells_are_decided_as_one_by_one() -> None:
    """The heap against the plain rule: again and again the one that adds least."""
    aligns = [priced(stage(f"align{i}"), 1 + i * 7 % 5) for i in range(6)]
    tunes = [priced(stage(f"tune{i}", after=[aligns[i % 6]]), 1 + i * 13 % 17) for i in range(60)]
    plan = plan_of(*aligns, *tunes, cells={f"c{i}": [tunes[i]] for i in range(60)})
    prices = {s.ref: still_to_pay(s).micro_usd for s in plan.stages}
    taken: set[object] = set()
    expected, total, waiting = [], 0, list(plan.cells)
    while waiting:
        adds = {c.name: sum(prices[r] for r in plan.needed_by(c) - taken) for c in waiting}  # type: ignore[operator]
        cell = min(waiting, key=lambda cell: adds[cell.name])
        waiting.remove(cell)
        if total + adds[cell.name] <= 200_000_000:
            expected.append(cell.name)
            total += adds[cell.name]
            taken |= plan.needed_by(cell)

    found = admitted(plan, usd=200)

    assert 0 < len(expected) < 60
    assert names(found)[0] == expected
    assert found.reserved.micro_usd == total


def test_what_would_be_left_out_is_said() -> None:
    found = admitted(usd=20, spent=Amount(micro_usd=500_000))

    assert admission_lines(PLAN, found, lambda cell: cell.name) == [
        "budget.usd=20 (cheapest cells first): $0.50 spent before, $9.00 reserved for 1 of 3 "
        "cells, $10.50 free",
        "left out for want of room: 2 of 3 cells; each would add (stages that admitted cells make "
        "are not counted)",
        "  full  $15.00",
        "  lora  $11.00",
    ]
    record = admission_json(found)
    assert record["left_out"][1] == {"cell": "lora", "adds": {"usd": 11.0, "node_hours": 2.0}}
    assert (record["usd"], record["node_hours"], record["reserved"]["usd"]) == (20.0, None, 9.0)


def test_what_was_spent_is_set_against_the_bound() -> None:
    budget = Budget(micro_usd=5_000_000, node_ms=3_600_000)

    assert spent_text(budget, Amount(micro_usd=4_000_000, node_ms=1_800_000)) == (
        "budget.usd=5 budget.node_hours=1: $4.00 and 0.5 node-hours spent, $1.00 and 0.5 "
        "node-hours left"
    )
    assert spent_text(Budget(micro_usd=1_000_000), Amount(micro_usd=1_020_000)) == (
        "budget.usd=1: $1.02 spent, $0.0200 over"
    )
