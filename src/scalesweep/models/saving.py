"""Weights written in shards as safetensors, one tensor at a time.

The counterpart of loading.py: memory holds one tensor, however large the model.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from scalesweep.rundir import write_json

SHARD_BYTES = 4 << 30

_HEADER_BYTES_PER_TENSOR = 256
"""A name, a dtype, a shape of a few numbers and two offsets; what is not needed stays blank."""

# https://github.com/huggingface/safetensors, README, "Format".
_DTYPE_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
}


def write_shards(
    tensors: Iterable[tuple[str, Tensor]],
    folder: Path,
    *,
    num_tensors: int,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """model.safetensors, or shards of it with their index, flushed to disk; bytes of all tensors.

    tensors: name and tensor, made one after the other; none is kept.
    num_tensors: at most so many; room for their names is left in front of each file.
    """
    room = 4096 + num_tensors * _HEADER_BYTES_PER_TENSOR
    shards: list[_Shard] = []
    try:
        for name, tensor in tensors:
            if not shards or shards[-1].num_bytes + _num_bytes(tensor) > shard_bytes:
                if shards:
                    shards[-1].complete()
                shards.append(_Shard(folder / f"shard-{len(shards)}.part", room=room))
            shards[-1].write(name, tensor)
        if shards:
            shards[-1].complete()
    finally:
        for shard in shards:
            shard.close()
    files = (
        ["model.safetensors"]
        if len(shards) == 1
        else [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    )
    for shard, file in zip(shards, files, strict=True):
        shard.path.rename(folder / file)
    total = sum(shard.num_bytes for shard in shards)
    if len(shards) > 1:
        weight_map = {
            name: file for shard, file in zip(shards, files, strict=True) for name in shard.entries
        }
        write_json(
            folder / "model.safetensors.index.json",
            {"metadata": {"total_size": total}, "weight_map": weight_map},
        )
    return total


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _Shard:
    """One safetensors file, written without knowing beforehand what it will hold.

    Room for the header is left in front and filled at the end. Tensors whose length would misalign
    those behind them come last.
    """

    def __init__(self, path: Path, *, room: int) -> None:
        self.path = path
        self.entries: dict[str, Any] = {}
        self.num_bytes = 0
        self._room = room
        self._offset = 0
        self._late: list[tuple[str, Tensor]] = []
        self._file: BinaryIO = path.open("wb")
        self._file.seek(8 + room)

    def write(self, name: str, tensor: Tensor) -> None:
        self.num_bytes += _num_bytes(tensor)
        if _num_bytes(tensor) % 8:
            self._late.append((name, tensor))
        else:
            self._append(name, tensor)

    def _append(self, name: str, tensor: Tensor) -> None:
        length = _num_bytes(tensor)
        self.entries[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [self._offset, self._offset + length],
        }
        if length:
            flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            self._file.write(flat.numpy().data)
        self._offset += length

    def complete(self) -> None:
        """Write what was put off and the header; flush."""
        for name, tensor in sorted(self._late, key=lambda late: -late[1].element_size()):
            self._append(name, tensor)
        self._late.clear()
        header = json.dumps(
            {"__metadata__": {"format": "pt"}, **self.entries}, separators=(",", ":")
        ).encode()
        assert len(header) <= self._room, f"{len(header)} > {self._room} bytes of header"
        self._file.seek(0)
        self._file.write(struct.pack("<Q", self._room) + header.ljust(self._room))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def close(self) -> None:
        self._file.close()
