"""A checkpoint is whole or not there, and the newest whole one is found."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scalesweep.rundir import write_json
from scalesweep.train.checkpoint import (
    TrainState,
    begun,
    complete,
    newest_complete,
    random_state,
    set_random_state,
)


def save(folder: Path, step: int, *, inputs: str = "same", kept: int = 2) -> Path:
    """A checkpoint of two ranks with a little content."""
    part = begun(folder, step)
    (part / "engine").mkdir(parents=True)
    (part / "engine" / "states.pt").write_bytes(b"weights of step %d" % step)
    for rank in range(2):
        (part / f"rank-{rank:03d}.pt").write_bytes(b"random state")
    state = TrainState(step=step, samples_seen=8 * step, tokens_seen=100 * step)
    return complete(folder, state, world_size=2, zero_stage=3, inputs=inputs, kept=kept)


def found_step(*folders: Path, inputs: str = "same") -> int | None:
    found = newest_complete(folders, inputs=inputs)
    return None if found is None else found.state.step


def test_what_was_saved_is_found(tmp_path: Path) -> None:
    path = save(tmp_path, 50)

    found = newest_complete([tmp_path], inputs="same")

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


def tear(path: Path) -> None:
    (path / "complete.json").write_text('{"schema": 1, "sta', encoding="utf-8")


def truncate(path: Path) -> None:
    file = path / "engine" / "states.pt"
    file.write_bytes(file.read_bytes()[:-1])


def flip(path: Path) -> None:
    file = path / "rank-001.pt"
    content = bytearray(file.read_bytes())
    content[3] ^= 0x10
    file.write_bytes(content)


def lose_record(path: Path) -> None:
    (path / "complete.json").unlink()


def lose_rank(path: Path) -> None:
    (path / "rank-001.pt").unlink()


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


DAMAGES = (tear, truncate, flip, lose_record, lose_rank, lose_all, other_version, other_step)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_of_a_damaged_one_the_one_before_is_used_and_the_log_says_so(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 4)
    damage(save(tmp_path, 6))

    assert found_step(tmp_path) == 4
    assert f"checkpoint {tmp_path}/step-00000006 is left out:" in caplog.text


def test_no_flipped_bit_of_the_record_changes_what_is_resumed(tmp_path: Path) -> None:
    file = save(tmp_path, 6) / "complete.json"
    content = file.read_bytes()
    whole = newest_complete([tmp_path], inputs="same")

    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            file.write_bytes(changed)
            # None, or what it said: white space may change
            assert newest_complete([tmp_path], inputs="same") in (None, whole)


def test_what_a_kill_left_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 4)
    part = begun(tmp_path, 6)
    (part / "engine").mkdir(parents=True)
    (part / "rank-000.pt").write_bytes(b"random")

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
