"""A file of arrays is whole or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scalesweep.data.arrays import read_arrays, write_arrays

ARRAYS = {
    "ids": np.arange(7, dtype=np.int32),
    "pixels": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "none": np.zeros((0, 2), dtype=np.int64),
    "flags": np.array([True, False]),
}


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    write_arrays(tmp_path / "new" / "a.arrays", ARRAYS, meta={"version": 1})

    found = read_arrays(tmp_path / "new" / "a.arrays")

    assert found is not None
    arrays, meta = found
    assert meta == {"version": 1}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
        assert not arrays[name].flags.writeable


def test_any_cut_makes_it_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "a.arrays"
    write_arrays(file, {"ids": ARRAYS["ids"], "pixels": ARRAYS["pixels"]}, meta={})
    content = file.read_bytes()
    ends = len(content) - (-ARRAYS["pixels"].nbytes % 64)  # what follows is only padding

    for length in range(0, ends, 5):
        file.write_bytes(content[:length])
        assert read_arrays(file) is None, length


def test_a_wrong_byte_in_the_data_makes_it_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "a.arrays"
    write_arrays(file, {"pixels": ARRAYS["pixels"]}, meta={})
    content = bytearray(file.read_bytes())
    content[-64] ^= 1
    file.write_bytes(content)

    assert read_arrays(file) is None


def test_another_format_and_a_missing_file_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not an array file, but longer than its header", "utf-8")

    assert read_arrays(tmp_path / "text") is None
    assert read_arrays(tmp_path / "missing") is None
    assert read_arrays(tmp_path) is None


def test_a_reader_keeps_what_it_mapped_when_the_file_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a.arrays"
    write_arrays(file, {"x": np.arange(1000)}, meta={})
    found = read_arrays(file)
    assert found is not None

    write_arrays(file, {"x": np.zeros(5)}, meta={})

    assert np.array_equal(found[0]["x"], np.arange(1000))


def test_a_cache_that_cannot_be_written_is_only_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")

    write_arrays(tmp_path / "file" / "a.arrays", ARRAYS, meta={})

    assert "cannot be written" in caplog.text


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.arrays", ARRAYS, meta={})

    with pytest.raises(TypeError):
        write_arrays(tmp_path / "b.arrays", ARRAYS, meta={"not JSON": object()})

    assert [path.name for path in tmp_path.iterdir()] == ["a.arrays"]
