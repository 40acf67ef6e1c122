"""Pixels are those of transformers' CLIPImageProcessorPil, and damaged files are found."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from scalesweep.data.images import normalise, picture_defect, read_pixels
from scalesweep.errors import DataError

SHAPES = [
    pytest.param("RGB", (96, 96), id="square"),
    pytest.param("RGB", (97, 61), id="wide and odd"),
    pytest.param("RGB", (31, 200), id="tall, small"),
    pytest.param("L", (50, 70), id="grey"),
    pytest.param("P", (64, 40), id="palette"),
    pytest.param("RGBA", (120, 77), id="transparent"),
]


def noise(mode: str, size: tuple[int, int]) -> Image.Image:
    channels = 4 if mode == "RGBA" else 3
    shape = (size[1], size[0], channels)
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize(("mode", "size"), SHAPES)
@pytest.mark.parametrize("side", [32, 48, 33])
def test_pixels_equal_the_clip_processor_to_the_last_bit(
    tmp_path: Path, mode: str, size: tuple[int, int], side: int
) -> None:
    noise(mode, size).save(tmp_path / "a.png")
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )

    pixels = read_pixels(tmp_path / "a.png", side)

    with Image.open(tmp_path / "a.png") as image:
        expected = processor(image, return_tensors="pt")["pixel_values"]
    assert pixels.dtype == np.uint8
    assert torch.equal(normalise(torch.from_numpy(pixels)[None]), expected)


def test_blind_pixels_are_zero_after_normalisation() -> None:
    pixels = torch.arange(3 * 4 * 4, dtype=torch.uint8).view(1, 3, 4, 4)

    assert torch.equal(normalise(pixels, blind=True), torch.zeros(1, 3, 4, 4))
    assert normalise(pixels).abs().min() > 0


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    noise("RGB", (64, 48)).save(buffer, form)
    return buffer.getvalue()


def flip_a_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


DAMAGE: list[object] = [
    pytest.param("JPEG", lambda b: b[: len(b) // 2], "truncated", id="half a JPEG"),
    pytest.param("JPEG", lambda b: b[:-2], "truncated", id="JPEG without its end"),
    pytest.param("JPEG", lambda b: b[:10], "Truncated", id="ten bytes"),
    pytest.param("PNG", lambda b: b[: len(b) // 2], "", id="half a PNG"),
    pytest.param("PNG", flip_a_byte, "broken PNG", id="PNG with a wrong byte"),
    pytest.param("PNG", lambda _: b"<html>404</html>", "not a picture", id="an error page"),
    pytest.param("PNG", lambda _: b"", "not a picture", id="empty"),
    pytest.param("WEBP", lambda b: b[: len(b) // 2], "", id="half a WebP"),
]


@pytest.mark.parametrize(("form", "damage", "reason"), DAMAGE)
def test_a_damaged_picture_is_found(
    tmp_path: Path, form: str, damage: Callable[[bytes], bytes], reason: str
) -> None:
    file = tmp_path / "a.picture"
    file.write_bytes(damage(encoded(form)))

    defect = picture_defect(file)

    assert defect is not None
    assert defect.startswith("cannot be read (")
    assert reason in defect


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_whole_picture_has_no_defect(tmp_path: Path, form: str) -> None:
    (tmp_path / "a").write_bytes(encoded(form))

    assert picture_defect(tmp_path / "a") is None


def test_notes_behind_the_end_of_a_jpeg_are_no_defect(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG") + b"maker's notes" * 100)

    assert picture_defect(tmp_path / "a.jpg") is None


def test_reading_a_missing_or_damaged_picture_names_the_item(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(encoded("JPEG")[:-50])

    with pytest.raises(DataError, match=r"item 7: picture .*gone\.png is missing; restore"):
        read_pixels(tmp_path / "gone.png", 32, item="item 7")
    with pytest.raises(DataError, match=r"item 8: picture .*cut\.jpg cannot be read \(.*truncated"):
        read_pixels(tmp_path / "cut.jpg", 32, item="item 8")
    assert picture_defect(tmp_path / "gone.png") == "is missing"


def test_reading_in_threads_leaves_the_processs_warnings_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(path)
    before = list(warnings.filters)

    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(picture_defect, [path] * 400))

    assert found == [None] * 400
    assert warnings.filters == before
