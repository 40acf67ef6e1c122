"""A judge that is asked on this machine needs its key before anything is trained for it."""

from __future__ import annotations

import pytest

from scalesweep.errors import PlanError
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.feasible import Machine, refuse_impossible
from scalesweep.plan.graph import PlannedStage
from scalesweep.records import StageKind
from tests.config.composing import cell

HERE = Machine(memory_bytes=10**13, num_devices=8, has_gpu=True)
WORDS = ("model=smollm2_135m", "evaluation=vicuna80", "judge=gpt4", "cluster=local")


def judge_stages(*words: str) -> list[PlannedStage]:
    plan = build_plan([CellRequest(point={}, config=cell(*WORDS, *words))], study="s")
    return [stage for stage in plan.stages if stage.spec.kind is StageKind.judge]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "MY_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_missing_key_is_named_with_the_way_out() -> None:
    with pytest.raises(PlanError) as error:
        refuse_impossible(judge_stages(), HERE)

    assert str(error.value) == (
        "judge.api_key_variable=OPENAI_API_KEY: is not set in the environment, and gpt-4-0314 is "
        "asked here; export OPENAI_API_KEY=..., or stop before with until=generate"
    )


def test_a_key_under_its_own_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-canary")

    refuse_impossible(judge_stages("judge.api_key_variable=MY_KEY"), HERE)


def test_an_endpoint_of_this_machine_needs_no_key() -> None:
    local = ("judge.endpoint=compatible", "judge.base_url='http://127.0.0.1:8000/v1'")

    refuse_impossible(judge_stages(*local), HERE)


def test_what_is_judged_on_another_machine_needs_none_here() -> None:
    refuse_impossible(judge_stages(), None)


def test_no_key_is_part_of_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")

    assert all("sk-canary" not in str(stage.to_json()) for stage in judge_stages())
