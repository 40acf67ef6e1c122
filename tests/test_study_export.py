"""The verb export: what it refuses, what it writes beside the weights; all of it or nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scalesweep import cli, study_export
from scalesweep.errors import ConfigError, StoreError
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.graph import Plan
from scalesweep.rundir import Store, read_json, write_json
from scalesweep.study_export import Wanted, export
from tests.config.composing import cell

CELLS = ("tuning=full", "tuning=lora", "tuning=qlora")


@pytest.fixture(scope="module")
def plan() -> Plan:
    requests = [
        CellRequest(point={"tuning": words.partition("=")[2]}, config=cell("model=mini_s", words))
        for words in CELLS
    ]
    return build_plan(requests, study="small", command="python -m scalesweep store=/private/place")


@pytest.fixture
def store(tmp_path: Path, plan: Plan) -> Store:
    """The study, planned, with nothing done."""
    store = Store(tmp_path / "store")
    store.study("small").mkdir(parents=True)
    write_json(store.study("small") / "plan.json", plan.to_json())
    return store


def publish(store: Store, plan: Plan, cell_number: int, role: str) -> Path:
    """Some bytes as output of a stage; their file."""
    from scalesweep.records import Done
    from scalesweep.rundir import output_files

    stage = store.stage(plan.cells[cell_number].stages[role])
    file = stage.attempt(1).output / "weights"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"0123456789")
    write_json(stage.done_file, Done(attempt=1, files=output_files(file.parent)).to_json())
    return file


def asked(store: Store, cell: str, folder: Path, **words: Any) -> list[str]:
    return export(store.root, "small", Wanted(cell=cell, folder=folder, **words))


def test_an_unknown_cell_is_refused_with_the_names_next_to_it(store: Store, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"export mini_s-32px-qlra: no such cell; .*one of mini_s"
    ):
        asked(store, "mini_s-32px-qlra", tmp_path / "out")


@pytest.mark.parametrize("word", ["lora", "2"])
def test_a_whole_part_of_a_name_goes_before_a_piece_of_one(
    store: Store, tmp_path: Path, word: str
) -> None:
    with pytest.raises(ConfigError, match=r"export mini_s-32px-mini_text-lora: tune/.*not done"):
        asked(store, word, tmp_path / "out")


def test_a_cell_that_ends_before_tune_has_no_model(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.study("small").mkdir(parents=True)
    early = build_plan(
        [CellRequest(point={}, config=cell("model=mini_s", "until=align"))], study="small"
    )
    write_json(store.study("small") / "plan.json", early.to_json())

    with pytest.raises(ConfigError, match="until=align ends before tune; there is no model"):
        asked(store, "1", tmp_path / "out")


@pytest.mark.parametrize(
    ("cell", "words", "problem"),
    [
        ("1", {"dtype": "int8"}, "--dtype=int8: choose one of bfloat16, float16, float32"),
        ("1", {"merge": True}, "--merge: .*full was tuned in full and has no adapters"),
        ("1", {"with_base": False}, "--no-base: .*full was tuned in full and has no adapters"),
        ("2", {"merge": True, "with_base": False}, "--no-base: a merged model is its base"),
    ],
)
def test_words_that_do_not_go_with_a_cell_are_refused(
    store: Store, tmp_path: Path, cell: str, words: Mapping[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        asked(store, cell, tmp_path / "out", **words)


def test_a_directory_with_something_in_it_is_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")

    with pytest.raises(ConfigError, match="out: is not empty; name a new directory"):
        asked(store, "1", tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "mine"


def test_a_file_in_the_place_of_the_directory_is_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")

    with pytest.raises(ConfigError, match="out: is a file"):
        asked(store, "1", tmp_path / "out")


def test_nothing_is_written_into_the_store(store: Store) -> None:
    with pytest.raises(ConfigError, match="lies in the store; name a directory outside it"):
        asked(store, "1", store.root / "exports" / "a")


@pytest.mark.parametrize(
    ("content", "defect"),
    [
        (b"012345678X", "has other bytes than were published"),
        (b"0123", "has 4 bytes, not 10"),
        (None, "is missing"),
    ],
)
def test_damaged_output_is_named(
    store: Store, plan: Plan, tmp_path: Path, content: bytes | None, defect: str
) -> None:
    file = publish(store, plan, 0, "tune")
    file.unlink()
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(StoreError, match=f"weights {defect}; delete .* and run the study's line"):
        asked(store, "1", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_adapters_need_the_aligned_projector_too(store: Store, plan: Plan, tmp_path: Path) -> None:
    publish(store, plan, 1, "tune")

    with pytest.raises(ConfigError, match=r"align/[0-9a-f]+ is not done yet"):
        asked(store, "2", tmp_path / "out")


def failing(returncode: int, stderr: str) -> Any:
    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, returncode, "", stderr)

    return run


@pytest.mark.parametrize(
    ("returncode", "error", "said"),
    [
        (2, ConfigError, "export: no disk left"),
        (1, StoreError, "export could not be made: no disk left"),
        (-9, StoreError, "export could not be made: no disk left"),
    ],
)
def test_what_fails_half_way_leaves_nothing(
    store: Store,
    plan: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    returncode: int,
    error: type[Exception],
    said: str,
) -> None:
    publish(store, plan, 0, "tune")
    monkeypatch.setattr(study_export.subprocess, "run", failing(returncode, "x\nno disk left\n"))

    with pytest.raises(error, match=said):
        asked(store, "1", tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that take no time to write."""

    def run(words: list[str], *, input: str, **_: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(json.loads(input)["folder"])
        (folder / "model.safetensors").write_bytes(b"weights")
        facts = {"transformers": "5", "torch": "2", "device": "cpu", "image_token_added": True,
                 "vocabulary": 32064, "trained_vocabulary": 32000}  # fmt: skip
        return subprocess.CompletedProcess(words, 0, json.dumps(facts) + "\n", "")

    monkeypatch.setattr(study_export.subprocess, "run", run)


@pytest.mark.usefixtures("faked")
def test_the_facts_beside_the_weights_name_every_file_and_no_place(
    store: Store, plan: Plan, tmp_path: Path
) -> None:
    publish(store, plan, 0, "tune")
    (tmp_path / "out").mkdir()  # an empty one is taken

    lines = asked(store, "1", tmp_path / "out")

    facts = read_json(tmp_path / "out" / "scalesweep.json")
    assert lines[0].startswith("mini_s-32px-mini_text-full: whole model, ")
    assert facts["files"]["model.safetensors"]["size"] == 7
    assert set(facts["files"]) == {"model.safetensors", "README.md"}
    assert facts["recipe"]["tune"]["optim"]["lr"] == plan.cells[0].config["optim"]["lr"]
    assert facts["command"] == "python -m scalesweep"
    assert facts["data"][0]["licence"] == "Apache-2.0"
    for file in (tmp_path / "out").iterdir():
        text = file.read_text("utf-8")
        assert "/private" not in text
        assert str(tmp_path) not in text
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.usefixtures("faked")
def test_the_card_says_what_is_missing(store: Store, plan: Plan, tmp_path: Path) -> None:
    publish(store, plan, 0, "tune")

    asked(store, "1", tmp_path / "out")

    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "No score yet: this checkpoint was not judged." in card
    assert "Not every stage of the cell is done: these costs will grow." in card
    assert "| tune | mini_train (drawn by `pictures`) | instruct.json | – | not known |" in card
    assert "vocabulary padded with zeros from 32,000 to 32,064" in card


def test_the_command_line_needs_a_cell_and_a_directory(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.run(["export", "only"]) == 2
    assert (
        "export: name a cell (its number or name in `status`) and a dire" in capsys.readouterr().err
    )
    assert cli.run(["export", "1", str(tmp_path / "x"), "--fast", "--store", str(tmp_path)]) == 2
    assert "--fast: export takes a study's name and --merge, --no-base" in capsys.readouterr().err
