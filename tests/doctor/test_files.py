"""Every file and weight of a plan: there, missing or broken, once each, with the way to get it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scalesweep.config.paths import miniature_path
from scalesweep.config.run import RunConfig
from scalesweep.doctor import files
from scalesweep.doctor.files import Group, Presence, look_at, plan_files
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.graph import Plan
from scalesweep.rundir import sha256_of
from tests.config.composing import cell


def plan_of(*configs: RunConfig) -> Plan:
    requests = [
        CellRequest(point={"number": number}, config=config)
        for number, config in enumerate(configs)
    ]
    return build_plan(requests, study="looked_at")


def full_size(root: Path, *words: str) -> RunConfig:
    return cell(
        "model=13b",
        "until=tune",
        f"datasets.llava80k.root={root}/llava80k",
        f"datasets.lcs558k.root={root}/lcs558k",
        *words,
    )


def groups(plan: Plan, *, hash_all: bool = False) -> dict[str, Group]:
    found = plan_files(plan, hash_all=hash_all)
    assert len({group.name for group in found}) == len(found)
    return {group.name: group for group in found}


def test_what_a_miniature_needs_is_shipped_or_drawn() -> None:
    found = groups(plan_of(cell("model=mini_s"), cell("model=mini_s", "tuning=lora")))

    assert list(found) == [
        "mini_s (language model)",
        "mini_s (tokenizer)",
        "clip_32px (tower)",
        "mini_train",
        "mini_test",
    ]
    assert all(group.is_whole for group in found.values())
    assert all(group.needed_by == 2 for group in found.values())
    assert found["mini_train"].files[0].presence is Presence.made
    weights = found["mini_s (language model)"].files[0]
    assert weights.found == weights.declared
    assert weights.size is not None
    assert weights.size > 100_000


def test_missing_files_are_named_with_source_licence_and_the_way_to_get_them(
    tmp_path: Path,
) -> None:
    found = groups(plan_of(full_size(tmp_path)))

    data = found["llava80k"]
    assert [Path(file.path).name for file in data.files] == ["llava_instruct_80k.json", "train2017"]
    assert {file.presence for file in data.files} == {Presence.missing}
    assert data.source.endswith("https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K")
    assert "CC BY" in data.licence
    assert data.way_to_get == (f"fetch it to {tmp_path}/llava80k, or set datasets.llava80k.root")
    model = found["13b (language model)"]
    assert model.files[0].presence is Presence.missing
    assert model.way_to_get == "hf download lmsys/vicuna-13b-v1.3, or model.path=DIR"


def test_weights_that_several_sizes_share_are_needed_by_the_cells_of_all(tmp_path: Path) -> None:
    found = groups(plan_of(full_size(tmp_path), full_size(tmp_path, "model=7b")))

    assert found["13b (language model)"].needed_by == 1
    assert found["clip_336px (tower)"].needed_by == 2
    assert found["llava80k"].needed_by == 2


def test_a_revision_that_is_pinned_is_fetched(tmp_path: Path) -> None:
    config = full_size(
        tmp_path, "model.weights=hub:a/b@0123", "model.tokenizer=hub:a/b@0123", "model.path=/w"
    )

    assert groups(plan_of(config))["13b (language model)"].way_to_get == (
        "hf download a/b --revision 0123 --local-dir /w, and model.path=/w"
    )


def test_files_that_are_there_are_counted_and_hashed(tmp_path: Path) -> None:
    root = tmp_path / "llava80k"
    (root / "train2017").mkdir(parents=True)
    (root / "train2017" / "1.jpg").write_bytes(b"x")
    file = root / "llava_instruct_80k.json"
    file.write_text(json.dumps([{"id": "1"}, {"id": "2"}]))

    text, pictures = groups(plan_of(full_size(tmp_path)))["llava80k"].files

    assert (text.presence, text.items, text.size) == (Presence.there, 2, file.stat().st_size)
    assert text.found == f"sha256:{sha256_of(file)}"
    assert pictures.presence is Presence.there
    assert (pictures.items, pictures.said) == (None, "not counted (--hash does)")
    counted = groups(plan_of(full_size(tmp_path)), hash_all=True)["llava80k"].files[1]
    assert counted.items == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (b'[{"id": 1}', "cannot be read"),
        (b"\xff\xfe[]", "cannot be read"),
        (b"[]", "is empty"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)

    found = look_at(file, hash_all=False)

    assert found.presence is Presence.broken
    assert found.said.startswith(said)


def test_a_file_that_is_not_the_declared_one_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": 1}\n\n{"a": 2}\n')
    right = f"sha256:{sha256_of(file)}"

    assert look_at(file, declared=right, hash_all=False).presence is Presence.there
    assert look_at(file, declared=right, hash_all=False).items == 2
    found = look_at(file, declared="sha256:" + "0" * 64, hash_all=False)
    assert (found.presence, found.said) == (Presence.broken, "is not the declared file")


def test_large_files_are_hashed_only_when_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "HASHED_BYTES", 4)
    file = tmp_path / "a.tsv"
    file.write_text("12345")
    declared = "sha256:" + "0" * 64

    found = look_at(file, declared=declared, hash_all=False)
    assert (found.presence, found.found) == (Presence.there, "")
    assert found.said == "not hashed (--hash does)"
    assert look_at(file, declared=declared, hash_all=True).presence is Presence.broken


def test_a_link_to_nothing_is_missing_and_an_empty_folder_broken(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "gone")
    (tmp_path / "folder").mkdir()

    assert look_at(tmp_path / "link.json", hash_all=False).said == "is a link to nothing"
    assert look_at(tmp_path / "folder", hash_all=False).presence is Presence.broken


def mini(weights: Path, *, declared: str = "hub:a/b@main") -> Group:
    """The language model of a miniature whose weights are said to lie somewhere else."""
    plan = plan_of(
        cell("model=mini_s", f"model.path={weights}", f"model.weights='{declared}'"),
    )
    return groups(plan)["mini_s (language model)"]


def test_weights_of_another_architecture_are_broken() -> None:
    found = mini(Path(miniature_path("mini_m"))).files[0]

    assert found.presence is Presence.broken
    assert "hidden_size is" in found.said


def test_weights_that_lack_a_shard_are_broken(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(miniature_path("mini_s"), folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))

    found = mini(folder).files[0]

    assert found.presence is Presence.broken
    assert found.said == "model-00002-of-00002.safetensors is missing"


def test_a_folder_without_weights_is_broken(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(miniature_path("mini_s"), folder)
    (folder / "model.safetensors").unlink()

    assert mini(folder).files[0].said.startswith("model.safetensors is missing")


def test_weights_whose_bytes_are_not_the_declared_ones_are_broken() -> None:
    group = mini(Path(miniature_path("mini_s")), declared="sha256:" + "0" * 64)

    assert group.files[0].said == "is not what was declared"
    assert group.way_to_get == "restore the folder, or set model.path"
