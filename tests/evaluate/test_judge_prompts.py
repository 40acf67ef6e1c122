"""Prompts of judges are the official ones to the byte."""

from __future__ import annotations

import hashlib
import re

import pytest

from scalesweep.evaluate.judge_prompts import (
    FOLDER,
    fastchat_prompts,
    llava_rules,
    mm_vet_prompt,
)
from tests.evaluate.official import official_samples

LISTED = dict(
    re.findall(
        r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$",
        (FOLDER / "README.md").read_text("utf-8"),
        re.MULTILINE,
    )
)


def test_every_prompt_is_listed_with_its_source() -> None:
    assert set(LISTED) == {file.name for file in FOLDER.iterdir()} - {"README.md"}


@pytest.mark.parametrize("name", LISTED)
def test_a_prompt_has_the_bytes_of_its_source(name: str) -> None:
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == LISTED[name]


@pytest.mark.parametrize(
    ("ours", "official"),
    [
        ("llava_rule.json", "llava_bench/rule.json"),
        ("fastchat_judge_prompts.jsonl", "vicuna80/judge_prompts.jsonl"),
    ],
)
def test_a_prompt_file_is_the_official_one(ours: str, official: str) -> None:
    assert (FOLDER / ours).read_bytes() == (official_samples() / official).read_bytes()


def test_llavas_three_prompts_in_the_wild_are_one() -> None:
    rules = llava_rules()

    wild = {rules[f"llava_bench_{name}"].prompt for name in ("conv", "detail", "complex")}

    assert len(wild) == 1
    assert {rule.role for rule in rules.values()} == {"Assistant"}
    assert set(rules) >= {"coding", "math", "default", "conv", "detail", "complex"}


def test_mm_vets_table_has_seven_example_rows_with_these_scores() -> None:
    rows = mm_vet_prompt().split("--- | --- | --- | ---\n")[1].splitlines()

    scores = [float(row.rsplit(" | ", 1)[1]) for row in rows]
    assert scores == [0.0, 0.5, 0.5, 0.5, 1.0, 0.4, 1.0]
    assert mm_vet_prompt().endswith(" | 1.0\n")
    assert "\n\nQuestion | Ground truth | Prediction | Correctness\n" in mm_vet_prompt()


def test_fastchats_general_prompts_have_a_system_message_of_their_own() -> None:
    prompts = fastchat_prompts()

    assert prompts["single-v1"].system == "You are a helpful assistant."
    assert "{ref_answer_1}" in prompts["single-math-v1"].template
    assert "{ref_answer_1}" not in prompts["pair-v2"].template
