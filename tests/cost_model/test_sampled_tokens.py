"""Files that lie here are sampled where nobody has counted them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalesweep.cost_model import table4
from scalesweep.cost_model.sampled_tokens import MOST_BYTES, sampled_training
from scalesweep.specs import DataSourceSpec, TrainingSpec


def training(**part: Any) -> TrainingSpec:
    """LLaVA-7B at 336 px on one file."""
    source = DataSourceSpec(dataset="mine", file="mine.json", **part)
    return replace(table4.PUBLISHED_RUNS[0].spec, data=[source])


def conversation(asked: int, said: int, *, rounds: int = 1, image: bool = True) -> dict[str, Any]:
    turns = []
    for number in range(rounds):
        mark = "<image>\n" if image and not number else ""
        turns.append({"from": "human", "value": mark + "q" * (asked - len(mark) // 8)})
        turns.append({"from": "gpt", "value": "a" * said})
    return {"id": "1", **({"image": "1.jpg"} if image else {}), "conversations": turns}


def write(folder: Path, items: list[dict[str, Any]]) -> dict[str, Path]:
    (folder / "mine.json").write_text(json.dumps(items, indent=1), encoding="utf-8")
    return {"mine": folder}


def test_tokens_are_characters_by_4_3_and_the_template_around_them(tmp_path: Path) -> None:
    items = [conversation(43, 430, rounds=2), conversation(86, 86, image=False)]

    found = sampled_training(training(), write(tmp_path, items))

    assert found is not None
    assert (found.num_samples, found.pictures, found.source) == (2, 1, "sampled")
    first = 36 + 2 * 9 + 2 * (43 + 430) / 4.3
    second = 36 + 9 + (86 + 86) / 4.3
    assert found.text_tokens == round(first + second)
    assert found.pictured_text_tokens == round(first)
    assert found.squared_text_tokens == round(first**2 + second**2)
    assert found.supervised == round((2 * 430 + 86) / 4.3 + 3)


def test_the_size_of_a_file_says_how_many_samples_it_has(tmp_path: Path) -> None:
    items = [conversation(57, 300 + number % 100, rounds=3) for number in range(3000)]
    roots = write(tmp_path, items)

    found = sampled_training(training(), roots)
    first = sampled_training(training(max_items=1000), roots)

    assert (tmp_path / "mine.json").stat().st_size > 3 * MOST_BYTES
    assert found is not None
    assert found.num_samples == pytest.approx(3000, rel=0.01)
    assert first is not None
    assert first.num_samples == 1000


def test_long_conversations_are_cut_or_become_several(tmp_path: Path) -> None:
    roots = write(tmp_path, [conversation(430, 43_000, image=False)])  # about 10,145 tokens

    cut = sampled_training(training(on_long_item="cut"), roots)
    split = sampled_training(training(on_long_item="split"), roots)

    assert cut is not None
    assert (cut.num_samples, cut.text_tokens) == (1, 2048)
    assert split is not None
    assert (split.num_samples, split.text_tokens) == (5, 36 + 9 + 10_100)


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '[{"id": 1}]', '[{"conversations": [1]}]'])
def test_nothing_is_said_of_a_file_of_another_form(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(text)

    assert sampled_training(training(), {"mine": tmp_path}) is None
    assert sampled_training(training(), {"mine": tmp_path / "elsewhere"}) is None
    assert sampled_training(training(), {}) is None
