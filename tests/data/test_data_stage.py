"""Data stages write only their output, tell how far they are, and take stock of external files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from scalesweep import stages
from scalesweep.data.stage import dataset_root, run
from scalesweep.errors import DataError, Interrupted
from scalesweep.records import Execution, StageKind, StageSpec
from scalesweep.rundir import Store, output_files
from scalesweep.specs import DataSpec
from scalesweep.stages import StageContext
from tests.data.official_files import item, write_items

PICTURES = {"seed": 300, "num_pictures": 5, "num_text": 2, "turns": 4, "density": "sparse"}


def context(
    root: Path,
    *,
    generator: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    paths: Mapping[str, str] | None = None,
    inputs: Mapping[str, Path] | None = None,
    rank: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> StageContext:
    """The first attempt of a data stage in a new store."""
    identity = DataSpec(dataset="d", generator=generator, parameters=dict(parameters or {}))
    spec = StageSpec(
        kind=StageKind.data, label="data d", recipe_version=1, identity=identity.to_identity()
    )
    store = Store(root / "store")
    stage = store.stage(spec.ref)
    attempt = stage.attempt(1)
    attempt.path.mkdir(parents=True)
    return StageContext(
        store=store,
        stage=stage,
        attempt=attempt,
        spec=spec,
        execution=Execution(cluster="local", paths=paths or {}),
        inputs=inputs or {},
        rank=rank,
        stop_requested=stop,
    )


def external(root: Path, files: Mapping[str, str], *, data: Path) -> StageContext:
    return context(root, parameters={"files": dict(files)}, paths={"data:d": str(data)})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An external data set of three files."""
    folder = tmp_path / "data"
    write_items(folder / "train.json", [item("a", "b"), item("c", "d")])
    (folder / "questions.jsonl").write_text('{"question_id": 0}\n\n{"question_id": 1}\n', "utf-8")
    (folder / "sub").mkdir()
    (folder / "sub" / "test.csv").write_text("q,a\n", "utf-8")
    return folder


def test_a_generated_set_is_read_from_the_stages_output(tmp_path: Path) -> None:
    made = context(tmp_path / "1", generator="pictures", parameters=PICTURES)

    stages.run(made)

    names = set(output_files(made.attempt.output))
    assert {"captions.json", "instruct.json", "text.json", "images/000004.png"} <= names
    assert {path.name for path in made.attempt.path.iterdir()} == {"output", "metrics.jsonl"}
    reader = context(tmp_path / "2", inputs={"data:d": made.attempt.output})
    assert dataset_root(reader, "d") == made.attempt.output


def test_progress_is_told_from_first_to_last(tmp_path: Path) -> None:
    made = context(tmp_path, generator="pictures", parameters=PICTURES)

    run(made)

    rows = list(made.attempt.metric_rows())
    assert rows[0]["progress/done"] == 1
    assert rows[-1]["progress/done"] == 5
    assert {(row["progress/total"], row["progress/unit"]) for row in rows} == {(5, "picture")}


def test_a_stop_interrupts_the_stage(tmp_path: Path) -> None:
    made = context(tmp_path, generator="pictures", parameters=PICTURES, stop=lambda: True)

    with pytest.raises(Interrupted, match="stopped after 1 of 5"):
        run(made)


def test_only_the_first_rank_writes(tmp_path: Path) -> None:
    made = context(tmp_path, generator="pictures", parameters=PICTURES, rank=1)

    run(made)

    assert not made.attempt.output.exists()


def test_an_external_set_is_counted_and_hashed(tmp_path: Path, data: Path) -> None:
    digest = hashlib.sha256((data / "train.json").read_bytes()).hexdigest()
    files = {"train.json": f"sha256:{digest}", "questions.jsonl": ""}
    made = external(tmp_path, files, data=data)

    run(made)

    stock = json.loads((made.attempt.output / "external.json").read_text("utf-8"))
    assert stock["dataset"] == "d"
    assert stock["files"]["train.json"] == {
        "sha256": digest,
        "size": (data / "train.json").stat().st_size,
        "num_items": 2,
    }
    assert stock["files"]["questions.jsonl"]["num_items"] == 2
    assert set(stock["files"]) == {"train.json", "questions.jsonl"}


def test_an_external_set_without_declared_files_is_indexed_whole(
    tmp_path: Path, data: Path
) -> None:
    made = external(tmp_path, {}, data=data)

    run(made)

    stock = json.loads((made.attempt.output / "external.json").read_text("utf-8"))
    assert list(stock["files"]) == ["questions.jsonl", "sub/test.csv", "train.json"]


def test_moving_an_external_set_changes_where_it_is_read_but_no_digest(
    tmp_path: Path, data: Path
) -> None:
    before = external(tmp_path / "before", {"train.json": ""}, data=data)
    run(before)
    moved = data.rename(tmp_path / "elsewhere")
    after = external(tmp_path / "after", {"train.json": ""}, data=moved)
    run(after)

    assert output_files(before.attempt.output) == output_files(after.attempt.output)
    reader = context(tmp_path / "reader", inputs={"data:d": after.attempt.output})
    assert dataset_root(reader, "d") == moved
    told = context(tmp_path / "told", inputs=reader.inputs, paths={"data:d": "/other"})
    assert dataset_root(told, "d") == Path("/other")


def cut(data: Path) -> None:
    file = data / "train.json"
    file.write_bytes(file.read_bytes()[:-5])


def change(data: Path) -> None:
    write_items(data / "train.json", [item("a", "b")])


def remove(data: Path) -> None:
    (data / "train.json").unlink()


DECLARED = "sha256:" + "0" * 64
BROKEN = [
    pytest.param(remove, "", r"train\.json is missing; .* datasets\.d\.root", id="missing"),
    pytest.param(cut, "", r"train\.json is not whole JSON", id="cut"),
    pytest.param(change, DECLARED, "is not the declared file: sha256:.*, declared", id="other"),
]


@pytest.mark.parametrize(("damage", "declared", "message"), BROKEN)
def test_an_external_set_that_is_not_as_declared_is_refused(
    tmp_path: Path, data: Path, damage: Callable[[Path], None], declared: str, message: str
) -> None:
    damage(data)

    with pytest.raises(DataError, match=message):
        run(external(tmp_path, {"train.json": declared}, data=data))


def test_an_external_set_without_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no generator and no folder; set datasets\.d\.root"):
        run(context(tmp_path / "1"))
    with pytest.raises(DataError, match=r"is not a folder; set datasets\.d\.root"):
        run(external(tmp_path / "2", {}, data=tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        run(external(tmp_path / "3", {}, data=tmp_path / "empty"))


def test_asking_for_a_set_that_is_no_input_names_those_that_are(tmp_path: Path) -> None:
    reader = context(tmp_path, inputs={"data:other": tmp_path, "align": tmp_path})

    with pytest.raises(DataError, match="no data set 'd'; it has other"):
        dataset_root(reader, "d")


def test_finding_a_data_set_needs_neither_numpy_nor_pillow() -> None:
    import subprocess
    import sys

    code = (
        "import sys, scalesweep.data.stage;"
        "sys.exit(any(m in sys.modules for m in ('numpy', 'PIL', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
