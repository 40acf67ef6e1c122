"""Records of a .wandb file as bytes, read without wandb.

The file is framed as LevelDB frames its logs: seven bytes of header, then blocks of 32 KiB in which
chunks lie, each with a checksum; a record too long for a block is cut into several chunks. wandb
0.31 has no reader for Python (`wandb.sdk.internal.datastore` is gone).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_FILE_HEADER = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
_CHUNK_HEADER = struct.Struct("<IHB")  # checksum, length, type
_BLOCK = 32768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[bytes]:
    """Whole records, in order; the first torn or damaged one ends them quietly."""
    data = path.read_bytes()
    if not data.startswith(_FILE_HEADER):
        return
    record = b""
    for kind, chunk in _chunks(data, at=len(_FILE_HEADER)):
        record = chunk if kind in (_FULL, _FIRST) else record + chunk
        if kind in (_FULL, _LAST):
            yield record


def _chunks(data: bytes, *, at: int) -> Iterator[tuple[int, bytes]]:
    while at + _CHUNK_HEADER.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _CHUNK_HEADER.size:
            at += left
            continue
        checksum, length, kind = _CHUNK_HEADER.unpack_from(data, at)
        if kind == 0 and length == 0:  # the rest of the block is padding
            at += left
            continue
        at += _CHUNK_HEADER.size
        chunk = data[at : at + length]
        if len(chunk) < length or zlib.crc32(bytes([kind]) + chunk) != checksum:
            return
        yield kind, chunk
        at += length
