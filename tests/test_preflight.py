"""Broken data are refused before anything is started, with one message each, and nothing stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scalesweep.cli import REFUSED, run
from scalesweep.data.stage import take_stock
from scalesweep.errors import DataError
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.graph import Plan
from scalesweep.preflight import (
    check_external_data,
    check_stock,
    faults,
    fetched_tokenizers,
    tokenizer_faults,
)
from scalesweep.records import Done, StageKind
from scalesweep.rundir import Store, write_json
from tests.config.composing import cell
from tests.evaluate.official import SAMPLES

ITEMS = [
    {
        "id": str(i),
        "image": f"{i}.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nwhat color is the cross ?"},
            {"from": "gpt", "value": "red"},
        ],
    }
    for i in range(4)
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a training file in the official format and its pictures."""
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (96, 96), (60 * i, 30, 60)).save(folder / "images" / f"{i}.jpg")
    (folder / "train.json").write_text(json.dumps(ITEMS), encoding="utf-8")
    return folder


def words(data: Path) -> list[str]:
    return [
        "model=mini_xs",
        f"+datasets.mine={{root: {data}, files: {{train.json: ''}}}}",
        "data_mix.sources=[{dataset: mine, file: train.json, image_folder: images}]",
    ]


def plan_of(data: Path) -> Plan:
    return build_plan([CellRequest(point={}, config=cell(*words(data)))], study="mine")


def said(data: Path, cache: Path) -> list[str]:
    return list(faults(plan_of(data).stages, {"mine": data}, cache=cache))


