"""Which measured runs a stage to come is most like, and what they say of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scalesweep.cost_model.speeds import MeasuredRun, Speed, Speeds, Traits
from scalesweep.records import StageKind, StageRef

LORA = Traits(
    kind=StageKind.tune,
    method="lora",
    model="mini_m:3x64",
    tower="clip_32px:32x4x64",
    device="cpu",
)


def run(
    key: str, *, work_s: float, flops: float = 1e9, traits: Traits = LORA, units: float = 10
) -> MeasuredRun:
    return MeasuredRun(
        ref=StageRef(kind=traits.kind, key=key),
        traits=traits,
        flops=flops,
        units=units,
        startup_s=work_s / 10,
        work_s=work_s,
    )


def whole(speed: Speed) -> float:
    """Expected of a stage that does what the runs here did."""
    return speed.work_s(flops=1e9, units=10, num_devices=1)


def test_the_median_of_alike_runs_scales_with_what_is_to_do() -> None:
    speeds = Speeds(runs=(run("a", work_s=10), run("b", work_s=12), run("c", work_s=90)))

    speed = speeds.of(LORA)

    assert speed is not None
    assert speed.work_s(flops=5e8, units=10, num_devices=1) == pytest.approx(6)  # 12 s / 2
    assert speed.work_s(flops=1e9, units=20, num_devices=1) == pytest.approx(12)
    assert speed.startup_s == pytest.approx(1.2)
    assert speed.basis == "measured: 3 tune lora runs of mini_m 32px here"
    # 1e9 FLOP in 12 s, of a device that could do 1e9 a second.
    assert speed.efficiency(1e9) == pytest.approx(1 / 12)


def test_work_of_several_devices_counts_for_each_of_them() -> None:
    on_four = replace(LORA, num_devices=4)
    speed = Speeds(runs=(run("a", work_s=10, traits=on_four),)).of(replace(LORA, num_devices=2))

    assert speed is not None
    assert speed.work_s(flops=1e9, units=0, num_devices=2) == pytest.approx(20)


@pytest.mark.parametrize(
    ("other", "basis"),
    [
        ({}, "measured: 1 tune lora run of mini_m 32px here"),
        ({"num_devices": 4}, "measured: 1 tune lora run of mini_m 32px here"),
        ({"model": "mini_s:3x64"}, "measured: 1 tune lora run here"),
        ({"tower": "clip_48px:48x4x64"}, "measured: 1 tune lora run here"),
        ({"method": "full"}, "measured: 1 tune run here"),
        ({"device": "A100-80GB"}, None),
        ({"device": "", "cluster": "there"}, None),
        ({"kind": StageKind.align}, None),
    ],
)
def test_what_is_less_alike_says_so_and_other_hardware_says_nothing(
    other: dict[str, object], basis: str | None
) -> None:
    speed = Speeds(runs=(run("a", work_s=10),)).of(replace(LORA, **other))  # type: ignore[arg-type]

    assert (speed and speed.basis) == basis


def test_the_most_alike_runs_are_taken_even_if_they_are_fewer() -> None:
    small = replace(LORA, model="mini_s:3x64")
    runs = (*(run(str(i), work_s=1, traits=small) for i in range(9)), run("own", work_s=10))

    speed = Speeds(runs=runs).of(LORA)

    assert speed is not None
    assert whole(speed) == 10


def test_without_a_stage_its_own_time_is_not_in_what_is_said_of_it() -> None:
    small = replace(LORA, model="mini_s:3x64")
    runs = (run("own", work_s=10), run("other", work_s=3, traits=small))

    speed = Speeds(runs=runs).without(StageRef(kind=StageKind.tune, key="own")).of(LORA)

    assert speed is not None
    assert whole(speed) == 3


def test_where_no_flops_are_counted_units_are() -> None:
    judge = Traits(kind=StageKind.judge, method="exact_match", device="cpu")
    speed = Speeds(runs=(run("a", work_s=2, flops=0, units=100, traits=judge),)).of(judge)

    assert speed is not None
    assert speed.work_s(flops=0, units=50, num_devices=1) == pytest.approx(1)
    assert speed.work_s(flops=0, units=0, num_devices=1) == 2  # a run as a whole


def test_declared_speeds_know_nothing() -> None:
    assert Speeds.declared().of(LORA) is None


def test_where_steps_are_short_time_grows_slower_than_their_flops() -> None:
    # Ten steps; each takes 1 s and another for every 1e8 FLOPs.
    runs = tuple(
        run(str(size), work_s=10 * (1 + size), flops=size * 1e9) for size in (0.5, 1, 2, 4)
    )
    speed = Speeds(runs=runs).of(LORA)

    assert speed is not None
    # Times 15, 20, 30, 50. Slopes to the next size: log2(20/15) = .415, log2(30/20) = .585,
    # log2(50/30) = .737; over two: .5, .661; over all three: .579. The median is (.579 + .585) / 2.
    assert speed.exponent == pytest.approx(0.582, abs=0.001)
    larger = speed.work_s(flops=8e9, units=10, num_devices=1)
    assert larger == pytest.approx(90, rel=0.25)


def test_of_two_sizes_nothing_is_said_of_how_time_grows() -> None:
    runs = (run("a", work_s=10, flops=1e9), run("b", work_s=11, flops=4e9))

    speed = Speeds(runs=runs).of(LORA)

    assert speed is not None
    assert speed.exponent == 1
