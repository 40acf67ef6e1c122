"""What ranks are told reaches them through a file, and their numbers through Slurm's variables."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from scalesweep.launch.rank import RankTask
from scalesweep.launch.slurm_rank import read_task, write_task
from scalesweep.records import StageKind, StageRef
from scalesweep.rundir import AttemptDir, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "my store")


@pytest.fixture
def attempt(store: Store) -> AttemptDir:
    found = store.stage(REF).attempt(3)
    found.path.mkdir(parents=True)
    return found


REF = StageRef(kind=StageKind.tune, key="0123456789abcdef")


def task(store: Store, **fields: object) -> RankTask:
    given: dict[str, object] = {
        "store": store.root,
        "ref": REF,
        "attempt": 3,
        "inputs": {"align": store.root / "a" / "output", "data:x": store.root / "b"},
        "rank": 0,
        "world_size": 16,
        "port": 0,
        "started_at": time.time(),
        "started_monotonic": 0.0,
        "runner": "tests.fakes.stage_runner",
        "ends_at": 1790000000.0,
    }
    return RankTask(**{**given, **fields})  # type: ignore[arg-type]


def test_a_rank_is_told_what_was_written_down(store: Store, attempt: AttemptDir) -> None:
    written = task(store)

    found = read_task(write_task(attempt, written), {"SLURM_PROCID": "11", "SLURM_LOCALID": "3"})

    assert (found.rank, found.local_rank, found.world_size) == (11, 3, 16)
    for name in ("store", "ref", "attempt", "inputs", "started_at", "runner", "ends_at"):
        assert getattr(found, name) == getattr(written, name)


def test_ranks_of_one_attempt_meet_at_one_file_in_its_folder(
    store: Store, attempt: AttemptDir
) -> None:
    path = write_task(attempt, task(store))

    found = {read_task(path, {"SLURM_PROCID": str(rank)}).rendezvous for rank in range(3)}

    assert found == {attempt.path / "rendezvous.json"}


def test_without_slurms_variables_there_is_one_rank(store: Store, attempt: AttemptDir) -> None:
    found = read_task(write_task(attempt, task(store)), {})

    assert (found.rank, found.local_rank) == (0, 0)


def test_the_time_that_the_job_took_to_get_here_counts(store: Store, attempt: AttemptDir) -> None:
    path = write_task(attempt, task(store, started_at=time.time() - 100))

    found = read_task(path, {})

    assert time.monotonic() - found.started_monotonic == pytest.approx(100, abs=5)


def test_a_clock_that_is_behind_gives_no_time_before_the_beginning(
    store: Store, attempt: AttemptDir
) -> None:
    path = write_task(attempt, task(store, started_at=time.time() + 100))

    found = read_task(path, {})

    assert found.started_monotonic <= time.monotonic()


def test_a_task_without_a_runner_takes_the_kinds_own(store: Store, attempt: AttemptDir) -> None:
    path = write_task(attempt, task(store, runner=None))

    assert read_task(path, {}).runner is None
    assert json.loads(path.read_text())["schema"] == 1
