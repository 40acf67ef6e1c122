"""docs/data.md and the config say the same of data sets and weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from scalesweep.config.paths import conf_dir

DOC = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
DATASETS = yaml.safe_load((conf_dir() / "datasets" / "default.yaml").read_text(encoding="utf-8"))
WEIGHTS = [*(conf_dir() / "model").glob("*.yaml"), *(conf_dir() / "resolution").glob("*.yaml")]


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_named_with_its_files_and_where_it_is_from(name: str) -> None:
    declared = DATASETS[name]

    assert f"`{name}`" in DOC
    for file in declared.get("files") or {}:
        assert f"`{file}`" in DOC
    assert declared.get("url", "") in DOC


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_says_its_licence(name: str) -> None:
    licence = DATASETS[name]["licence"]

    assert licence
    if "generator" not in DATASETS[name]:
        assert DATASETS[name]["source"]
        assert licence.partition(";")[0].partition(" by its card")[0] in DOC


@pytest.mark.parametrize("file", WEIGHTS, ids=lambda file: file.stem)
def test_all_weights_say_their_licence_and_where_they_are_from(file: Path) -> None:
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    weights = found.get("model", found)

    assert weights["licence"]
    assert weights["source"]
    if weights["weights"].startswith("hub:"):
        hub = weights["weights"].removeprefix("hub:").partition("@")[0]
        assert f"`{hub}`" in DOC
        assert hub in weights["source"]
