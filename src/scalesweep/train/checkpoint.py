"""Checkpoints: written beside, hashed, renamed; the newest whole one is resumed from.

checkpoints/step-00000050/
  rank-000.safetensors   what a rank owns of what learns and of its moments (pieces.py), and the
                         state of its generators
  complete.json          step, samples seen, world size, digest of the stage's inputs, size and
                         sha256 of every other file and sha256 of this record itself; written last

Ranks write at their own pace into .step-00000050.part and leave rank-000.json there when theirs is
durable; rank zero, which sees all of those, gives the folder its name.
"""

from __future__ import annotations

import hashlib
import io
import logging
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scalesweep.errors import StoreError
from scalesweep.records import SCHEMA, OutputFile, canonical_json, check_schema
from scalesweep.rundir import fsync_directory, read_json, sha256_of, write_json

log = logging.getLogger(__name__)

FORMAT = 2
"""Of the files; 1 was DeepSpeed's own, which only the same number of ranks could read."""
HASHING_THREADS = 4
KEPT = 2
"""Checkpoints kept of an attempt: the newest, and the one before should it turn out damaged."""


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """Where a training run stands."""

    step: int = 0
    samples_seen: int = 0
    tokens_seen: int = 0


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint with its record."""

    path: Path
    state: TrainState
    world_size: int
    zero_stage: int
    files: Mapping[str, OutputFile]


def random_state() -> Tensor:
    """Every generator that training may draw from, as bytes: [n] uint8."""
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.from_numpy(np.frombuffer(buffer.getvalue(), dtype=np.uint8).copy())


def set_random_state(saved: Tensor) -> None:
    state = torch.load(io.BytesIO(saved.numpy().tobytes()), weights_only=False)
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed_generators(seed: int, *, rank: int, step: int = 0) -> None:
    """Begin anew where no state can be restored. Dropout differs between ranks."""
    mixed = seed * 1_000_003 + rank + step * 1_000_000_007
    torch.manual_seed(mixed)
    random.seed(mixed)
    np.random.seed(mixed % 2**32)


def begun(folder: Path, step: int) -> Path:
    """Where the ranks write a checkpoint before it is complete."""
    return folder / f".step-{step:08d}.part"


def mark_written(part: Path, rank: int, files: Mapping[str, OutputFile]) -> None:
    """Say that a rank's files of a checkpoint are durable, and what they are."""
    write_json(
        _marker(part, rank), {"schema": SCHEMA, "files": {n: asdict(f) for n, f in files.items()}}
    )


def not_written(part: Path, world_size: int) -> list[int]:
    """Ranks whose files are not all there yet."""
    return [rank for rank in range(world_size) if not _marker(part, rank).exists()]


def complete(
    folder: Path,
    state: TrainState,
    *,
    world_size: int,
    zero_stage: int,
    inputs: str,
    kept: int = KEPT,
) -> Path:
    """Give a checkpoint that all ranks have written its record and its name; rank zero calls it.

    inputs: digest of what the stage reads (StageContext.inputs_digest).
    """
    part = begun(folder, state.step)
    files: dict[str, Any] = {}
    for rank in range(world_size):
        marker = read_json(_marker(part, rank))
        check_schema(marker, _marker(part, rank).name)
        files.update(marker["files"])
    record = {
        "schema": SCHEMA,
        "format": FORMAT,
        "state": asdict(state),
        "world_size": world_size,
        "zero_stage": zero_stage,
        "inputs": inputs,
        "files": files,
    }
    write_json(part / "complete.json", {**record, "sha256": _record_hash(record)})
    for rank in range(world_size):
        _marker(part, rank).unlink()
    fsync_directory(part)
    whole = folder / f"step-{state.step:08d}"
    if whole.exists():
        shutil.rmtree(whole)
    part.rename(whole)
    fsync_directory(folder)
    for old in _named(folder)[:-kept]:
        shutil.rmtree(old, ignore_errors=True)
    return whole


def _marker(part: Path, rank: int) -> Path:
    return part / f"rank-{rank:03d}.json"


def remove_unfinished(folders: Sequence[Path]) -> None:
    """Remove what killed attempts had begun to write: nobody will complete it."""
    for folder in folders:
        for part in folder.glob(".step-*.part"):
            shutil.rmtree(part, ignore_errors=True)


def prune_earlier(folder: Path, earlier: Sequence[Path], *, kept: int = KEPT) -> None:
    """Remove checkpoints of earlier attempts, whole or not, once this one has enough of its own.

    Every interruption would leave a set behind otherwise; at full size they fill a file system.
    """
    if len(_named(folder)) >= kept:
        for other in earlier:
            for old in (*_named(other), *other.glob(".step-*.part")):
                shutil.rmtree(old, ignore_errors=True)


def recorded(folders: Sequence[Path], *, inputs: str) -> list[Checkpoint]:
    """Checkpoints with a record that can be used, the one with the most steps first.

    Others are named in the log; so is one that was made from other inputs (a parent was made again
    since). Their files are not looked at here.
    """
    found = []
    paths = [path for folder in folders for path in _named(folder)]
    for path in sorted(paths, key=lambda path: path.name, reverse=True):
        try:
            found.append(_recorded(path, inputs=inputs))
        except (OSError, StoreError, KeyError, TypeError, ValueError) as error:
            leave_out(path, error)
    return found


def damage(checkpoint: Checkpoint, *, share: tuple[int, int] = (0, 1)) -> str:
    """What is wrong with the files of a checkpoint; empty when every byte is as it was written.

    share: (rank, world size); ranks divide the files between them, threads divide a rank's.
    """
    rank, world_size = share
    mine = sorted(checkpoint.files)[rank::world_size]
    with ThreadPoolExecutor(max_workers=HASHING_THREADS) as pool:
        problems = list(pool.map(lambda name: _damage(checkpoint, name), mine))
    return "; ".join(problem for problem in problems if problem)


def leave_out(path: Path, why: object) -> None:
    log.warning("checkpoint %s is left out: %s", path, why)


def _named(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if re.fullmatch(r"step-\d{8,}", p.name))


def _recorded(path: Path, *, inputs: str) -> Checkpoint:
    record = read_json(path / "complete.json")
    check_schema(record, "complete.json")
    if record.pop("sha256", None) != _record_hash(record):
        raise StoreError("complete.json has other bytes than were written")
    if record.get("format") != FORMAT:
        raise StoreError(f"it has format {record.get('format', 1)}; this version reads {FORMAT}")
    if record["inputs"] != inputs:
        raise StoreError("it was made from other inputs than the stage has now")
    return Checkpoint(
        path=path,
        state=TrainState(**record["state"]),
        world_size=record["world_size"],
        zero_stage=record["zero_stage"],
        files={name: OutputFile(**file) for name, file in record["files"].items()},
    )


def _damage(checkpoint: Checkpoint, name: str) -> str:
    path, written = checkpoint.path / name, checkpoint.files[name]
    try:
        if path.stat().st_size != written.size:
            return f"{name} has another size than was written"
        if sha256_of(path) != written.sha256:
            return f"{name} has other bytes than were written"
    except OSError as error:
        return str(error)
    return ""


def _record_hash(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(record).encode()).hexdigest()
