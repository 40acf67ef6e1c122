"""How long a plan takes: the longest chain, and less than that on no number of devices."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesweep.errors import PlanError
from scalesweep.plan.critical_path import wall_time
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.records import Predicted
from tests.fakes.plans import plan_of, stage


def lasting(seconds: float, planned: PlannedStage) -> PlannedStage:
    found = Predicted(
        startup_s=0.0, work_s=seconds, flops=0.0, device_bytes=0.0, host_bytes=0.0,
        node_hours=0.0, usd=0.0,
    )  # fmt: skip
    execution = dataclasses.replace(planned.execution, predicted=found)
    return dataclasses.replace(planned, execution=execution)


def a_study() -> tuple[Plan, list[PlannedStage]]:
    """base -> two tunes on two devices each -> a short stage each."""
    base = lasting(10, stage("base"))
    tunes = [lasting(100, stage(f"tune{i}", after=[base], devices=2)) for i in range(2)]
    last = [lasting(5, stage(f"judge{i}", after=[tune])) for i, tune in enumerate(tunes)]
    return plan_of(base, *tunes, *last), [base, *tunes, *last]


def test_with_enough_devices_a_study_takes_its_longest_chain() -> None:
    plan, _ = a_study()

    assert wall_time(plan, frozenset()).wall_s == 10 + 100 + 5
    assert wall_time(plan, frozenset(), num_devices=4).wall_s == 115


def test_stages_that_do_not_fit_beside_each_other_wait() -> None:
    plan, _ = a_study()

    found = wall_time(plan, frozenset(), num_devices=2)

    assert found.wall_s == 10 + 100 + 100 + 5  # the first judge waits for both devices' stage
    assert found.critical_path_s == 115


def test_a_small_stage_goes_past_a_large_one_that_does_not_fit() -> None:
    long = lasting(50, stage("long"))
    large = lasting(30, stage("large", devices=2))
    small = lasting(20, stage("small"))

    # The small one beside the long one, and not after the large one.
    assert wall_time(plan_of(long, large, small), frozenset(), num_devices=2).wall_s == 80


def test_what_is_done_takes_no_time() -> None:
    plan, (base, first, *_) = a_study()

    assert wall_time(plan, {base.ref, first.ref}).wall_s == 105


def test_a_stage_that_takes_more_than_there_is_is_refused() -> None:
    plan, _ = a_study()

    with pytest.raises(PlanError, match="--nodes: tune0 alone takes 2 devices"):
        wall_time(plan, frozenset(), num_devices=1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lasts=st.lists(st.integers(0, 20), min_size=1, max_size=8),
    devices=st.lists(st.integers(0, 3), min_size=8, max_size=8),
    parents=st.lists(st.integers(0, 7), min_size=8, max_size=8),
    num_devices=st.integers(3, 6),
)
def test_no_schedule_beats_the_chain_or_the_devices(
    lasts: list[int], devices: list[int], parents: list[int], num_devices: int
) -> None:
    stages: list[PlannedStage] = []
    for i, seconds in enumerate(lasts):
        after = [stages[parents[i]]] if parents[i] < i else []
        stages.append(lasting(seconds, stage(f"s{i}", after=after, devices=devices[i])))

    found = wall_time(plan_of(*stages), frozenset(), num_devices=num_devices)

    area = sum(seconds * devices[i] for i, seconds in enumerate(lasts)) / num_devices
    assert max(found.critical_path_s, area) <= found.wall_s + 1e-9
    assert found.wall_s <= sum(lasts)
