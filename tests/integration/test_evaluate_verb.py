"""Checkpoints are evaluated by the command, outside any study, and say what they say in one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from scalesweep.config.paths import miniature_path
from scalesweep.plan.graph import Cell
from tests.conftest import Undisturbed
from tests.integration.tiny_study import TINY, count_attempts, plan_in, store_of, typed
from tests.models.test_external import adapters, with_tokenizer

pytestmark = pytest.mark.slow

QUESTIONS = tuple(word for word in TINY if word.startswith("datasets.mini_test"))
LINE = (*QUESTIONS, "tracking=none")


def cell_of(folder: Path, tuning: str) -> Cell:
    (cell,) = (cell for cell in plan_in(folder).cells if cell.point.get("tuning") == tuning)
    return cell


def texts(answers: Path) -> dict[str, list[str]]:
    """Benchmark -> what was answered, in the order of the questions."""
    return {
        file.stem: [json.loads(line)["text"] for line in file.read_text("utf-8").splitlines()]
        for file in sorted(answers.glob("*.jsonl"))
    }


def evaluated(folder: Path, study: str) -> dict[str, list[str]]:
    (cell,) = plan_in(folder, study).cells
    return texts(store_of(folder).stage(cell.stages["generate"]).output() / "answers")


def test_a_checkpoint_of_a_study_is_not_asked_again(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.copy(tmp_path)
    cell, before = cell_of(folder, "lora"), count_attempts(folder)
    tune = store_of(folder).stage(cell.stages["tune"]).path.relative_to(folder)

    ended = typed(folder, "evaluate", str(tune), *LINE, "study=again")

    assert ended.returncode == 0, ended.stderr
    assert "questions about pictures: " in ended.stdout
    assert "0 new attempts" in ended.stdout
    assert count_attempts(folder) == before
    (ours,) = plan_in(folder, "again").cells
    assert {role: ours.stages[role] for role in ("generate", "judge", "tune", "align")} == {
        role: cell.stages[role] for role in ("generate", "judge", "tune", "align")
    }
    for verb in ("status", "report", "judge"):
        assert typed(folder, verb, "again").returncode == 0


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_what_was_exported_says_what_its_cell_says_and_is_asked_once(
    undisturbed: Undisturbed, tmp_path: Path, tuning: str
) -> None:
    cell = cell_of(undisturbed.folder, tuning)
    exported = typed(undisturbed.folder, "export", cell.name, str(tmp_path / "model"))
    assert exported.returncode == 0, exported.stderr
    line = ("evaluate", "model", *LINE, "study=mine")

    ended = typed(tmp_path, *line)
    attempts = count_attempts(tmp_path)
    again = typed(tmp_path, *line)

    assert ended.returncode == 0, ended.stderr
    said = texts(store_of(undisturbed.folder).stage(cell.stages["generate"]).output() / "answers")
    assert evaluated(tmp_path, "mine") == said
    assert len(set(said["mini_vqa"])) > 1
    assert again.returncode == 0, again.stderr
    assert "all 3 stages were done; 0 new attempts" in again.stdout
    assert count_attempts(tmp_path) == attempts == 3


def test_a_model_over_two_devices_gives_the_same_bytes(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    cell = cell_of(undisturbed.folder, "full")
    typed(undisturbed.folder, "export", cell.name, str(tmp_path / "model"))
    split = ("evaluation.devices_per_replica=2", "cluster.stage_devices=2")

    ended = typed(tmp_path, "evaluate", "model", *LINE, "study=mine", *split)

    assert ended.returncode == 0, ended.stderr
    (ours,) = plan_in(tmp_path, "mine").cells
    output = store_of(tmp_path).stage(ours.stages["generate"]).output()
    times = json.loads((output.parent / "generation.json").read_text("utf-8"))
    assert times["devices_per_replica"] == 2
    assert texts(output / "answers") == texts(
        store_of(undisturbed.folder).stage(cell.stages["generate"]).output() / "answers"
    )


def test_a_language_model_and_adapters_over_it_are_asked_text(tmp_path: Path) -> None:
    shutil.copytree(miniature_path("mini_xs"), tmp_path / "llama")
    with_tokenizer(tmp_path / "llama")
    adapters(tmp_path / "adapters", tmp_path / "llama", LlamaForCausalLM)

    for name in ("llama", "adapters"):
        ended = typed(tmp_path, "evaluate", name, *LINE, "template=mini", f"study={name}")
        assert ended.returncode == 0, ended.stderr
        assert "questions without a picture: " in ended.stdout
        assert "questions about pictures: " not in ended.stdout

    said = {name: evaluated(tmp_path, name)["mini_text"] for name in ("llama", "adapters")}
    assert len(said["llama"]) == 60
    assert said["llama"] != said["adapters"]
    seeing = typed(tmp_path, "evaluate", "llama", "template=mini", "evaluation=mmbench")
    assert seeing.returncode == 2
    assert len(seeing.stderr.strip().splitlines()) == 1


def test_files_that_change_after_planning_are_another_checkpoint(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    cell = cell_of(undisturbed.folder, "full")
    typed(undisturbed.folder, "export", cell.name, str(tmp_path / "model"))
    typed(tmp_path, "evaluate", "model", *LINE, "study=one", "until=generate")
    settings = tmp_path / "model" / "generation_config.json"
    values = json.loads(settings.read_text("utf-8"))
    settings.write_text(json.dumps({**values, "repetition_penalty": 1.5}), encoding="utf-8")

    typed(tmp_path, "evaluate", "model", *LINE, "study=two", "until=generate")

    one, two = (plan_in(tmp_path, name).cells[0].stages["generate"] for name in ("one", "two"))
    assert one != two
    assert evaluated(tmp_path, "one") != evaluated(tmp_path, "two")
