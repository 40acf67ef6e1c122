"""Weights that are not here, not whole or another model's are refused before anything starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from scalesweep.errors import PlanError
from scalesweep.models.hub import HubId
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.feasible import refuse_impossible
from scalesweep.plan.graph import Plan
from tests.config.composing import cell
from tests.fakes import hub_cache
from tests.train.small_stages import PATHS

MODEL, TOKENIZER, TOWER = (
    Path(PATHS[role]) for role in ("language_model", "tokenizer", "vision_tower")
)
FROM_HUB = [
    "model=mini_xs",
    "model.weights=hub:some/llama@main",
    "model.tokenizer=hub:some/llama@main",
    "resolution.weights=hub:some/clip@v1",
    "model.path=null",
    "model.tokenizer_path=null",
    "resolution.path=null",
    "base=none",
]
LLAMA, CLIP = HubId("some/llama", "main"), HubId("some/clip", "v1")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def plan_of(*words: str) -> Plan:
    return build_plan([CellRequest(point={}, config=cell(*FROM_HUB, *words))], study="mine")


class Hub:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, **said: str) -> None:
        self.said = {HubId(f"some/{name}", "main"): text for name, text in said.items()}
        self.asked: list[HubId] = []

    def __call__(self, wanted: Sequence[HubId]) -> dict[HubId, str]:
        self.asked += wanted
        return {one: self.said[one] for one in wanted if one in self.said}


def refused(*words: str, hub: Hub | None = None) -> list[str]:
    with pytest.raises(PlanError) as error:
        refuse_impossible(plan_of(*words).stages, None, hub)
    return str(error.value).split("\nscalesweep: ")


def test_weights_in_the_cache_are_read_from_there_and_nobody_is_asked(cache: Path) -> None:
    llama = hub_cache.put(cache, "some/llama", MODEL, TOKENIZER)
    clip = hub_cache.put(cache, "some/clip", TOWER, revision="v1")
    hub = Hub()

    plan = plan_of()
    refuse_impossible(plan.stages, None, hub)

    (tune,) = [stage for stage in plan.stages if stage.spec.kind == "tune"]
    assert tune.execution.paths["language_model"] == str(llama)
    assert tune.execution.paths["tokenizer"] == str(llama)
    assert tune.execution.paths["vision_tower"] == str(clip)
    assert hub.asked == []


def test_folders_that_are_set_need_no_cache_and_nobody_is_asked() -> None:
    hub = Hub()
    plan = plan_of(
        f"model.path={MODEL}", f"model.tokenizer_path={TOKENIZER}", f"resolution.path={TOWER}"
    )

    refuse_impossible(plan.stages, None, hub)

    assert hub.asked == []


def test_where_weights_lie_is_no_part_of_a_stages_key(cache: Path) -> None:
    before = [stage.spec.ref for stage in plan_of().stages]
    hub_cache.put(cache, "some/llama", MODEL, TOKENIZER)

    assert [stage.spec.ref for stage in plan_of().stages] == before


def test_missing_weights_give_one_line_a_download_with_the_words_to_type() -> None:
    hub = Hub()

    assert refused(hub=hub) == [
        "model.weights=hub:some/llama@main: the weights of mini_xs are not here; "
        "`hf download some/llama --revision main`, or set model.path=DIR",
        "resolution.weights=hub:some/clip@v1: the weights of clip_32px are not here; "
        "`hf download some/clip --revision v1`, or set resolution.path=DIR",
    ]
    assert hub.asked == [LLAMA, CLIP]


def test_what_the_hub_says_stands_in_the_line() -> None:
    lines = refused(hub=Hub(llama="some/llama is gated: accept its licence"))

    assert lines[0] == (
        "model.weights=hub:some/llama@main: some/llama is gated: accept its licence; "
        "or set model.path=DIR"
    )


def test_nobody_waits_for_the_hub_where_something_else_is_wrong() -> None:
    hub = Hub()

    refused("datasets.mini_test.generator=null", "+datasets.mini_test.root=/nowhere", hub=hub)

    assert hub.asked == []


def test_a_folder_that_is_not_there_is_named() -> None:
    assert refused("model.path=/nowhere")[0] == (
        "model.path=/nowhere: the weights of mini_xs are not here: no such folder; give theirs, or "
        "leave it null for the hub's cache"
    )


def test_half_a_download_names_the_file_and_how_to_get_it(cache: Path) -> None:
    folder = hub_cache.put(cache, "some/llama", MODEL, TOKENIZER)
    (folder / "model.safetensors").resolve().unlink()

    line = refused()[0]

    assert line.startswith(
        "model.weights=hub:some/llama@main: the weights of mini_xs are not whole: "
        f"{folder}: model.safetensors is missing"
    )
    assert "`hf download some/llama --revision main` again" in line


def test_a_download_without_its_tokenizer_names_it(cache: Path) -> None:
    hub_cache.put(cache, "some/llama", MODEL)

    line = refused()[0]

    assert line.startswith("model.tokenizer=hub:some/llama@main: the tokenizer of mini_xs is not")
    assert "tokenizer.json is missing" in line


def test_another_architecture_is_refused_with_all_differences(cache: Path) -> None:
    folder = hub_cache.put(cache, "some/llama", MODEL, TOKENIZER)
    hub_cache.put(cache, "some/clip", TOWER, revision="v1")

    (line,) = refused("model.hidden_size=64", "model.num_layers=3", "model.num_heads=2")

    assert line.startswith("model.weights=hub:some/llama@main: ")
    assert f"{folder}: is another architecture" in line
    assert "hidden_size is 32, not 64, num_hidden_layers is 2, not 3" in line
    assert "set model.path=DIR" in line


def test_another_kind_of_model_and_of_tower_are_refused(cache: Path) -> None:
    for repository, source, revision in (
        ("some/llama", MODEL, "main"),
        ("some/clip", TOWER, "v1"),
    ):
        parts = [source, TOKENIZER] if source == MODEL else [source]
        config = hub_cache.put(cache, repository, *parts, revision=revision) / "config.json"
        values = json.loads(config.read_text(encoding="utf-8"))
        config.resolve().write_text(json.dumps({**values, "model_type": "siglip"}))

    lines = refused()

    assert "model_type is siglip, not llama" in lines[0]
    assert "model_type is siglip, not clip_vision_model" in lines[1]
