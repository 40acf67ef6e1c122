"""What `hf download` left on this machine is found without the network, and seen through."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file

from scalesweep.errors import ConfigError
from scalesweep.models.hub import (
    HubId,
    cache_folder,
    hub_id,
    snapshot,
    tokenizer_defect,
    weights_defect,
    weights_path,
)
from tests.fakes import hub_cache
from tests.train.small_stages import PATHS

WEIGHTS = Path(PATHS["language_model"])
DECLARED = "hub:some/one@main"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_declared_repository_is_found_in_the_cache(cache: Path) -> None:
    folder = hub_cache.put(cache, "some/one", WEIGHTS)

    assert weights_path(DECLARED, None) == str(folder)
    assert weights_defect(folder) is None


def test_it_is_the_folder_that_the_hubs_own_library_finds(cache: Path) -> None:
    hub_cache.put(cache, "some/one", WEIGHTS, revision="refs/pr/3")

    theirs = snapshot_download(
        "some/one", revision="refs/pr/3", cache_dir=cache, local_files_only=True
    )

    assert weights_path("hub:some/one@refs/pr/3", None) == theirs


def test_a_commit_needs_no_ref(cache: Path) -> None:
    folder = hub_cache.put(cache, "some/one", WEIGHTS)

    assert snapshot(HubId("some/one", hub_cache.COMMIT)) == folder


def test_a_folder_that_is_set_comes_first(cache: Path) -> None:
    hub_cache.put(cache, "some/one", WEIGHTS)

    assert weights_path(DECLARED, "/mine") == "/mine"


@pytest.mark.parametrize("declared", ["hub:some/other@main", "hub:some/one@v2"])
def test_what_is_not_in_the_cache_has_no_folder(cache: Path, declared: str) -> None:
    hub_cache.put(cache, "some/one", WEIGHTS)

    assert weights_path(declared, None) is None


def test_weights_that_are_no_repository_are_not_looked_for() -> None:
    assert hub_id("sha256:00") is None
    assert weights_path("stage", None) is None


@pytest.mark.parametrize("declared", ["hub:one@main", "hub:a/b", "hub:a/b@", "hub:/b@x", "hub:"])
def test_half_an_id_is_refused(declared: str) -> None:
    with pytest.raises(ConfigError, match=r"write hub:owner/name@revision"):
        hub_id(declared)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HF_HOME": "/a"},
        {"XDG_CACHE_HOME": "/a"},
        {"HF_HUB_CACHE": "/a/b", "HF_HOME": "/c"},
        {"HUGGINGFACE_HUB_CACHE": "/old"},
        {"HF_HOME": "$SOMEWHERE/c"},
    ],
    ids=str,
)
def test_the_cache_is_where_the_hubs_own_library_has_it(environ: dict[str, str]) -> None:
    said = subprocess.run(
        [sys.executable, "-c", "from huggingface_hub.constants import *; print(HF_HUB_CACHE)"],
        env={"HOME": "/home/me", "SOMEWHERE": "/else", **environ},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    script = "from scalesweep.models.hub import cache_folder; print(cache_folder())"
    ours = subprocess.run(
        [sys.executable, "-c", script],
        env={"HOME": "/home/me", "SOMEWHERE": "/else", **environ},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    assert ours == said


def in_shards(folder: Path) -> None:
    """Two shards with an index, in place of one file."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    where = {name: f"model-{i % 2 + 1:05d}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(where.values())):
        save_file({k: v for k, v in state.items() if where[k] == file}, folder / file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def pickled(folder: Path) -> Path:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder / "pytorch_model.bin"


SECOND = "model-00002-of-00002.safetensors"
DEFECTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "a byte too few": (lambda f: cut(f / "model.safetensors"), "model.safetensors is cut"),
    "a byte too many": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes() + b"x"
        ),
        "model.safetensors is cut",
    ),
    "other bytes": (
        lambda f: (f / "model.safetensors").write_bytes(b"no weights"), "is no safetensors file"
    ),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "is no safetensors file"),
    "a shard that is not there": (
        lambda f: (in_shards(f), (f / SECOND).unlink()), f"{SECOND} is missing"
    ),
    "a cut shard": (lambda f: (in_shards(f), cut(f / SECOND)), f"{SECOND} is cut"),
    "a broken index": (
        lambda f: (in_shards(f), (f / "model.safetensors.index.json").write_text("{")),
        "model.safetensors.index.json is broken",
    ),
    "a cut pickle": (lambda f: cut(pickled(f)), "pytorch_model.bin is cut"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    copy.mkdir()
    for file in WEIGHTS.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


@pytest.mark.parametrize("name", DEFECTS)
def test_the_first_missing_or_cut_file_is_named(folder: Path, name: str) -> None:
    damage, named = DEFECTS[name]
    damage(folder)

    said = weights_defect(folder)

    assert said is not None
    assert said.startswith(named) or named in said


@pytest.mark.parametrize("change", [in_shards, pickled, lambda _: None])
def test_whole_folders_have_no_defect(folder: Path, change: Callable[[Path], object]) -> None:
    change(folder)

    assert weights_defect(folder) is None


def test_a_link_to_a_blob_that_was_not_fetched_is_a_missing_file(cache: Path) -> None:
    folder = hub_cache.put(cache, "some/one", WEIGHTS)
    blob = (folder / "model.safetensors").resolve()
    blob.rename(blob.with_suffix(".incomplete"))

    assert weights_defect(folder) is not None


def test_a_tokenizers_folder_without_one_names_the_file(tmp_path: Path) -> None:
    assert tokenizer_defect(Path(PATHS["tokenizer"])) is None
    assert str(tokenizer_defect(tmp_path)).startswith("tokenizer.json is missing")


def test_the_default_cache_is_below_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")

    assert cache_folder({}) == Path("/home/me/.cache/huggingface/hub")
