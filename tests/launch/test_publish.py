"""Output is published once, whole, by the newest attempt; what does not hold is set aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalesweep.errors import StageError
from scalesweep.launch import leases
from scalesweep.launch.publish import prepare, publish, set_aside, verdict
from scalesweep.rundir import AttemptDir, StageDir, Store
from tests.fakes.plans import stage as planned_stage

PLANNED = planned_stage("one")
SPEC = PLANNED.spec


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def stage(store: Store) -> StageDir:
    folder = store.stage(SPEC.ref)
    prepare(folder, SPEC)
    return folder


def attempt_with(stage: StageDir, **files: str) -> AttemptDir:
    attempt = leases.claim(stage, PLANNED.execution, after=leases.newest_number(stage))
    assert attempt is not None
    for name, text in files.items():
        path = attempt.output / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return attempt


def test_published_output_names_every_file_with_size_and_hash(
    store: Store, stage: StageDir
) -> None:
    attempt = attempt_with(stage, a="xyz", deep__b="")

    assert publish(stage, attempt, inputs={"data": "digest"}) is True

    done = verdict(store, SPEC, parents={"data": "digest"}).done
    assert done is not None
    assert {name: file.size for name, file in done.files.items()} == {"a": 3, "deep/b": 0}
    # sha256 of the three bytes "xyz", as `printf xyz | sha256sum` says
    assert done.files["a"].sha256.startswith("3608bca1e44ea6c4d268eb6db02260269892c0b42b86bbf1")
    assert done.inputs == {"data": "digest"}
    assert stage.output() == attempt.output


def test_a_stage_is_published_once(stage: StageDir) -> None:
    attempt = attempt_with(stage, a="x")
    publish(stage, attempt, inputs={})
    before = stage.done_file.read_bytes()
    (attempt.output / "a").write_text("other")

    assert publish(stage, attempt, inputs={}) is False
    assert stage.done_file.read_bytes() == before
    assert not list(stage.path.glob(".done*"))


def test_an_attempt_that_was_overtaken_publishes_nothing(stage: StageDir) -> None:
    old = attempt_with(stage, a="old")
    attempt_with(stage, a="new")

    with pytest.raises(StageError, match="attempt 1 was overtaken by a later one"):
        publish(stage, old, inputs={})
    assert stage.done() is None


def test_no_output_is_no_result(stage: StageDir) -> None:
    attempt = attempt_with(stage)

    with pytest.raises(StageError, match="without writing any output"):
        publish(stage, attempt, inputs={})


def test_the_digest_depends_on_bytes_and_names_only(stage: StageDir) -> None:
    digests = []
    for files in ({"a": "x"}, {"a": "x"}, {"a": "y"}, {"b": "x"}):
        publish(stage, attempt_with(stage, **files), inputs={})
        done = stage.done()
        assert done is not None
        digests.append(done.digest)
        set_aside(stage)

    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def damage_size(output: Path) -> None:
    (output / "a").write_text("xy")


def damage_by_deleting(output: Path) -> None:
    (output / "a").unlink()


def damage_record(output: Path) -> None:
    (output.parents[2] / "done.json").write_text('{"schema": 1, "atte')


def damage_record_wholly(output: Path) -> None:
    (output.parents[2] / "done.json").write_text('{"schema": 1}')


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (damage_size, "output/a has 2 bytes, not 3"),
        (damage_by_deleting, "output/a is missing"),
        (damage_record, "done.json is damaged"),
        (damage_record_wholly, "done.json is damaged"),
    ],
)
def test_what_was_damaged_since_is_not_done(
    store: Store,
    stage: StageDir,
    damage: object,
    problem: str,
) -> None:
    attempt = attempt_with(stage, a="xyz")
    publish(stage, attempt, inputs={})
    assert callable(damage)
    damage(attempt.output)

    found = verdict(store, SPEC, parents={})

    assert found.done is None
    assert problem in found.problem


def test_other_bytes_of_a_parent_make_a_stage_stale(store: Store, stage: StageDir) -> None:
    publish(stage, attempt_with(stage, a="x"), inputs={"align": "old", "data": "same"})

    stale = verdict(store, SPEC, parents={"align": "new", "data": "same"})

    assert stale.problem == "stale: align changed since"
    assert verdict(store, SPEC, parents=None).done is not None


def test_what_is_set_aside_is_kept_and_can_be_published_again(stage: StageDir) -> None:
    for text in ("x", "y", "z"):
        publish(stage, attempt_with(stage, a=text), inputs={})
        set_aside(stage)
    set_aside(stage)  # nothing there: nothing happens

    asides = sorted(path.name for path in stage.path.glob("*aside*"))
    assert asides == ["done.json.aside-1", "done.json.aside-2", "done.json.aside-3"]
    assert publish(stage, attempt_with(stage, a="x"), inputs={}) is True


def test_a_file_in_the_stores_way_reads_as_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")

    assert verdict(Store(tmp_path / "store"), SPEC, parents={}).done is None
    assert Store(tmp_path / "store").stage(SPEC.ref).attempts() == []
