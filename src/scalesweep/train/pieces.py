"""What a checkpoint holds of each rank: pieces of parameters and of their moments.

Every rank writes what it owns, and nothing else: its part of each parameter under ZeRO, an even
share where all ranks hold the same. A piece says which part of which parameter it is, so that any
number of ranks under any ZeRO stage finds what it needs in the files of all.

rank-000.safetensors
  weight:NAME exp_avg:NAME exp_avg_sq:NAME   float32 [length]
  random                                     uint8, the rank's generators (torch.save)
  __metadata__["pieces"]                     {NAME: [start, length, numel, steps]} as JSON

The weight is the optimizer's own, in fp32; what the model computes with is rounded from it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scalesweep.errors import StoreError
from scalesweep.records import OutputFile

MOMENTS = ("exp_avg", "exp_avg_sq")
RANDOM = "random"
_CHUNK_BYTES = 1 << 24
_TYPES = {torch.float32: "F32", torch.uint8: "U8"}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of one parameter that learns, as views of what the optimizer holds."""

    name: str
    start: int
    """Of the piece, in the flattened parameter."""
    numel: int
    """Of the whole parameter."""
    weight: Tensor
    """[length] float32"""
    moments: Mapping[str, Tensor]
    """Name -> [length] float32; empty before the first step."""
    steps: int
    """How often the optimizer stepped it: what AdamW corrects its moments by."""


def contents(pieces: Sequence[Piece], random: Tensor) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a rank's file. random: [n] uint8"""
    tensors = {RANDOM: random}
    table = {}
    for piece in pieces:
        table[piece.name] = [piece.start, len(piece.weight), piece.numel, piece.steps]
        tensors[f"weight:{piece.name}"] = piece.weight
        for moment, value in piece.moments.items():
            tensors[f"{moment}:{piece.name}"] = value
    return tensors, {"pieces": json.dumps(table)}


def rank_file(rank: int) -> str:
    return f"rank-{rank:03d}.safetensors"


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> OutputFile:
    """Write a safetensors file, durably; its size and hash, taken on the way.

    safetensors' own writer wants all of it in host memory at once, and the hash would need every
    byte to be read again.
    """
    digest = hashlib.sha256()
    size = 0
    with path.open("wb") as file:
        for chunk in _serialised(tensors, metadata):
            digest.update(chunk)
            file.write(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return OutputFile(size=size, sha256=digest.hexdigest())


def _serialised(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Iterator[bytes | memoryview]:
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    # The widest first: each begins where its type may begin.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        data: Any = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
        data = memoryview(data)
        for begin in range(0, len(data), _CHUNK_BYTES):
            yield data[begin : begin + _CHUNK_BYTES]


@dataclass(kw_only=True)
class SavedPieces:
    """Reads the pieces in the files of all ranks of a checkpoint."""

    folder: Path
    world_size: int
    _found: dict[str, list[_Found]] = field(default_factory=dict)
    _files: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        for rank in range(self.world_size):
            path = self.folder / rank_file(rank)
            try:
                file: Any = safe_open(path, framework="pt")
            except SafetensorError as error:
                raise StoreError(f"{path} is damaged: {error}") from error
            self._files.append(file)
            for name, (start, length, numel, steps) in json.loads(
                file.metadata()["pieces"]
            ).items():
                found = _Found(start=start, length=length, numel=numel, steps=steps, file=file)
                self._found.setdefault(name, []).append(found)

    @property
    def names(self) -> set[str]:
        return set(self._found)

    def random(self, rank: int) -> Tensor:
        return self._files[rank].get_tensor(RANDOM)  # type: ignore[no-any-return]

    def steps(self, name: str) -> int:
        return max(found.steps for found in self._found[name])

    def read(self, kind: str, name: str, *, start: int, length: int, numel: int) -> Tensor:
        """A part of a parameter or of a moment of it, from whatever files hold it: [length].

        Raises:
            StoreError: the parameter has another size here, or a part is in no file.
        """
        value = torch.empty(length, dtype=torch.float32)
        missing = length
        for found in self._found.get(name, []):
            if found.numel != numel:
                raise StoreError(
                    f"{self.folder}: {name} has {found.numel} elements and {numel} in this model"
                )
            begin, end = max(start, found.start), min(start + length, found.start + found.length)
            if begin < end:
                part = found.file.get_slice(f"{kind}:{name}")[
                    begin - found.start : end - found.start
                ]
                value[begin - start : end - start] = part
                missing -= end - begin
        if missing:
            raise StoreError(f"{self.folder}: {missing} elements of {kind} of {name} are missing")
        return value


@dataclass(frozen=True, kw_only=True)
class _Found:
    start: int
    length: int
    numel: int
    steps: int
    file: Any
