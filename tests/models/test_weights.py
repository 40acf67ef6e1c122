"""Weights are where they are declared to be, and are what they are declared to be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from scalesweep.config.paths import miniature_identity
from scalesweep.errors import StageError
from scalesweep.models.build import load_language_model, load_vision_tower
from scalesweep.models.weights import check_vision_tower, folder_digest, weights_folder
from scalesweep.records import Done
from scalesweep.rundir import output_files
from tests.train.small_stages import PATHS, model_spec, tower_spec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the smallest shipped language model."""
    return Path(shutil.copytree(PATHS["language_model"], tmp_path / "model"))


def find(folder: Path, declared: str) -> Path:
    return weights_folder(
        "language_model", declared, paths={"language_model": str(folder)}, inputs={}
    )


def test_a_digest_is_that_of_a_stage_with_the_same_files(folder: Path) -> None:
    done = Done(attempt=1, files=output_files(folder))

    assert folder_digest(folder) == done.digest
    assert miniature_identity("mini_xs") == f"sha256:{done.digest}"


def test_weights_with_the_declared_bytes_are_found(folder: Path) -> None:
    assert find(folder, miniature_identity("mini_xs")) == folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_weights_with_another_byte_are_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(StageError, match=r"language_model: .* is not what was declared \(sha256"):
        find(folder, miniature_identity("mini_xs"))


def test_a_stray_file_is_refused_too(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine", encoding="utf-8")

    with pytest.raises(StageError, match="restore the files, or declare the new weights"):
        find(folder, miniature_identity("mini_xs"))


def test_what_the_hub_holds_is_taken_at_its_word(folder: Path) -> None:
    assert find(folder, "hub:lmsys/vicuna-7b-v1.3@main") == folder


def test_a_missing_folder_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"language_model: .*gone is no folder; set model\.path"):
        find(tmp_path / "gone", "hub:lmsys/vicuna-7b-v1.3@main")


@pytest.mark.parametrize(
    ("role", "setting"),
    [
        ("language_model", "model.path"),
        ("vision_tower", "resolution.path"),
        ("tokenizer", "model.tokenizer_path"),
    ],
)
def test_weights_without_a_folder_here_say_what_to_do(role: str, setting: str) -> None:
    with pytest.raises(StageError, match=f"{role}: hub:a/b@main has no folder .* set {setting}"):
        weights_folder(role, "hub:a/b@main", paths={}, inputs={})


def test_weights_of_a_stage_are_its_output(tmp_path: Path) -> None:
    found = weights_folder("language_model", "stage", paths={}, inputs={"language_model": tmp_path})

    assert found == tmp_path


def load(folder: Path, **changes: Any) -> Any:
    return load_language_model(model_spec(**changes), folder, dtype=torch.float32)


def test_another_architecture_is_refused_and_all_differences_are_named(folder: Path) -> None:
    with pytest.raises(StageError) as error:
        load(folder, hidden_size=64, num_layers=3)

    assert "hidden_size is 32, not 64, num_hidden_layers is 2, not 3" in str(error.value)


def test_another_tower_is_refused() -> None:
    with pytest.raises(StageError, match="image_size is 32, not 48"):
        load_vision_tower(
            tower_spec(image_size=48), Path(PATHS["vision_tower"]), dtype=torch.float32
        )


def test_a_tower_may_lie_in_the_folder_of_a_whole_clip(tmp_path: Path) -> None:
    vision = json.loads((Path(PATHS["vision_tower"]) / "config.json").read_text("utf-8"))
    config = {"text_config": {"hidden_size": 99}, "vision_config": vision, "model_type": "clip"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")

    check_vision_tower(tower_spec(), tmp_path)

    with pytest.raises(StageError, match="hidden_size is 64, not 1024"):
        check_vision_tower(tower_spec(hidden_size=1024), tmp_path)


def test_another_kind_of_model_of_the_same_shape_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mistral"}))

    with pytest.raises(StageError, match="model_type is mistral, not llama"):
        load(folder)


def test_what_a_config_leaves_out_is_what_transformers_takes_for_it(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for key in ("num_attention_heads", "num_key_value_heads", "head_dim"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(StageError, match="num_attention_heads is 32, not 2"):
        load(folder)


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_a_folder_without_a_readable_config_is_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)

    with pytest.raises(StageError, match=r"has no readable config\.json"):
        load(tmp_path)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(StageError, match="the weights cannot be read"):
        load(folder)


def test_missing_weights_are_refused_instead_of_drawn_at_random(folder: Path) -> None:
    file = folder / "model.safetensors"
    state = load_file(file)
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, file, metadata={"format": "pt"})

    with pytest.raises(StageError, match=r"1 weights .* missing, model\.layers\.1\.mlp\.up_proj"):
        load(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    state = load_file(file)
    state["lm_head.weight"] = state["lm_head.weight"][:100].contiguous()
    save_file(state, file, metadata={"format": "pt"})

    with pytest.raises(
        StageError, match=r"lm_head.weight has the shape \[100, 32\], not \[132, 32\]"
    ):
        load(folder)
