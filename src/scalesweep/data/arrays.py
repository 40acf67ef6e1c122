"""A file of named arrays for caches: memory-mapped when read, whole or not there.

    8 bytes   magic
    8 bytes   length of the header, little endian
    header    JSON: {"meta": ..., "arrays": {name: {"dtype", "shape", "offset", "crc32"}}}
    arrays    raw, each on a 64-byte boundary

A reader that finds anything wrong (cut, other bytes, other format) gets None and builds it anew, so
that a cache can be deleted or damaged at any time.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

_MAGIC = b"swarray1"
_ALIGNMENT = 64


def write_arrays(path: Path, arrays: Mapping[str, Array], *, meta: Mapping[str, Any]) -> None:
    """Publish a file of arrays: written beside, flushed, renamed over what is there.

    Processes that build the same cache at once each publish their own whole file. Where it cannot
    be written (a full disk, a read-only folder) that is logged, and no more: it is only a cache.
    """
    try:
        _publish(path, arrays, meta=meta)
    except OSError as error:
        log.warning("the cache %s cannot be written (%s); going on without", path, error.strerror)


def _publish(path: Path, arrays: Mapping[str, Array], *, meta: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    entries, offset = {}, 0
    for name, array in contiguous.items():
        entries[name] = {
            "dtype": array.dtype.str,
            "shape": array.shape,
            "offset": offset,
            "crc32": _checksum(array),
        }
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = json.dumps({"meta": dict(meta), "arrays": entries}).encode()
    header += b" " * (-(len(header) + 16) % _ALIGNMENT)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("wb") as file:
            file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
            for array in contiguous.values():
                file.write(array.data)
                file.write(b"\0" * (-array.nbytes % _ALIGNMENT))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read_arrays(path: Path) -> tuple[dict[str, Array], dict[str, Any]] | None:
    """The arrays, read-only and memory-mapped, and meta; None when missing or damaged."""
    try:
        mapped = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError):  # ValueError: an empty file
        return None
    # A plain view: slices of np.memmap cost a subclass each.
    content: npt.NDArray[np.uint8] = mapped.view(np.ndarray)
    try:
        if content[:8].tobytes() != _MAGIC:
            return None
        start = 16 + int.from_bytes(content[8:16].tobytes(), "little")
        header = json.loads(content[16:start].tobytes())
        arrays = {}
        for name, entry in header["arrays"].items():
            dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
            size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            raw = content[start + entry["offset"] :][:size]
            arrays[name] = raw.view(dtype).reshape(shape)
            if _checksum(arrays[name]) != entry["crc32"]:
                return None
        return arrays, header["meta"]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _checksum(array: Array) -> int:
    return zlib.crc32(array.reshape(-1).view(np.uint8).data)
