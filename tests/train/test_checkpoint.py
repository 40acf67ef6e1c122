"""A checkpoint is whole or not there, and the newest whole one is found."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scalesweep.records import canonical_json
from scalesweep.rundir import write_json
from scalesweep.train.checkpoint import (
    Checkpoint,
    TrainState,
    begun,
    complete,
    damage,
    leave_out,
    mark_written,
    not_written,
    prune_earlier,
    random_state,
    recorded,
    remove_unfinished,
    seed_generators,
    set_random_state,
)
from scalesweep.train.pieces import MOMENTS, Piece, contents, rank_file, write_tensors


def save(folder: Path, step: int, *, inputs: str = "same", kept: int = 2) -> Path:
    """A checkpoint of two ranks with a little content."""
    part = begun(folder, step)
    part.mkdir(parents=True)
    for rank in range(2):
        piece = Piece(
            name="weight",
            start=4 * rank,
            numel=8,
            weight=torch.full((4,), float(step)),
            moments={name: torch.zeros(4) for name in MOMENTS},
            steps=step,
        )
        name = rank_file(rank)
        file = write_tensors(part / name, *contents([piece], random_state()))
        mark_written(part, rank, {name: file})
    state = TrainState(step=step, samples_seen=8 * step, tokens_seen=100 * step)
    return complete(folder, state, world_size=2, zero_stage=3, inputs=inputs, kept=kept)


def newest(folder: Path, *others: Path, inputs: str = "same") -> Checkpoint | None:
    """As one rank would choose it."""
    for checkpoint in recorded([folder, *others], inputs=inputs):
        if not (problem := damage(checkpoint)):
            return checkpoint
        leave_out(checkpoint.path, problem)
    return None


def found_step(*folders: Path, inputs: str = "same") -> int | None:
    found = newest(*folders, inputs=inputs)
    return None if found is None else found.state.step


def test_what_was_saved_is_found(tmp_path: Path) -> None:
    path = save(tmp_path, 50)

    found = newest(tmp_path)

    assert path.name == "step-00000050"
    assert found is not None
    assert found.path == path
    assert found.state == TrainState(step=50, samples_seen=400, tokens_seen=5000)
    assert (found.world_size, found.zero_stage) == (2, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000050"]  # nothing is left beside


def test_without_a_checkpoint_nothing_is_found(tmp_path: Path) -> None:
    assert found_step(tmp_path / "never made", tmp_path) is None


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        save(tmp_path, step)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000006", "step-00000008"]


def test_the_one_with_the_most_steps_of_all_attempts_is_found(tmp_path: Path) -> None:
    save(tmp_path / "1", 6)
    save(tmp_path / "2", 4)

    assert found_step(tmp_path / "2", tmp_path / "1") == 6


def tear(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2])  # the record ends with a line end, which says nothing


def lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"}")


def flip_first(file: Path) -> None:
    _flip(file, 0)


def flip_middle(file: Path) -> None:
    _flip(file, file.stat().st_size // 2)


def flip_last(file: Path) -> None:
    _flip(file, file.stat().st_size - 3)  # in front of the record's closing brace and line end


def _flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 0x10
    file.write_bytes(content)


def lose(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


FILES = ("complete.json", "rank-000.safetensors", "rank-001.safetensors")
DAMAGES = (tear, truncate, lengthen, flip_first, flip_middle, flip_last, lose, empty, make_folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", DAMAGES, ids=lambda harm: harm.__name__)
def test_of_a_damaged_one_the_one_before_is_used_and_the_log_says_so(
    tmp_path: Path, harm: Callable[[Path], None], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 4)
    harm(save(tmp_path, 6) / name)

    assert found_step(tmp_path) == 4
    assert f"checkpoint {tmp_path}/step-00000006 is left out:" in caplog.text


def lose_all(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def other_version(path: Path) -> None:
    record = json.loads((path / "complete.json").read_text("utf-8"))
    write_json(path / "complete.json", {**record, "schema": 99})


def other_step(path: Path) -> None:
    """A record that is good JSON and says something else: only its own hash tells."""
    file = path / "complete.json"
    file.write_text(file.read_text("utf-8").replace('"step": 6', '"step": 7'), encoding="utf-8")


def other_format(path: Path) -> None:
    """As an older version left it, with a record of its own that is whole."""
    record = json.loads((path / "complete.json").read_text("utf-8"))
    del record["format"], record["sha256"]
    digest = hashlib.sha256(canonical_json(record).encode()).hexdigest()
    write_json(path / "complete.json", {**record, "sha256": digest})


@pytest.mark.parametrize(
    "harm", [lose_all, other_version, other_step, other_format], ids=lambda harm: harm.__name__
)
def test_one_that_says_something_else_is_left_out(
    tmp_path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 4)
    harm(save(tmp_path, 6))

    assert found_step(tmp_path) == 4
    assert f"checkpoint {tmp_path}/step-00000006 is left out:" in caplog.text


def test_ranks_that_share_the_hashing_find_what_one_finds(tmp_path: Path) -> None:
    flip_middle(save(tmp_path, 6) / "rank-001.safetensors")
    (checkpoint,) = recorded([tmp_path], inputs="same")

    found = [damage(checkpoint, share=(rank, 3)) for rank in range(3)]

    assert found == ["", "rank-001.safetensors has other bytes than were written", ""]
    assert damage(checkpoint) == found[1]


def test_no_flipped_bit_of_the_record_changes_what_is_resumed(tmp_path: Path) -> None:
    file = save(tmp_path, 6) / "complete.json"
    content = file.read_bytes()
    whole = recorded([tmp_path], inputs="same")

    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            file.write_bytes(changed)
            # nothing, or what it said: white space may change
            assert recorded([tmp_path], inputs="same") in ([], whole)


def test_what_a_kill_left_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 4)
    part = begun(tmp_path, 6)
    part.mkdir(parents=True)
    (part / "rank-000.safetensors").write_bytes(b"weights")

    assert found_step(tmp_path) == 4


def test_a_checkpoint_made_from_other_inputs_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 4)
    save(tmp_path, 6, inputs="other")

    assert found_step(tmp_path) == 4
    assert found_step(tmp_path, inputs="third") is None
    assert "made from other inputs" in caplog.text


def test_all_generators_go_on_where_they_stood() -> None:
    def draw() -> tuple[float, float, float]:
        return torch.rand(()).item(), random.random(), float(np.random.rand())

    before = random_state()
    first = draw()
    set_random_state(before)

    assert draw() == first


def test_generators_begin_anew_with_other_numbers_for_each_rank_and_step() -> None:
    drawn = {}
    for rank in range(3):
        for step in (0, 4, 5):
            seed_generators(7, rank=rank, step=step)
            drawn[rank, step] = (torch.rand(()).item(), random.random(), float(np.random.rand()))

    assert all(len(set(column)) == 9 for column in zip(*drawn.values(), strict=True))
    seed_generators(7, rank=1, step=4)
    assert torch.rand(()).item() == drawn[1, 4][0]


def test_ranks_that_have_not_written_are_known(tmp_path: Path) -> None:
    mark_written(tmp_path, 1, {})

    assert not_written(tmp_path, 3) == [0, 2]


def test_a_checkpoint_that_a_rank_has_not_written_is_never_completed(tmp_path: Path) -> None:
    part = begun(tmp_path, 6)
    part.mkdir()
    mark_written(part, 0, {})

    with pytest.raises(FileNotFoundError):
        complete(tmp_path, TrainState(step=6), world_size=2, zero_stage=0, inputs="same")

    assert found_step(tmp_path) is None


def test_earlier_attempts_keep_theirs_until_this_one_has_enough(tmp_path: Path) -> None:
    save(tmp_path / "1", 2)
    begun(tmp_path / "1", 4).mkdir()

    save(tmp_path / "2", 4)
    prune_earlier(tmp_path / "2", [tmp_path / "1"])
    before = sorted(path.name for path in (tmp_path / "1").iterdir())
    save(tmp_path / "2", 6)
    prune_earlier(tmp_path / "2", [tmp_path / "1"])

    assert before == [".step-00000004.part", "step-00000002"]
    assert list((tmp_path / "1").iterdir()) == []


def test_what_a_killed_attempt_began_is_removed_and_what_it_finished_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / ".step-00000004.part").mkdir()
    (tmp_path / ".step-00000004.part" / "rank-000.safetensors").write_bytes(b"half")
    (tmp_path / "step-00000002").mkdir()

    remove_unfinished([tmp_path, tmp_path / "nowhere"])

    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
