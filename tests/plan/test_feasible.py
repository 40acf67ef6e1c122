"""What a model takes that answers, by how its weights are held."""

from __future__ import annotations

import pytest

from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.feasible import answering_bytes
from scalesweep.records import StageKind
from scalesweep.specs import GenerateSpec
from tests.config.composing import cell


@pytest.mark.parametrize(
    ("tuning", "low", "high"),
    [
        # 32.5 B parameters at 2 bytes.
        ("full", 64e9, 67e9),
        # The same and fp32 adapters of rank 64.
        ("lora", 65e9, 69e9),
        # Linear layers at 4.127 bits, embeddings and output layer at 2 bytes.
        ("qlora", 17e9, 21e9),
    ],
)
def test_a_model_answers_in_the_form_it_was_tuned_in(tuning: str, low: float, high: float) -> None:
    config = cell("model=33b", f"tuning={tuning}", "evaluation=mmlu")
    plan = build_plan([CellRequest(point={}, config=config)], study="s")
    (tuned, _) = [s for s in plan.stages if s.spec.kind is StageKind.generate]

    assert low < answering_bytes(GenerateSpec.from_identity(tuned.spec.identity)) < high
