"""What is declared of data that nobody has read, against published figures and drawn data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from scalesweep.cost_model.declared_tokens import declared_training
from scalesweep.cost_model.token_cache import keep_statistics, stage_tokens
from scalesweep.cost_model.token_statistics import TokenStatistics, training_data_key
from scalesweep.data.miniature import generate
from scalesweep.data.samples import load_training_set
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.graph import PlannedStage
from scalesweep.records import StageKind, StageRef
from scalesweep.specs import DataSourceSpec, DataSpec, Method, TrainingSpec
from tests.config.composing import cell

TOKENIZER = Path(__file__).parents[2] / "src/scalesweep/miniature/tokenizer"


@cache
def stages(*overrides: str) -> dict[StageRef, PlannedStage]:
    plan = build_plan([CellRequest(point={}, config=cell(*overrides))], study="declared")
    return {stage.spec.ref: stage for stage in plan.stages}


def tokens_of(
    stage: PlannedStage, planned: dict[StageRef, PlannedStage], *, caches: Sequence[Path] = ()
) -> TokenStatistics | None:
    return stage_tokens(
        stage.spec,
        dataset=lambda ref: DataSpec.from_identity(planned[ref].spec.identity),
        caches=caches,
    )


def known_of(kind: StageKind, *overrides: str, caches: Sequence[Path] = ()) -> TokenStatistics:
    planned = stages(*overrides)
    (stage,) = [s for s in planned.values() if s.spec.kind is kind and "base" not in s.spec.label]
    found = tokens_of(stage, planned, caches=caches)
    assert found is not None
    return found


def mean_tokens(found: TokenStatistics, *, num_patches: int) -> float:
    return found.work(1000, num_patches=num_patches).num_tokens / 1000


def test_a_sample_of_llava_80k_has_916_tokens_at_336_px_and_596_at_224() -> None:
    found = known_of(StageKind.tune, "model=13b", "tuning=lora")

    assert found.num_samples == 80_000
    assert mean_tokens(found, num_patches=576) == 340 + 576 == 916
    assert mean_tokens(found, num_patches=256) == 340 + 256 == 596
    # 2.77 answers of 372.1 characters at 4.3 a token, each with its end: 242.5.
    assert found.supervised / found.num_samples == pytest.approx(242.5, abs=0.1)
    assert found.source == "declared"


def test_sharegpt_adds_as_many_samples_as_40_000_conversations_are_cut_into() -> None:
    mixed = known_of(StageKind.tune, "model=13b", "tuning=lora", "data_mix=llava80k_sharegpt")

    # 40,000 conversations of 2,960 tokens in samples of 1,478.
    assert mixed.num_samples - mixed.pictures == pytest.approx(40_000 * 2960 / 1478, rel=0.001)
    assert mixed.pictures == 80_000


def test_every_stage_of_the_papers_recipes_has_declared_tokens() -> None:
    for words in (
        ("model=13b", "tuning=lora", "evaluation=paper", "judge=gpt4"),
        ("model=65b", "tuning=full", "base=sharegpt", "data_mix=llava80k_sharegpt"),
    ):
        planned = stages(*words)
        for ref, stage in planned.items():
            found = tokens_of(stage, planned)
            assert (found is None) == (ref.kind is StageKind.data), stage.spec.label


def test_questions_of_the_papers_benchmarks_are_those_of_the_official_files() -> None:
    found = known_of(StageKind.generate, "model=13b", "tuning=lora", "evaluation=paper")

    assert found.num_samples == 60 + 218 + 4377 + 80 + 14_042
    assert found.pictures == 60 + 218 + 4377


@pytest.mark.parametrize("turns", [1, 4])
@pytest.mark.parametrize("file", ["captions.json", "instruct.json", "text.json"])
def test_what_is_declared_of_a_drawn_set_is_what_is_counted_in_it(
    file: str, turns: int, tmp_path: Path
) -> None:
    drawn = {"seed": 5, "num_pictures": 400, "num_text": 80, "turns": turns, "density": "sparse"}
    generate("pictures", drawn, tmp_path / "drawn", tick=lambda _: None)
    spec = training("drawn", file, align=file == "captions.json")

    declared = declared_training(
        spec, {"drawn": DataSpec(dataset="drawn", generator="pictures", parameters=drawn)}
    )
    counted = load_training_set(
        spec,
        roots={"drawn": tmp_path / "drawn"},
        tokenizer=AutoTokenizer.from_pretrained(TOKENIZER),
        cache=tmp_path / "cache",
    ).token_sums()

    assert declared is not None
    assert declared.num_samples == counted["num_samples"]
    assert declared.pictures == counted["pictures"]
    for name, sum_ in counted.items():
        assert getattr(declared, name) == pytest.approx(sum_, rel=0.1), name


def test_counted_tokens_of_any_store_go_before_declared_ones(tmp_path: Path) -> None:
    words = ("model=mini_s",)
    (tune,) = [s for s in stages(*words).values() if s.spec.kind is StageKind.tune]
    counted = {**known_of(StageKind.tune, *words).to_json(), "supervised": 7}
    keep_statistics(tmp_path / "second", training_data_key(tune.spec), counted)

    found = known_of(StageKind.tune, *words, caches=[tmp_path / "first", tmp_path / "second"])

    assert (found.supervised, found.source) == (7, "counted")


def test_nothing_is_said_of_a_file_that_nobody_has_read() -> None:
    data = {"mine": DataSpec(dataset="mine", generator=None, parameters={"files": {}})}

    assert declared_training(training("mine", "mine.json"), data) is None


def training(dataset: str, file: str, *, align: bool = False) -> TrainingSpec:
    """A miniature stage on one file."""
    kind = StageKind.align if align else StageKind.tune
    (stage,) = [s for s in stages("model=mini_s").values() if s.spec.kind is kind]
    spec = TrainingSpec.from_identity(stage.spec.identity)
    folder = "" if file == "text.json" else "images"
    part = DataSourceSpec(dataset=dataset, file=file, image_folder=folder)
    assert (spec.method is Method.projector) == align
    return dataclasses.replace(spec, data=[part])
