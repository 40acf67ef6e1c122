"""Costs from attempts: by hand, and as a property of any study."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesweep.cost_model.cost import Cost, in_units, share_costs, total
from scalesweep.plan.graph import Cell
from scalesweep.records import Execution, Outcome, StageKind, StageRef, Usage
from scalesweep.report.costs import JudgePay, StageCost, cell_costs, held, stage_cost
from scalesweep.report.ledger import by_payer, ledger_rows
from scalesweep.report.slurm_accounting import IdleRun, StageAccount
from scalesweep.report.stage_results import Attempt, StageResult, StageState

PLANNED = Execution(cluster="slurm", study="later")


def usage(**fields: object) -> Usage:
    return Usage(**{"outcome": Outcome.done, "num_devices": 2, "node_devices": 8, **fields})  # type: ignore[arg-type]


def test_node_hours_are_allocated_devices_over_devices_of_a_node() -> None:
    cost = held(usage(usd_per_node_hour=13.63), seconds=7200)

    # 2 of 8 devices for 2 hours: half a node-hour
    assert cost.node_hours == pytest.approx(0.5)
    assert cost.device_seconds == 14_400
    assert cost.usd == pytest.approx(6.815)


def test_every_attempt_counts_and_repeated_work_is_lost() -> None:
    killed = usage(outcome=Outcome.killed, wall_s=110.0, startup_s=10.0, steps=100)
    resumed = usage(wall_s=90.0, startup_s=10.0, first_step=75, steps=75)

    cost = stage_cost([killed, resumed], published=1)

    assert cost.total.device_seconds == 2 * 200
    assert cost.startup.device_seconds == 2 * 20
    # steps 76 to 100 of 100 were done again: a quarter of 100 s of work
    assert cost.lost.device_seconds == pytest.approx(2 * 25)


@pytest.mark.parametrize(
    ("attempts", "published", "lost_s"),
    [
        pytest.param([usage(wall_s=50.0)], 0, 0, id="done at once"),
        pytest.param([usage(outcome=Outcome.failed, wall_s=50.0)], None, 50, id="failed"),
        pytest.param(
            [usage(outcome=Outcome.interrupted, wall_s=50.0)], None, 0, id="may be resumed yet"
        ),
        pytest.param(
            [usage(outcome=Outcome.killed, wall_s=50.0), usage(wall_s=9.0)],
            1,
            50,
            id="no steps to resume from",
        ),
        pytest.param(
            [usage(wall_s=9.0), usage(outcome=Outcome.killed, wall_s=50.0)],
            0,
            50,
            id="an orphan after the published one",
        ),
        pytest.param(
            [
                usage(outcome=Outcome.interrupted, wall_s=50.0, steps=10),
                usage(wall_s=9.0, first_step=10, steps=5),
            ],
            1,
            0,
            id="resumed without loss",
        ),
    ],
)
def test_lost_work(attempts: list[Usage], published: int | None, lost_s: float) -> None:
    cost = stage_cost(attempts, published=published)

    assert cost.lost.device_seconds == pytest.approx(2 * lost_s)


def cell(name: str, **stages: StageRef) -> Cell:
    return Cell(
        name=name,
        point={},
        config={},
        stages=stages,
        num_trainable_params=1,
        num_params=1,
        num_nodes=1,
    )


def ref(kind: StageKind, key: str) -> StageRef:
    return StageRef(kind=kind, key=key)


def test_three_costs_of_cells_that_share_a_stage() -> None:
    align = ref(StageKind.align, "a")
    tunes = [ref(StageKind.tune, name) for name in "xyz"]
    judge = ref(StageKind.judge, "j")
    stages = {
        align: StageCost(total=Cost(micro_usd=100)),
        **{tune: StageCost(total=Cost(micro_usd=1000 * (i + 1))) for i, tune in enumerate(tunes)},
        judge: StageCost(total=Cost(micro_usd=7)),
    }
    cells = [
        cell("x", align=align, tune=tunes[0], judge=judge),
        cell("y", align=align, tune=tunes[1]),
        cell("z", align=align, tune=tunes[2]),
    ]

    costs = cell_costs(cells, stages)

    assert [costs[name].tune.micro_usd for name in "xyz"] == [1000, 2000, 3000]
    assert [costs[name].standalone.micro_usd for name in "xyz"] == [1107, 2100, 3100]
    # a third of 100 each: 33, and the one left over goes to the first
    assert [costs[name].share.micro_usd for name in "xyz"] == [1041, 2033, 3033]
    assert costs["x"].evaluation.micro_usd == 7


def test_judge_dollars_are_whole_in_each_cell_and_shared_to_the_last_millionth() -> None:
    tunes = [ref(StageKind.tune, name) for name in "xyz"]
    base, own = ref(StageKind.judge, "b"), ref(StageKind.judge, "o")
    cells = [
        cell("x", tune=tunes[0], judge_base=base, judge=own),
        cell("y", tune=tunes[1], judge_base=base),
        cell("z", tune=tunes[2], judge_base=base),
    ]
    pay = {
        base: JudgePay(micro_usd=100, num_replies=4, num_asked=2),
        own: JudgePay(micro_usd=7, unsure_micro_usd=2, num_asked=1, num_unpriced=1),
    }

    costs = cell_costs(cells, {key: StageCost() for key in (*tunes, base, own)}, pay)

    assert [costs[name].judge.micro_usd for name in "xyz"] == [107, 100, 100]
    # a third of 100 each: 33, and the one left over goes to the first
    assert [costs[name].judge_share.micro_usd for name in "xyz"] == [41, 33, 33]
    # the second judge of x has no price, so the sum of x is not known; that of y is
    assert (costs["x"].judge.usd, costs["y"].judge.usd) == (None, 0.0001)
    assert costs["x"].standalone.micro_usd == 0


def test_a_stage_under_two_roles_is_paid_once() -> None:
    data = ref(StageKind.data, "d")
    one = cell("x", **{"data:mini_train": data, "data:mini_test": data})

    costs = cell_costs([one], {data: StageCost(total=Cost(device_ms=5))})

    assert costs["x"].standalone.device_ms == costs["x"].share.device_ms == 5


def test_standalone_is_unchanged_when_cells_are_added() -> None:
    align, tune = ref(StageKind.align, "a"), ref(StageKind.tune, "t")
    other = ref(StageKind.tune, "u")
    stages = {key: StageCost(total=Cost(micro_usd=9)) for key in (align, tune, other)}
    one = cell("one", align=align, tune=tune)
    more = cell("more", align=align, tune=other)

    alone = cell_costs([one], stages)["one"].standalone

    assert cell_costs([one, more], stages)["one"].standalone == alone


@settings(deadline=None, max_examples=60)  # machines are busy
@given(st.data())
def test_shares_add_up_to_the_total(data: st.DataObject) -> None:
    number = st.integers(min_value=0, max_value=10**12)
    keys = [ref(StageKind.tune, f"{i}") for i in range(data.draw(st.integers(1, 8)))]
    stages = {
        key: Cost(
            device_ms=data.draw(number), node_ms=data.draw(number), micro_usd=data.draw(number)
        )
        for key in keys
    }
    subsets = st.lists(st.sampled_from(keys), unique=True)
    needs = {f"cell{i}": data.draw(subsets) for i in range(data.draw(st.integers(1, 9)))}
    needed = {key for refs in needs.values() for key in refs}

    shares = share_costs(needs, stages)

    assert total(shares.values()) == total(stages[key] for key in needed)
    for name, refs in needs.items():
        exact = sum(
            Fraction(stages[key].micro_usd, sum(key in other for other in needs.values()))
            for key in refs
        )
        assert abs(shares[name].micro_usd - exact) < 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20), st.integers(1, 999))
def test_amounts_in_larger_units_add_up_to_the_nearest_sum(amounts: list[int], unit: int) -> None:
    shown = in_units(amounts, unit)

    assert all(abs(a * unit - b) < unit for a, b in zip(shown, amounts, strict=True))
    assert 2 * abs(sum(shown) * unit - sum(amounts)) <= unit


@settings(deadline=None, max_examples=60)  # machines are busy
@given(st.data())
def test_attempts_and_payers_add_up_to_the_study_and_shares_leave_nothing(
    data: st.DataObject,
) -> None:
    seconds = st.floats(0, 1e5)
    devices = st.integers(0, 16)
    attempt = st.builds(
        Usage,
        outcome=st.sampled_from(Outcome),
        wall_s=seconds,
        startup_s=seconds,
        num_devices=devices,
        node_devices=st.integers(1, 8),
        usd_per_node_hour=st.floats(0, 100),
        steps=st.integers(0, 50),
        first_step=st.integers(0, 50),
    )
    stages = []
    for i in range(data.draw(st.integers(1, 5))):
        charged = data.draw(st.lists(attempt, max_size=4))
        published = data.draw(st.sampled_from([None, *range(len(charged))]))
        unused = data.draw(st.lists(attempt, max_size=2))
        idle = [IdleRun(job="1", number=1, usage=one, execution=PLANNED) for one in unused]
        stages.append(_stage(f"{i}", charged, published=published, idle=idle, data=data))
    rows = ledger_rows(stages)
    whole = sum((stage.cost for stage in stages), StageCost())
    needs = [cell(f"c{n}", **{f"r{i}": s.ref for i, s in enumerate(stages)}) for n in range(3)]

    costs = cell_costs(needs, {stage.ref: stage.cost for stage in stages})

    assert sum((row.cost for row in rows), StageCost()) == whole
    assert sum(by_payer(rows).values(), StageCost()) == whole
    assert total(one.share for one in costs.values()) == whole.total
    assert len(rows) == sum(len(s.attempts) + len(s.account.idle) for s in stages if s.account)


def _stage(
    key: str,
    charged: list[Usage],
    *,
    published: int | None,
    idle: list[IdleRun],
    data: st.DataObject,
) -> StageResult:
    payers = st.sampled_from(["", "earlier", "later"])
    return StageResult(
        ref=ref(StageKind.tune, key),
        label=key,
        kind=StageKind.tune,
        state=StageState.missing,
        cause="",
        attempts=tuple(
            Attempt(
                number=i + 1,
                usage=usage,
                charged=usage,
                published=i == published,
                execution={"study": data.draw(payers)},
            )
            for i, usage in enumerate(charged)
        ),
        num_cells=3,
        cost=stage_cost(charged, published=published, idle=[run.usage for run in idle]),
        output=None,
        account=StageAccount(charges=(), idle=tuple(idle)),
    )
