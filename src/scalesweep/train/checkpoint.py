"""Checkpoints: written beside, hashed, renamed; the newest whole one is resumed from.

checkpoints/step-00000050/
  engine/         what learns and the optimizer, by DeepSpeed
  rank-000.pt     random state of each rank
  complete.json   step, samples seen, world size, digest of the stage's inputs, sha256 of every
                  other file and of this record itself; written last
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scalesweep.errors import StoreError
from scalesweep.records import SCHEMA, canonical_json, check_schema
from scalesweep.rundir import fsync_directory, output_files, read_json, sha256_of, write_json

log = logging.getLogger(__name__)

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
    """A complete, verified checkpoint."""

    path: Path
    state: TrainState
    world_size: int
    zero_stage: int


def random_state() -> dict[str, Any]:
    """Every generator that training may draw from."""
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def begun(folder: Path, step: int) -> Path:
    """Where the ranks write a checkpoint before it is complete."""
    return folder / f".step-{step:08d}.part"


def complete(
    folder: Path,
    state: TrainState,
    *,
    world_size: int,
    zero_stage: int,
    inputs: str,
    kept: int = KEPT,
) -> Path:
    """Hash what all ranks wrote, make it durable, and give it its name; rank zero calls it.

    inputs: digest of what the stage reads (StageContext.inputs_digest).
    """
    part = begun(folder, state.step)
    files = output_files(part)
    for name in files:
        with (part / name).open("rb") as file:
            os.fsync(file.fileno())
    for path in part.rglob("*"):
        if path.is_dir():
            fsync_directory(path)
    record = {
        "schema": SCHEMA,
        "state": asdict(state),
        "world_size": world_size,
        "zero_stage": zero_stage,
        "inputs": inputs,
        "files": {name: asdict(file) for name, file in files.items()},
    }
    write_json(part / "complete.json", {**record, "sha256": _record_hash(record)})
    whole = folder / f"step-{state.step:08d}"
    if whole.exists():
        shutil.rmtree(whole)
    part.rename(whole)
    fsync_directory(folder)
    for old in _named(folder)[:-kept]:
        shutil.rmtree(old, ignore_errors=True)
    return whole


def prune_earlier(folder: Path, earlier: Sequence[Path], *, kept: int = KEPT) -> None:
    """Remove checkpoints of earlier attempts once this attempt has enough of its own.

    Every interruption would leave a set behind otherwise; at full size they fill a file system.
    """
    if len(_named(folder)) >= kept:
        for other in earlier:
            for old in _named(other):
                shutil.rmtree(old, ignore_errors=True)


def newest_complete(folders: Sequence[Path], *, inputs: str) -> Checkpoint | None:
    """The checkpoint with the most steps whose every byte is as it was written.

    A torn, truncated or bit-flipped one is named in the log, and the one before it is taken. One
    that was made from other inputs (a parent was made again since) is left out too.
    """
    found = [path for folder in folders for path in _named(folder)]
    for path in sorted(found, key=lambda path: path.name, reverse=True):
        try:
            return _verified(path, inputs=inputs)
        except (OSError, StoreError, KeyError, TypeError, ValueError) as error:
            log.warning("checkpoint %s is left out: %s", path, error)
    return None


def _named(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if re.fullmatch(r"step-\d{8,}", p.name))


def _verified(path: Path, *, inputs: str) -> Checkpoint:
    record = read_json(path / "complete.json")
    check_schema(record, "complete.json")
    if record.pop("sha256", None) != _record_hash(record):
        raise StoreError("complete.json has other bytes than were written")
    if record["inputs"] != inputs:
        raise StoreError("it was made from other inputs than the stage has now")
    for name, file in record["files"].items():
        if (path / name).stat().st_size != file["size"]:
            raise StoreError(f"{name} has another size than was written")
        if sha256_of(path / name) != file["sha256"]:
            raise StoreError(f"{name} has other bytes than were written")
    return Checkpoint(
        path=path,
        state=TrainState(**record["state"]),
        world_size=record["world_size"],
        zero_stage=record["zero_stage"],
    )


def _record_hash(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(record).encode()).hexdigest()
