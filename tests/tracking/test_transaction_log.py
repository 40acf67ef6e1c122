"""The framing of .wandb files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from scalesweep.tracking.transaction_log import records

HEADER = b":W&B\xe1\xbe\x00"
FULL, FIRST, LAST = 1, 2, 4


def chunk(kind: int, data: bytes) -> bytes:
    return struct.pack("<IHB", zlib.crc32(bytes([kind]) + data), len(data), kind) + data


def read(tmp_path: Path, data: bytes) -> list[bytes]:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(data)
    return list(records(path))


def test_records_come_back_whole(tmp_path: Path) -> None:
    data = HEADER + chunk(FULL, b"one") + chunk(FIRST, b"tw") + chunk(LAST, b"o")

    assert read(tmp_path, data) == [b"one", b"two"]


@pytest.mark.parametrize("num_left", [6, 20], ids=["no room for a header", "padding"])
def test_the_rest_of_a_block_is_passed_over(tmp_path: Path, num_left: int) -> None:
    long = bytes(32768 - len(HEADER) - 7 - num_left)

    data = HEADER + chunk(FULL, long) + bytes(num_left) + chunk(FULL, b"next")

    assert read(tmp_path, data) == [long, b"next"]


@pytest.mark.parametrize(
    "tail",
    [chunk(FULL, b"lost")[:-1], b"\0\0\0\0" + chunk(FULL, b"lost")[4:], chunk(FIRST, b"lost")],
    ids=["torn", "wrong checksum", "without its end"],
)
def test_a_damaged_record_ends_the_file(tmp_path: Path, tail: bytes) -> None:
    assert read(tmp_path, HEADER + chunk(FULL, b"kept") + tail) == [b"kept"]


@pytest.mark.parametrize("data", [b"", b"something else"], ids=["empty", "no .wandb file"])
def test_what_is_no_wandb_file_has_no_records(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) == []
