"""docs/recipes.md has a row for every setting of a recipe, with the value it has."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scalesweep.config.align import AlignConfig
from scalesweep.config.base import BaseRecipe
from scalesweep.config.batch import BatchConfig
from scalesweep.config.lora import LoraConfig
from scalesweep.config.optim import OptimConfig
from scalesweep.config.zero import ZeroConfig
from tests.config.composing import cell

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


MODELS = ("7b", "13b", "33b", "65b", "70b", "mini_xs", "mini_s", "mini_m", "smollm2_135m")
TUNING = ("full", "lora", "qlora")
CHECKED = ("optim.", "batch.", "zero.", "lora.", "align.", "base.language.", "nodes", "precision")
PROSE = {  # written in words
    *("lora.alpha", "lora.targets", "align.sources", "align.seed"),
    *("base.language.sources", "base.language.micro_batch_size"),
    *("batch.micro_batch_size", "align.micro_batch_size"),
}
MISSING = object()


def documented() -> dict[str, set[str]]:
    """Setting -> the values that its rows give, as YAML scalars in one form."""
    values = defaultdict[str, set[str]](set)
    for key, text in re.findall(r"^\| ([\w.]+) \| ([^|]+) \|", DOC.read_text(), re.MULTILINE):
        if key.startswith(CHECKED) and key not in PROSE and ".sources." not in key:
            for part in [text] if text.startswith("[") else re.split("[,;] ", text):
                values[key].add(in_one_form(yaml.safe_load(part.removesuffix(" with text"))))
    return values


def in_one_form(value: object) -> str:
    """ "1.0e-4" as YAML reads it, 1e-4 as a doc writes it, and 0.0001 are one."""
    if isinstance(value, list):
        return str([in_one_form(item) for item in value])
    try:
        return f"{float(value):g}"  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)


def used() -> dict[str, set[str]]:
    """Setting -> the values that it has in any cell of the shipped recipes."""
    values = defaultdict[str, set[str]](set)
    wanted = documented()
    cells = [cell(f"model={m}", f"tuning={t}") for m in MODELS for t in TUNING]
    cells += [cell(f"model={m}", "base=mini") for m in MODELS if m.startswith("mini")]
    cells += [cell("model=mini_s", "data_mix=mini")]
    for config in cells:
        for key in wanted:
            place: Any = config
            for name in key.split("."):
                place = getattr(place, name, MISSING)
            if place not in (MISSING, None):  # what is not set needs no row
                values[key].add(in_one_form(place))
    return values


def test_documented_values_are_the_shipped_ones() -> None:
    rows, values = documented(), used()

    assert len(rows) > 40
    undocumented = {key: values[key] - rows[key] for key in rows if values[key] - rows[key]}
    stale = {key: more for key in rows if (more := rows[key] - values[key] - {"None"})}
    assert (undocumented, stale) == ({}, {})