def rewrite(data: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    items = json.loads(json.dumps(ITEMS))
    change(items)
    (data / "train.json").write_text(json.dumps(items), encoding="utf-8")


def turns(items: list[dict[str, Any]]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = items[2]["conversations"]
    return found


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut JSON": (
        lambda data: (data / "train.json").write_text(json.dumps(ITEMS)[:-40]),
        "is not whole JSON",
    ),
    "not UTF-8": (
        lambda data: (data / "train.json").write_bytes(b'[{"id": "\xff"}]'),
        "is not UTF-8",
    ),
    "no file": (lambda data: (data / "train.json").unlink(), "is missing"),
    "corrupt picture": (
        lambda data: (data / "images" / "2.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture"),
        "item 2 (id '2'): picture images/2.jpg",
    ),
    "cut picture": (
        lambda data: (data / "images" / "2.jpg").write_bytes(
            (data / "images" / "2.jpg").read_bytes()[:500]
        ),
        "item 2 (id '2'): picture images/2.jpg",
    ),
    "missing picture": (
        lambda data: (data / "images" / "2.jpg").unlink(),
        "item 2 (id '2'): picture images/2.jpg is missing",
    ),
    "two <image>": (
        lambda data: rewrite(data, lambda i: turns(i)[0].update(value="<image> <image> what ?")),
        "item 2 (id '2')",
    ),
    "odd turns": (lambda data: rewrite(data, lambda i: turns(i).pop()), "item 2 (id '2')"),
    "turns out of order": (
        lambda data: rewrite(data, lambda i: turns(i).append({"from": "gpt", "value": "red"})),
        "item 2 (id '2')",
    ),
    "empty answer": (
        lambda data: rewrite(data, lambda i: turns(i)[1].update(value=" ")),
        "item 2 (id '2')",
    ),
    "too long": (
        lambda data: rewrite(data, lambda i: turns(i)[1].update(value="red " * 300)),
        "item 2 (id '2')",
    ),
    "unknown word": (
        lambda data: rewrite(data, lambda i: turns(i)[1].update(value="mauve")),
        "item 2 (id '2')",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_data_give_one_message(name: str, data: Path, tmp_path: Path) -> None:
    damage, named = BROKEN[name]
    damage(data)

    lines = said(data, tmp_path / "cache")

    assert len(lines) == 1, lines
    assert named in lines[0]
    assert "train.json" in lines[0]


def test_whole_data_have_no_fault_and_fill_the_cache(data: Path, tmp_path: Path) -> None:
    assert said(data, tmp_path / "cache") == []
    assert list((tmp_path / "cache").iterdir())


def test_skipped_items_are_no_fault(data: Path, tmp_path: Path) -> None:
    rewrite(data, lambda items: turns(items).pop())
    config = cell(*words(data), "data_mix.on_broken_item=skip")
    plan = build_plan([CellRequest(point={}, config=config)], study="mine")

    assert list(faults(plan.stages, {"mine": data}, cache=tmp_path / "cache")) == []


def test_a_generated_miniature_needs_no_check(tmp_path: Path) -> None:
    plan = build_plan([CellRequest(point={}, config=cell("model=mini_xs"))], study="mine")

    check_external_data(plan, plan.stages, Store(tmp_path / "store"))

    assert list(tmp_path.iterdir()) == []


def test_the_check_is_a_process_that_says_what_is_broken(data: Path, tmp_path: Path) -> None:
    (data / "images" / "2.jpg").unlink()
    plan = plan_of(data)

    with pytest.raises(DataError, match=r"item 2 \(id '2'\): picture images/2.jpg is missing"):
        check_external_data(plan, plan.stages, Store(tmp_path / "store"))

    assert not (tmp_path / "store").exists()


def test_a_study_on_broken_data_is_refused_before_it_starts(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (data / "train.json").write_text(json.dumps(ITEMS)[:-40], encoding="utf-8")

    status = run([*words(data), "cluster=local", "store=store"])

    out, err = capfd.readouterr()
    assert status == REFUSED
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "train.json is not whole JSON" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_question_without_its_picture_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "asked"
    folder.mkdir()
    row = {"question_id": "q1", "text": "what ?", "answer": "red", "category": "color",
           "image": "gone.jpg"}  # fmt: skip
    (folder / "vqa.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    config = cell(
        "model=mini_xs",
        f"+datasets.asked={{root: {folder}, files: {{vqa.jsonl: ''}}}}",
        "evaluation.benchmarks=[{name: mini_vqa, dataset: asked, file: vqa.jsonl}]",
    )
    plan = build_plan([CellRequest(point={}, config=config)], study="mine")

    lines = list(faults(plan.stages, {"asked": folder}, cache=tmp_path / "cache"))

    assert len(lines) == 1
    assert "vqa.jsonl, question q1: picture" in lines[0]


def test_what_a_judge_is_shown_is_checked_before_anything_is_answered(tmp_path: Path) -> None:
    root = tmp_path / "vicuna80"
    shutil.copytree(SAMPLES / "vicuna80", root)
    asked = "evaluation.benchmarks=[{name: vicuna80, dataset: mine, file: question.jsonl}]"
    settings = [
        "model=mini_xs",
        f"+datasets.mine={{root: {root}, files: {{question.jsonl: '', answer_gpt35.jsonl: ''}}}}",
        asked,
        "evaluation.primary=vicuna80",
        "evaluation.base_benchmarks=[]",
        "judge=gpt4",
    ]
    plan = build_plan([CellRequest(point={}, config=cell(*settings))], study="judged")
    judged = [stage for stage in plan.stages if stage.spec.kind is StageKind.judge]

    whole = list(faults(judged, {"mine": root}, cache=tmp_path / "cache"))
    (root / "answer_gpt35.jsonl").unlink()
    (line,) = faults(judged, {"mine": root}, cache=tmp_path / "cache")

    assert whole == []
    assert "answer_gpt35.jsonl: cannot be read (No such file or directory)" in line


def test_a_question_that_the_model_cannot_be_asked_is_named(tmp_path: Path) -> None:
    root = tmp_path / "vicuna80"
    shutil.copytree(SAMPLES / "vicuna80", root)
    settings = [
        "model=mini_xs",
        f"+datasets.mine={{root: {root}, files: {{question.jsonl: '', answer_gpt35.jsonl: ''}}}}",
        "evaluation.benchmarks=[{name: vicuna80, dataset: mine, file: question.jsonl}]",
        "evaluation.primary=vicuna80",
        "evaluation.base_benchmarks=[]",
        "judge=gpt4",
    ]
    plan = build_plan([CellRequest(point={}, config=cell(*settings))], study="asked")
    asked = [stage for stage in plan.stages if stage.spec.kind is StageKind.generate]

    (line,) = faults(asked, {"mine": root}, cache=tmp_path / "cache")

    assert "holds 'How', which the tokenizer does not know" in line


def test_a_file_that_changed_since_it_was_taken_stock_of_is_refused(
    data: Path, tmp_path: Path
) -> None:
    plan, store = plan_of(data), Store(tmp_path / "store")
    taken = next(s for s in plan.stages if s.spec.identity.get("dataset") == "mine")
    folder = store.stage(taken.spec.ref)
    output = folder.attempt(1).output
    output.mkdir(parents=True)
    stock = take_stock(data / "train.json", "", dataset="mine")
    write_json(output / "external.json", {"dataset": "mine", "files": {"train.json": stock}})
    write_json(folder.done_file, Done(attempt=1, files={}).to_json())
    check_stock(plan, store)

    text = (data / "train.json").read_text(encoding="utf-8")
    (data / "train.json").write_text(text.replace("red", "bed"), encoding="utf-8")

    with pytest.raises(DataError, match=r"train.json is not what data/\w+ took stock of"):
        check_stock(plan, store)


def from_hub(vocab_size: int) -> Plan:
    """A miniature whose tokenizer is declared by hub id, and lies in some folder."""
    config = cell(
        "model=mini_xs",
        f"model.vocab_size={vocab_size}",
        "model.tokenizer=hub:some/one@main",
    )
    return build_plan([CellRequest(point={}, config=config)], study="mine")


def test_a_tokenizer_of_a_larger_vocabulary_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    plan = from_hub(100)  # it has 132 words

    with pytest.raises(DataError, match=r"model.tokenizer=hub:some/one@main: .*has the number 100"):
        check_external_data(plan, plan.stages, Store(tmp_path / "store"))


def test_a_tokenizer_that_fits_is_no_fault() -> None:
    tokenizers = fetched_tokenizers(from_hub(132).stages)

    assert len(tokenizers) == 1
    assert list(tokenizer_faults(tokenizers)) == []


def test_a_tokenizer_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")

    (line,) = tokenizer_faults([("hub:some/one@main", str(tmp_path), 132)])

    assert line.startswith(f"model.tokenizer=hub:some/one@main: {tmp_path}: the tokenizer cannot")
    assert "set model.tokenizer_path=DIR" in line


def test_shipped_tokenizers_need_no_process_to_check_them() -> None:
    plan = build_plan([CellRequest(point={}, config=cell("model=mini_xs"))], study="mine")

    assert fetched_tokenizers(plan.stages) == []
