"""What does not fit is refused with the nearest setting that does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scalesweep.cost_model.stage_memory import training_memory
from scalesweep.errors import PlanError
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.device_fit import cell_fits, nearest
from scalesweep.plan.feasible import refuse_impossible
from scalesweep.plan.graph import Plan
from scalesweep.records import StageKind
from scalesweep.specs import Method, TrainingSpec
from tests.config.composing import cell


def plan_of(*words: str) -> Plan:
    config = cell("cluster=azure_nd_a100_v4", *words)
    return build_plan([CellRequest(point={}, config=config)], study="s")


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (("model=65b", "tuning=lora", "zero.stage=2", "nodes=2"), ("zero.stage=3",)),
        (("model=65b", "tuning=full", "nodes=2"), ("batch.micro_batch_tokens=2048",)),
        (("model=65b", "tuning=full", "nodes=1"), ("nodes=2", "batch.micro_batch_tokens=2048")),
        (("model=33b", "tuning=full", "zero.stage=0", "nodes=4"), ("zero.stage=3",)),
    ],
    ids=lambda words: " ".join(words),
)
def test_the_nearest_setting_is_named(words: tuple[str, ...], way_out: tuple[str, ...]) -> None:
    (stage,) = [s for s in plan_of(*words).stages if s.spec.kind is StageKind.tune]

    with pytest.raises(PlanError, match="does not fit") as refused:
        refuse_impossible([stage], None, None, device_memory_gb=85.0)

    assert f"nearest that fits: {' '.join(way_out)}" in str(refused.value)


def test_on_one_small_gpu_another_method_is_the_way_out() -> None:
    (stage,) = [
        s for s in plan_of("model=7b", "tuning=full").stages if s.spec.kind is StageKind.tune
    ]
    spec = TrainingSpec.from_identity(stage.spec.identity)
    one = replace(stage.execution, num_nodes=1, devices_per_node=1, zero_stage=0)

    words = nearest(StageKind.tune, spec, one, device_memory_bytes=24e9)

    assert words[0] in ("tuning=lora", "tuning=qlora")
    assert training_memory(spec, one).device_bytes > 24e9


def test_what_cannot_fit_any_way_has_no_way_out() -> None:
    (stage,) = [s for s in plan_of("model=65b").stages if s.spec.kind is StageKind.tune]
    spec = TrainingSpec.from_identity(stage.spec.identity)

    assert spec.method is not Method.qlora
    assert nearest(StageKind.tune, spec, stage.execution, device_memory_bytes=4e9) == ()


def test_a_plan_tells_of_each_cell_whether_it_fits() -> None:
    bad = cell("cluster=azure_nd_a100_v4", "model=65b", "tuning=lora", "zero.stage=2", "nodes=2")
    good = cell("cluster=azure_nd_a100_v4", "model=65b", "tuning=qlora", "nodes=2")
    plan = build_plan([CellRequest(point={"n": i}, config=c) for i, c in enumerate((bad, good))],
                      study="s")  # fmt: skip

    first, second = (cell_fits(plan)[one.name] for one in plan.cells)

    assert first.startswith("tune does not fit: 155 of 85 GB (weights 133")
    assert first.endswith("nearest that fits: zero.stage=3")
    assert second.startswith("tune fits: ")
