"""docs/recipes.md has a row for every setting of a recipe."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from scalesweep.config.align import AlignConfig
from scalesweep.config.base import BaseRecipe
from scalesweep.config.batch import BatchConfig
from scalesweep.config.lora import LoraConfig
from scalesweep.config.optim import OptimConfig
from scalesweep.config.zero import ZeroConfig

DOC = Path(__file__).parents[2] / "docs" / "recipes.md"
DESCRIPTIVE = {"name", "miniature"}


def keys(prefix: str, cls: type) -> Iterator[str]:
    for field in dataclasses.fields(cls):
        if field.name == "optim":
            yield from keys(f"{prefix}.optim", OptimConfig)
        elif field.name not in DESCRIPTIVE:
            yield f"{prefix}.{field.name}"


def test_every_setting_of_a_recipe_has_a_row_with_a_source() -> None:
    rows = re.findall(r"^\| ([\w.]+) \|.*\| ([^|]+) \|$", DOC.read_text(), flags=re.MULTILINE)
    sources = dict(rows)
    wanted = {
        *keys("optim", OptimConfig),
        *keys("batch", BatchConfig),
        *keys("zero", ZeroConfig),
        *keys("lora", LoraConfig),
        *keys("align", AlignConfig),
        *keys("base.language", BaseRecipe),
        "nodes",
        "precision",
        "seed",
    }

    assert wanted - set(sources) == set()
    words = ("paper", "LLaVA script", "FastChat script", "ours", "is used", "are used")
    given = [source for key, source in sources.items() if key != "setting"]
    assert [s for s in given if not any(word in s for word in words)] == []
