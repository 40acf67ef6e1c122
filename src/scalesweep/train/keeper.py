"""Writes checkpoints of one attempt, in the background, and finds the one to resume from.

A save copies what learns and its moments to host memory, which is all that training waits for; a
thread of each rank hashes and writes the copy. No collective is needed: ranks see in the file
system how far the others are. A save that is due while the one before is still being written waits
for it: left out it would be, and the work of an interval more could be lost.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from scalesweep.errors import StageError, StoreError
from scalesweep.records import Measured
from scalesweep.rundir import write_json
from scalesweep.stages import StageContext
from scalesweep.tracking import metric_names as names
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
from scalesweep.train.deepspeed import Engine
from scalesweep.train.host_memory import available_bytes
from scalesweep.train.pacing import Pace
from scalesweep.train.pieces import SavedPieces, contents, rank_file, write_tensors

log = logging.getLogger(__name__)

LARGEST_PART_OF_MEMORY = 0.5
"""Of the host memory that is free, for copies of all ranks of a node; the rest is for reading
data and for what else the node does."""
OTHERS_WITHIN_S = 3600.0
"""For other ranks to have written what this one has; as long as a collective may take."""
LOOK_S = 0.05


@dataclass(kw_only=True)
class CheckpointKeeper:
    """Saves and resumes one training stage. All ranks have one and call it at the same steps."""

    context: StageContext
    engine: Engine
    inputs: str
    """Digest of what the stage reads: a checkpoint made from other inputs is of no use."""
    seed: int
    in_background: bool = True
    """Where there is memory for a copy."""
    pace: Pace = field(init=False)
    _copies: dict[str, Tensor] = field(default_factory=dict)
    """Host memory for a copy, kept from save to save."""
    _has_room: bool | None = None
    _writer: threading.Thread | None = None
    _failure: BaseException | None = None
    _written: list[float] = field(default_factory=list)
    """Seconds of checkpoints that were completed since somebody looked."""
    _news: dict[str, float] = field(default_factory=dict)
    _step_began: float | None = None

    def __post_init__(self) -> None:
        self.pace = Pace(every_steps=self.context.execution.checkpoint_every_steps)

    # ------------------------------------------------------------------ what the loop asks

    def stop_requested(self) -> bool:
        """Whether somebody asked this rank to stop, or the job's time is nearly over."""
        if self.context.stop_requested():
            return True
        ends_at = self.context.ends_at
        if not self.context.is_main or not self.pace.must_stop(now=time.time(), ends_at=ends_at):
            return False
        log.info(
            "the job ends in %.0f s and a save may need %.0f s: it stops now",
            (ends_at or 0.0) - time.time(),
            self.pace.longest.lead_s,
        )
        self.context.attempt.time_limit_file.touch()
        return True

    def due(self, state: TrainState) -> bool:
        """Whether to save after this step, as rank zero decides; every rank asks after each step.

        Raises:
            StoreError: the save before could not be written.
        """
        self._raise_failure()
        now = time.perf_counter()
        if self._step_began is not None:  # after the first, in which kernels are loaded
            self.pace.step(now - self._step_began)
        self._step_began = now
        self._take_news()
        return self.context.is_main and self.pace.is_due(state.step)

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, or begin to; finish() waits until it is durable.

        Raises:
            StoreError: this save or the one before could not be written.
        """
        if state.step == self.pace.saved_step:
            return
        began = time.perf_counter()
        self._wait()
        waited = time.perf_counter()
        tensors, metadata = contents(self.engine.pieces(), random_state())
        if self.in_background and self._room_for(tensors):
            copies = self._copied(tensors)
            arguments = (state, copies, metadata, waited)
            self._writer = threading.Thread(target=self._write, args=arguments, daemon=True)
            self._writer.start()
        else:
            self._write(state, tensors, metadata, waited)
            self._raise_failure()
        self.pace.saved_step = state.step
        ended = time.perf_counter()
        self.pace.saved(ended - waited, waited_s=waited - began)
        self._news[names.CHECKPOINT_SAVE_SECONDS] = ended - began
        self._step_began = ended

    def finish(self) -> None:
        """Until everything that was saved is durable, on all ranks.

        Raises:
            StoreError: it could not be written.
        """
        self._wait()
        self._take_news()
        if self.context.world_size > 1:
            dist.barrier()

    def metrics(self) -> Mapping[str, Any]:
        """What saves have cost since the last call; empty when there were none."""
        self._take_news()
        if not self._news:
            return {}
        found = {name: round(seconds, 4) for name, seconds in self._news.items()}
        self._news = {}
        return {**found, names.CHECKPOINT_INTERVAL_STEPS: self.pace.interval_steps}

    # ------------------------------------------------------------------ saving

    def _room_for(self, tensors: Mapping[str, Tensor]) -> bool:
        if self._has_room is None:
            size = sum(self._size_of_copy(tensor) for tensor in tensors.values())
            needed = size * self.context.execution.devices_per_node
            free = available_bytes()
            self._has_room = needed <= LARGEST_PART_OF_MEMORY * free
            if not self._has_room:
                log.info(
                    "checkpoints are written while training waits: a copy would take %.1f of "
                    "%.1f GiB of free memory",
                    needed / 2**30,
                    free / 2**30,
                )
        return self._has_room

    def _size_of_copy(self, tensor: Tensor) -> int:
        size = tensor.numel() * tensor.element_size()
        if tensor.device.type == "cuda":  # torch pins memory in powers of two
            return 1 << max(0, size - 1).bit_length()
        return size

    def _copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        on_device = self.engine.device.type == "cuda"
        for name, tensor in tensors.items():
            held = self._copies.get(name)
            if held is None or held.shape != tensor.shape:
                pin = on_device and tensor.device.type == "cuda"
                held = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pin)
                self._copies[name] = held
            held.copy_(tensor)
        return {name: self._copies[name] for name in tensors}

    def _write(
        self,
        state: TrainState,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        began: float,
    ) -> None:
        """Write this rank's part; rank zero waits for the others and completes it."""
        folder, rank = self.context.attempt.checkpoints, self.context.rank
        part, name = begun(folder, state.step), rank_file(rank)
        try:
            part.mkdir(parents=True, exist_ok=True)
            file = write_tensors(part / name, tensors, metadata)
            mark_written(part, rank, {name: file})
            if self.context.is_main:
                self._complete(state, began)
        except BaseException as error:
            self._failure = error
            # A disk that is full now would be full of it for the next attempt too.
            with contextlib.suppress(OSError):
                (part / name).unlink(missing_ok=True)

    def _complete(self, state: TrainState, began: float) -> None:
        folder, world_size = self.context.attempt.checkpoints, self.context.world_size
        part = begun(folder, state.step)
        end = time.monotonic() + OTHERS_WITHIN_S
        while missing := not_written(part, world_size):
            if time.monotonic() >= end:
                raise StoreError(f"{part}: nothing was written by ranks {missing}")
            time.sleep(LOOK_S)
        complete(
            folder,
            state,
            world_size=world_size,
            zero_stage=self.engine.zero_stage,
            inputs=self.inputs,
        )
        seconds = time.perf_counter() - began
        longest = self.pace.longest.longest(Measured(longest_save_s=seconds))
        write_json(self.context.attempt.measured_file, longest.to_json())
        self._written.append(seconds)
        prune_earlier(folder, [attempt.checkpoints for attempt in self.context.earlier_attempts()])

    def _wait(self) -> None:
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        self._raise_failure()

    def _raise_failure(self) -> None:
        failure = self._failure
        if failure is not None:
            raise StoreError(
                f"a checkpoint could not be written: {failure}; look at the space and the health "
                f"of the file system of {self.context.attempt.checkpoints}"
            ) from failure

    def _take_news(self) -> None:
        while self._written:
            seconds = self._written.pop(0)
            self.pace.written(seconds)
            self._news[names.CHECKPOINT_WRITE_SECONDS] = seconds

    # ------------------------------------------------------------------ resuming

    def resume(self) -> TrainState:
        """State of the newest whole checkpoint of earlier attempts, or the beginning.

        Bit for bit by as many ranks under the same ZeRO stage; otherwise sums are taken in another
        order from here on, and by another number of ranks dropout draws other numbers.

        Raises:
            StoreError: it is of another model.
        """
        for attempt in self.context.earlier_attempts():
            self.pace.longest = self.pace.longest.longest(attempt.measured())
        checkpoint = self._chosen()
        if checkpoint is None:
            return TrainState()
        state, rank = checkpoint.state, self.context.rank
        saved = SavedPieces(folder=checkpoint.path, world_size=checkpoint.world_size)
        self.engine.load(saved)
        log.info("resumed after step %d from %s", state.step, checkpoint.path)
        then = (checkpoint.world_size, checkpoint.zero_stage)
        now = (self.context.world_size, self.engine.zero_stage)
        if then != now:
            log.info(
                "it was written by %d ranks under ZeRO-%d; now there are %d under ZeRO-%d: the "
                "last digits may differ from those of one run", *then, *now
            )  # fmt: skip
        if then[0] == now[0]:
            set_random_state(saved.random(rank))
        else:
            seed_generators(self.seed, rank=rank, step=state.step)
            log.info("random numbers begin anew from (seed %d, rank %d, step %d): dropout differs "
                     "from that of one run", self.seed, rank, state.step)  # fmt: skip
        self.pace.saved_step = state.step
        return state

    def _chosen(self) -> Checkpoint | None:
        """The newest whole checkpoint, the same for all ranks.

        Rank zero lists what there is: nodes may see a shared file system differently for a while,
        and ranks that go on from different steps would mix them without a word. Each rank hashes a
        share of the files, and all must agree that they are whole.
        """
        listed: list[list[Checkpoint]] = [[]]
        if self.context.is_main:
            folders = [attempt.checkpoints for attempt in self.context.earlier_attempts()]
            remove_unfinished(folders)
            listed = [recorded(folders, inputs=self.inputs)]
        if self.context.world_size > 1:
            dist.broadcast_object_list(listed, src=0)
        for checkpoint in listed[0]:
            _wait_to_see(checkpoint)
            problems = self._gathered(
                damage(checkpoint, share=(self.context.rank, self.context.world_size))
            )
            if not any(problems):
                return checkpoint
            if self.context.is_main:
                leave_out(checkpoint.path, "; ".join(filter(None, problems)))
        return None

    def _gathered(self, problem: str) -> list[str]:
        if self.context.world_size == 1:
            return [problem]
        found: list[Any] = [None] * self.context.world_size
        dist.all_gather_object(found, problem)
        return found


def _wait_to_see(checkpoint: Checkpoint, *, timeout_s: float = 90.0) -> None:
    """Until a file that is there for another node is there for this one too."""
    path = checkpoint.path / "complete.json"
    end = time.monotonic() + timeout_s
    while not path.exists():
        if time.monotonic() >= end:
            raise StageError(f"{path} is there for rank 0 and not for this one")
        time.sleep(0.5)
