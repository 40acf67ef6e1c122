"""Checkpoints are written while training goes on, and nothing of it gets lost."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from scalesweep.errors import StoreError
from scalesweep.launch.failures import is_storage_error
from scalesweep.records import Execution, Measured, OutputFile, StageKind, StageSpec
from scalesweep.rundir import Store, write_json
from scalesweep.stages import StageContext
from scalesweep.tracking import metric_names as names
from scalesweep.train import keeper as module
from scalesweep.train.checkpoint import TrainState
from scalesweep.train.keeper import CheckpointKeeper
from scalesweep.train.pieces import MOMENTS, Piece, SavedPieces, write_tensors
from tests.fakes.processes import wait_for


@dataclass
class FakeEngine:
    """One parameter of four numbers, which every rank holds a half of."""

    rank: int = 0
    weight: torch.Tensor = field(default_factory=lambda: torch.arange(4.0))
    zero_stage: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    loaded: SavedPieces | None = None

    def pieces(self) -> list[Piece]:
        return [
            Piece(
                name="p",
                start=4 * self.rank,
                numel=8,
                weight=self.weight,
                moments={name: torch.zeros(4) for name in MOMENTS},
                steps=1,
            )
        ]

    def load(self, saved: SavedPieces) -> None:
        self.loaded = saved


@dataclass
class Disk:
    """Holds writers back until it is let go, or fails."""

    is_free: threading.Event = field(default_factory=threading.Event)
    error: OSError | None = None

    def write(self, *arguments: Any) -> OutputFile:
        assert self.is_free.wait(timeout=20)
        if self.error is not None:
            raise self.error
        return write_tensors(*arguments)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk()
    monkeypatch.setattr(module, "write_tensors", made.write)
    yield made
    made.is_free.set()


def keeper(
    root: Path,
    *,
    rank: int = 0,
    world_size: int = 1,
    attempt: int = 1,
    ends_at: float | None = None,
    in_background: bool = True,
) -> CheckpointKeeper:
    spec = StageSpec(kind=StageKind.tune, label="x", recipe_version=1, identity={})
    stage = Store(root).stage(spec.ref)
    stage.attempt(attempt).path.mkdir(parents=True, exist_ok=True)
    context = StageContext(
        store=Store(root),
        stage=stage,
        attempt=stage.attempt(attempt),
        spec=spec,
        execution=Execution(cluster="local", checkpoint_every_steps=2, devices_per_node=world_size),
        inputs={},
        rank=rank,
        world_size=world_size,
        ends_at=ends_at,
    )
    return CheckpointKeeper(
        context=context,
        engine=FakeEngine(rank=rank),  # type: ignore[arg-type]
        inputs="same",
        seed=3,
        in_background=in_background,
    )


def saved(kept: CheckpointKeeper) -> list[str]:
    folder = kept.context.attempt.checkpoints
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, disk: Disk) -> None:
    kept = keeper(tmp_path)

    kept.save(TrainState(step=2))
    during = saved(kept)
    disk.is_free.set()
    kept.finish()

    assert during in ([], [".step-00000002.part"])
    assert saved(kept) == ["step-00000002"]


def test_what_is_written_is_what_was_there_at_the_save(tmp_path: Path, disk: Disk) -> None:
    kept = keeper(tmp_path)

    kept.save(TrainState(step=2))
    kept.engine.weight.fill_(99.0)  # type: ignore[attr-defined]
    disk.is_free.set()
    kept.finish()

    file = kept.context.attempt.checkpoints / "step-00000002" / "rank-000.safetensors"
    assert load_file(file)["weight:p"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_save_that_is_due_too_early_waits_for_the_one_before(tmp_path: Path, disk: Disk) -> None:
    kept = keeper(tmp_path)
    kept.save(TrainState(step=2))
    threading.Timer(0.2, disk.is_free.set).start()

    began = time.monotonic()
    kept.save(TrainState(step=4))
    waited = time.monotonic() - began
    kept.finish()

    assert waited >= 0.15
    assert saved(kept) == ["step-00000002", "step-00000004"]
    assert kept.metrics()[names.CHECKPOINT_SAVE_SECONDS] >= 0.15  # waiting is told
    assert kept.pace.interval_steps == 2


def test_a_full_disk_is_told_at_the_next_step(tmp_path: Path, disk: Disk) -> None:
    kept = keeper(tmp_path)
    disk.error = OSError(errno.ENOSPC, "No space left on device")

    kept.save(TrainState(step=2))
    disk.is_free.set()
    wait_for(lambda: kept._failure is not None)

    with pytest.raises(StoreError, match=r"could not be written: .*No space left") as told:
        kept.due(TrainState(step=3))
    assert is_storage_error(told.value)  # the supervisor waits for the file system
    assert saved(kept) == [".step-00000002.part"]


@pytest.mark.parametrize("ask", ["save", "finish"])
def test_a_failed_write_is_told_whatever_comes_next(tmp_path: Path, disk: Disk, ask: str) -> None:
    kept = keeper(tmp_path)
    disk.error = OSError(errno.EIO, "Input/output error")
    kept.save(TrainState(step=2))
    disk.is_free.set()

    with pytest.raises(StoreError, match="Input/output error"):
        kept.finish() if ask == "finish" else kept.save(TrainState(step=4))


def test_without_memory_for_a_copy_training_waits(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: 0)
    caplog.set_level("INFO")
    disk.is_free.set()
    kept = keeper(tmp_path)

    kept.save(TrainState(step=2))

    assert saved(kept) == ["step-00000002"]
    assert "written while training waits: a copy would take" in caplog.text


def test_copies_of_all_ranks_of_a_node_must_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = keeper(tmp_path, world_size=4)
    tensors = {"x": torch.zeros(25)}  # 100 bytes a rank

    monkeypatch.setattr(module, "available_bytes", lambda: 799)
    assert not kept._room_for(tensors)
    kept._has_room = None
    monkeypatch.setattr(module, "available_bytes", lambda: 800)
    assert kept._room_for(tensors)


def test_rank_zero_completes_when_the_last_rank_has_written(tmp_path: Path, disk: Disk) -> None:
    ranks = [keeper(tmp_path, rank=rank, world_size=2) for rank in range(2)]
    disk.is_free.set()

    ranks[0].save(TrainState(step=2))
    wait_for(lambda: (tmp_path / folder_of(ranks[0]) / "rank-000.json").exists())
    alone = saved(ranks[0])
    ranks[1].save(TrainState(step=2))
    wait_for(lambda: saved(ranks[0]) == ["step-00000002"])

    assert alone == [".step-00000002.part"]
    whole = ranks[0].context.attempt.checkpoints / "step-00000002"
    assert sorted(p.name for p in whole.iterdir()) == [
        "complete.json",
        "rank-000.safetensors",
        "rank-001.safetensors",
    ]


def folder_of(kept: CheckpointKeeper) -> Path:
    return kept.context.attempt.checkpoints / ".step-00000002.part"


def test_a_rank_that_never_writes_is_named(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OTHERS_WITHIN_S", 0.1)
    disk.is_free.set()
    kept = keeper(tmp_path, world_size=3)

    kept.save(TrainState(step=2))

    with pytest.raises(StoreError, match=r"nothing was written by ranks \[1, 2\]"):
        kept._wait()


def test_rank_zero_alone_decides_what_is_due(tmp_path: Path) -> None:
    first, second = (keeper(tmp_path, rank=rank, world_size=2) for rank in range(2))

    assert [first.due(TrainState(step=s)) for s in (1, 2, 3, 4)] == [False, True, False, True]
    assert not any(second.due(TrainState(step=s)) for s in (1, 2, 3, 4))


def test_what_saves_cost_is_told_once(tmp_path: Path) -> None:
    kept = keeper(tmp_path)
    assert kept.metrics() == {}

    kept.save(TrainState(step=2))
    kept.finish()
    found = dict(kept.metrics())

    assert set(found) == {
        names.CHECKPOINT_SAVE_SECONDS,
        names.CHECKPOINT_WRITE_SECONDS,
        names.CHECKPOINT_INTERVAL_STEPS,
    }
    assert found[names.CHECKPOINT_INTERVAL_STEPS] == 2
    assert kept.metrics() == {}


def test_what_was_measured_is_left_for_later_attempts(tmp_path: Path) -> None:
    kept = keeper(tmp_path)
    time.sleep(1.0)  # the first step, in which kernels are loaded, does not count
    for step in (1, 2, 3):
        kept.due(TrainState(step=step))
        time.sleep(0.02)

    kept.save(TrainState(step=3))
    kept.finish()

    left = kept.context.attempt.measured()
    assert left.longest_save_s > 0
    assert 0.02 <= left.longest_step_s < 1.0


def test_before_the_jobs_time_is_over_it_stops_by_what_earlier_attempts_needed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    earlier = keeper(tmp_path, attempt=1).context.attempt
    write_json(earlier.measured_file, Measured(longest_save_s=40, longest_step_s=10).to_json())
    caplog.set_level("INFO")
    soon, later = (
        keeper(tmp_path, attempt=2, ends_at=time.time() + left) for left in (85.0, 200.0)
    )

    for kept in (soon, later):
        kept.resume()
        kept.pace.began_at = time.time() - 1000.0

    assert not later.stop_requested()
    assert not later.context.attempt.time_limit_file.exists()
    assert soon.stop_requested()  # 2 x 40 + 10 s
    assert soon.context.attempt.time_limit_file.exists()
    assert "a save may need 90 s: it stops now" in caplog.text


def test_other_ranks_leave_the_time_to_rank_zero(tmp_path: Path) -> None:
    kept = keeper(tmp_path, rank=1, world_size=2, ends_at=time.time())
    kept.pace.longest = Measured(longest_save_s=40, longest_step_s=10)

    assert not kept.stop_requested()


@pytest.mark.parametrize(("world_size", "draws_on"), [(1, True), (2, False)])
def test_random_numbers_go_on_by_as_many_ranks_and_begin_anew_by_others(
    tmp_path: Path,
    world_size: int,
    draws_on: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    first = keeper(tmp_path, in_background=False)
    torch.manual_seed(11)
    first.save(TrainState(step=2))
    expected = torch.rand(3).tolist()
    then = keeper(tmp_path, attempt=2, world_size=world_size)
    monkeypatch.setattr(module.dist, "broadcast_object_list", lambda *_, **__: None)
    monkeypatch.setattr(then, "_gathered", lambda problem: [problem])

    state = then.resume()

    assert state == TrainState(step=2)
    assert (torch.rand(3).tolist() == expected) is draws_on
    assert ("random numbers begin anew from (seed 3, rank 0, step 2)" in caplog.text) != draws_on
    assert ("written by 1 ranks under ZeRO-1; now there are 2" in caplog.text) != draws_on
