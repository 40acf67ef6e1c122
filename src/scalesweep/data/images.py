"""Pictures: opened, checked, and brought to the form that a CLIP tower sees.

The arithmetic is that of transformers' CLIPImageProcessorPil (short side to the tower's side,
bicubic, centre crop, then mean and deviation), split in two: what is uint8 can be cached.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from scalesweep.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]

# openai/clip-vit-large-patch14 preprocessor_config.json: image_mean, image_std.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_JPEG_END = b"\xff\xd9"

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for damaged files: its PNG reader uses SyntaxError."""


class _MetadataWarnings:
    """Pillow's warnings about metadata; defects are exceptions.

    Filters of warnings are the process's, and pictures are read in several threads: each restoring
    what it found would leave the process without warnings. The first thread in sets the filter, the
    last one out takes it away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    @contextmanager
    def ignored(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._filters.__exit__(None, None, None)


METADATA_WARNINGS = _MetadataWarnings()


def picture_defect(picture: Path | bytes) -> str | None:
    """What is wrong with a picture file ("is missing"), or None; not every pixel is read.

    A truncated download is found: PNG chunks carry checksums, a JPEG that does not end with its
    end mark is decoded whole to decide, and so are other formats.
    """
    try:
        with METADATA_WARNINGS.ignored():
            with Image.open(_openable(picture)) as image:
                form = image.format
                image.verify()
            if form == "PNG" or (form == "JPEG" and _has_jpeg_end(picture)):
                return None
            with Image.open(_openable(picture)) as image:
                image.load()
    except _UNREADABLE as error:
        return _defect(error)
    return None


def _openable(picture: Path | bytes) -> Path | BytesIO:
    return BytesIO(picture) if isinstance(picture, bytes) else picture


def _has_jpeg_end(picture: Path | bytes) -> bool:
    """Whether the last bytes are the end mark (a preview in the header has one of its own)."""
    with BytesIO(picture) if isinstance(picture, bytes) else picture.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 64))
        return file.read().rstrip(b"\0\r\n ").endswith(_JPEG_END)


def _defect(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    reason = str(error).split("\n", 1)[0] or type(error).__name__
    # Pillow's "cannot identify image file '<path>'" would say the path again.
    reason = "not a picture" if reason.startswith("cannot identify") else reason
    return f"cannot be read ({reason})"


def read_pixels(picture: Path | bytes, side: int, *, item: str = "") -> Pixels:
    """A picture as the tower sees it before normalisation: uint8 [3, side, side].

    picture: its file, or the file's bytes.

    Short side to side (bicubic, antialiased), then the middle square.

    Raises:
        DataError: the file is missing or damaged; the message names item and file.
    """
    try:
        with METADATA_WARNINGS.ignored(), Image.open(_openable(picture)) as image:
            rgb = to_rgb(image)
    except _UNREADABLE as error:
        of_item = f"{item}: " if item else ""
        where = "" if isinstance(picture, bytes) else f" {picture}"
        raise DataError(
            f"{of_item}picture{where} {_defect(error)}; restore the file or take the item out of "
            "its file"
        ) from error
    return resize_and_crop(rgb, side)


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB; what is transparent lies on white, as in transformers 5."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        background = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(background, image.convert("RGBA"))
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, side: int) -> Pixels:
    """An RGB picture's middle square at the tower's side: uint8 [3, side, side]."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    new_long = int(side * long / short)  # truncated, as transformers does
    size = (side, new_long) if width <= height else (new_long, side)
    resized = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    square = np.asarray(resized, dtype=np.uint8)[top : top + side, left : left + side]
    return np.ascontiguousarray(square.transpose(2, 0, 1))  # [H, W, 3] -> [3, H, W]


def normalise(pixels: Tensor, *, blind: bool = False) -> Tensor:
    """What the tower is fed: float32, CLIP's mean and deviation; zeros for the blind baseline.

    Shapes: pixels [n, 3, H, W] uint8 -> [n, 3, H, W] float32, on the same device.

    On CPU equal to CLIPImageProcessorPil to the last bit. Zero after normalisation is CLIP's mean
    grey: it says nothing about the picture.
    """
    import torch  # here: whoever only writes or checks pictures does not pay for the import

    values = pixels.to(torch.float32)
    if blind:
        return torch.zeros_like(values)
    mean = torch.tensor(CLIP_MEAN, dtype=torch.float32, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(CLIP_STD, dtype=torch.float32, device=pixels.device).view(3, 1, 1)
    return (values / 255 - mean) / std
