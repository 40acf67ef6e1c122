"""Token statistics of a file of conversations from its first megabytes, without a tokenizer.

What a plan can afford on a login node: characters are counted, tokens are those divided by
CHARACTERS_PER_TOKEN, and the number of samples is the file's size divided by the size of those
that were read. Files whose first samples are unlike the others mislead it; whoever trains on the
file counts it (cost_model/token_cache.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from scalesweep.cost_model.declared_tokens import (
    CHARACTERS_PER_TOKEN,
    ROUND_TOKENS,
    SYSTEM_TOKENS,
)
from scalesweep.cost_model.token_statistics import SAMPLED, TokenStatistics
from scalesweep.specs import DataSourceSpec, Method, TrainingSpec

MOST_BYTES = 2**19
"""Read of each file: about 320 samples of LLaVA-80K, whose mean is known to 2 %."""
IMAGE = "<image>"


@dataclass(frozen=True, kw_only=True)
class _Sample:
    text: float
    supervised: float
    pictured: bool


def sampled_training(spec: TrainingSpec, roots: Mapping[str, Path]) -> TokenStatistics | None:
    """Of a training stage's samples; None where a file of it is not there or cannot be read so.

    roots: folders of its data sets by name.
    """
    if spec.method is Method.tower:
        return None
    totals = dict.fromkeys(
        ("num_samples", "text", "squares", "pictures", "pictured_text", "supervised"), 0.0
    )
    for part in spec.data:
        root = roots.get(part.dataset)
        samples, weight = _samples(root / part.file, part, spec) if root is not None else ([], 0.0)
        if not samples:
            return None
        for sample in samples:
            totals["num_samples"] += weight
            totals["text"] += weight * sample.text
            totals["squares"] += weight * sample.text**2
            totals["pictures"] += weight * sample.pictured
            totals["pictured_text"] += weight * sample.text * sample.pictured
            totals["supervised"] += weight * sample.supervised
    return TokenStatistics(
        num_samples=max(round(totals["num_samples"]), 1),
        text_tokens=round(totals["text"]),
        squared_text_tokens=round(totals["squares"]),
        pictures=round(totals["pictures"]),
        pictured_text_tokens=round(totals["pictured_text"]),
        supervised=round(totals["supervised"]),
        source=SAMPLED,
    )


def _samples(path: Path, part: DataSourceSpec, spec: TrainingSpec) -> tuple[list[_Sample], float]:
    """Samples of the beginning of a file, and how many of all each stands for."""
    try:
        status = path.stat()
        items, number = _beginning(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return [], 0.0
    if part.max_items is not None:
        items = items[: part.max_items]
        number = min(number, part.max_items)
    try:
        samples = [sample for item in items for sample in _of_item(item, part, spec)]
    except (KeyError, TypeError, AttributeError):
        return [], 0.0
    return samples, number / len(items) if items else 0.0


@lru_cache(maxsize=16)
def _beginning(path: Path, size: int, changed: int) -> tuple[Sequence[Mapping[str, Any]], float]:
    """The first items of a file, and how many it has; read once for each state of it."""
    del changed
    with path.open("rb") as file:
        begin = file.read(MOST_BYTES)
    items, read = list[Mapping[str, Any]](), 0
    for item, end in _items(begin.decode("utf-8", errors="ignore")):
        items.append(item)
        read = end
    whole = len(begin) == size
    return items, float(len(items)) if whole or not read else len(items) * size / read


def _items(text: str) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Whole items of a JSON array that may be cut, each with the bytes up to its end."""
    decoder = json.JSONDecoder()
    at, size = text.find("[") + 1, 0
    while at:
        begin = at
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        try:
            item, at = decoder.raw_decode(text, at)
        except ValueError:
            return
        size += len(text[begin:at].encode())
        yield item, size


def _of_item(item: Mapping[str, Any], part: DataSourceSpec, spec: TrainingSpec) -> list[_Sample]:
    """One conversation: a sample, or several where long ones are split."""
    turns = [(turn["from"], str(turn["value"])) for turn in item["conversations"]]
    answers = [said for who, said in turns if who == "gpt"]
    if not answers:
        return []
    pictured = "image" in item and spec.tower is not None
    learned = sum(len(said) for said in answers) / CHARACTERS_PER_TOKEN + len(answers)
    if spec.template == "plain":
        text = learned + 1
    else:
        characters = sum(len(said.replace(IMAGE, "")) for _, said in turns)
        text = SYSTEM_TOKENS + ROUND_TOKENS * len(answers) + characters / CHARACTERS_PER_TOKEN
    if spec.prompt_loss_weight > 0:
        learned = text - 1
    patches = spec.tower.num_patches if pictured and spec.tower is not None else 0
    room = max(spec.max_seq_len - patches, 1)
    parts = -(-text // room) if part.on_long_item == "split" else 1.0
    kept = min(text / parts, room)
    share = kept / text
    return [_Sample(text=kept, supervised=learned * share, pictured=pictured)] * int(parts)
