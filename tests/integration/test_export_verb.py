"""Cells of a whole study, exported by the command and loaded by people who have no scalesweep."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from scalesweep.config.paths import miniature_path
from scalesweep.evaluate.benchmarks.mini import read_questions
from scalesweep.models.published import load_checkpoint
from scalesweep.records import StageKind
from scalesweep.rundir import read_json, write_json
from scalesweep.specs import GenerateSpec
from tests.conftest import Undisturbed
from tests.integration.tiny_study import plan_in, store_of, typed
from tests.models.test_export import answered, in_fresh_process

pytestmark = pytest.mark.slow

FORMS = {
    "full": ("full", "full"),
    "adapter": ("lora", "lora"),
    "merged": ("lora", "lora", "--merge"),
}
"""Directory -> tuning, and the words after the verb."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    folder: Path
    ended: subprocess.CompletedProcess[str]
    plain: list[dict[str, Any]]
    """What plain libraries say to a question with a picture and to one without."""


@pytest.fixture(scope="module")
def exports(
    undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Exported]:
    root = tmp_path_factory.mktemp("exports")
    ended = {
        name: typed(undisturbed.folder, "export", words[1], str(root / name), *words[2:])
        for name, words in FORMS.items()
    }
    tasks = {
        name: {
            "folder": str(root / name),
            "adapter": name == "adapter",
            "questions": questions(undisturbed.folder),
        }
        for name in FORMS
    }
    plain = in_fresh_process(root, tasks)
    return {
        name: Exported(folder=root / name, ended=ended[name], plain=plain[name]) for name in FORMS
    }


def questions(folder: Path) -> list[dict[str, Any]]:
    """The first of each benchmark."""
    (ref,) = {cell.stages["data:mini_test"] for cell in plan_in(folder).cells}
    data = store_of(folder).stage(ref).output()
    found = [read_questions(data / file)[0] for file in ("vqa.jsonl", "text.jsonl")]
    return [{"text": q.text, "image": None if q.image is None else str(q.image)} for q in found]


def ours(folder: Path, tuning: str) -> list[dict[str, Any]]:
    """What the cell's published checkpoint says by our own code."""
    plan, store = plan_in(folder), store_of(folder)
    (cell,) = (c for c in plan.cells if c.point["tuning"] == tuning)
    spec = GenerateSpec.from_identity(plan.stage(cell.stages["generate"]).spec.identity)
    model, _ = load_checkpoint(
        spec=spec,
        checkpoint=store.stage(cell.stages["tune"]).output(),
        language_model=Path(miniature_path("mini_xs")),
        vision_tower=Path(miniature_path("tower_32px")),
        tokenizer=Path(miniature_path("tokenizer")),
    )
    tokenizer = AutoTokenizer.from_pretrained(miniature_path("tokenizer"))
    return [answered(model, tokenizer, "mini", question) for question in questions(folder)]


@pytest.mark.parametrize("name", FORMS)
def test_a_trained_cell_says_the_same_without_scalesweep(
    undisturbed: Undisturbed, exports: Mapping[str, Exported], name: str
) -> None:
    wanted = ours(undisturbed.folder, FORMS[name][0])

    for mine, plain in zip(wanted, exports[name].plain, strict=True):
        assert torch.equal(plain["input_ids"][0], torch.from_numpy(mine["input_ids"]).long())
        tolerance = 1e-4 if name == "merged" else 1e-5
        torch.testing.assert_close(plain["logits"], mine["logits"], rtol=0, atol=tolerance)
        assert mine["decode"](plain["answers"][1]) == mine["answers"][1]


def test_the_command_says_what_it_made_and_how_to_load_it(
    exports: Mapping[str, Exported],
) -> None:
    for name, words in {"full": "whole model", "adapter": "adapters", "merged": "merged"}.items():
        ended = exports[name].ended
        assert ended.returncode == 0, ended.stderr
        assert words in ended.stdout.splitlines()[0]
        assert str(exports[name].folder) in ended.stdout
        assert ended.stderr == ""


def test_the_card_has_the_scores_and_costs_of_the_report(
    undisturbed: Undisturbed, exports: Mapping[str, Exported]
) -> None:
    report = json.loads(typed(undisturbed.folder, "report", "--format", "json").stdout)
    (cell,) = (c for c in report["cells"] if c["point"]["tuning"] == "full")
    (setting,) = (s for s in report["settings"] if s["cells"] == [cell["name"]])

    facts = read_json(exports["full"].folder / "scalesweep.json")
    card = (exports["full"].folder / "README.md").read_text("utf-8")

    assert facts["cell"]["costs"] == cell["costs"]
    for name, found in facts["scores"].items():
        assert found["score"] == cell["scores"][name]["score"]
        error = f"{found['score']:.3f} ± {found['standard_error']:.3f}"
        assert f"| {name} | {error} | 60 |" in card
    assert set(facts["scores"]) == {"mini_vqa", "mini_text"}
    assert facts["scores"][report["primary"]]["standard_error"] == setting["standard_error"]
    assert facts["trained"]["tune"]["num_samples"] == 250
    assert {entry["file"] for entry in facts["data"]} == {
        "captions.json",
        "instruct.json",
        "text.json",
    }
    assert all(len(entry["sha256"]) == 64 for entry in facts["data"])


def test_no_file_names_a_place_of_this_machine(
    undisturbed: Undisturbed, exports: Mapping[str, Exported]
) -> None:
    places = (undisturbed.folder, Path.home(), Path(__file__).parents[2])
    for exported in exports.values():
        for file in exported.folder.rglob("*"):
            content = b"" if file.is_dir() else file.read_bytes()
            assert not [p for p in places if str(p).encode() in content], file


def test_a_base_that_is_not_here_any_more_is_one_message(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.copy(tmp_path)
    file = store_of(folder).study("tiny") / "plan.json"
    plan = read_json(file)
    for stage in plan["stages"]:
        if stage["kind"] == StageKind.tune:
            stage["execution"]["paths"]["language_model"] = "/nowhere/vicuna"
    write_json(file, plan)

    ended = typed(folder, "export", "lora", str(tmp_path / "out"))

    assert ended.returncode == 2
    assert ended.stderr == (
        "scalesweep: export: language_model: /nowhere/vicuna is no folder; set model.path\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
