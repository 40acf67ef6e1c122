"""The samples that a training stage learns from: several files, mixed, in tokens and pixels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scalesweep.data.images import Pixels
from scalesweep.data.index import SourceFile, SourceIndex, source_index
from scalesweep.data.pixels import Picture, PixelSource
from scalesweep.data.readers import BrokenItem, raise_or_list
from scalesweep.data.tokenize import ANSWER, MASKED, PROMPT, TextEncoder
from scalesweep.errors import DataError
from scalesweep.specs import DataSourceSpec, Method, TrainingSpec

log = logging.getLogger(__name__)

_MOST_LOGGED = 20
"""Skipped items named in the log; TrainingSet.skipped names them all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One conversation, ready for the model."""

    sample_id: str
    input_ids: npt.NDArray[np.int32]
    """[T] with <image> expanded to one image token per patch; empty when a tower is trained."""
    loss_weights: npt.NDArray[np.float32]
    """[T] weight of predicting input_ids[t]: 1 in answers; 0 for pictures, BOS and the first token;
    prompt_loss_weight elsewhere."""
    image: Path | None
    """None: text only."""
    text: str
    """What the model is to say, answers joined by spaces; for a tower, the caption."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """The rows of one source that are used."""

    index: SourceIndex
    rows: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    """[rows] tokens, pictures expanded"""
    loss_weight_sums: npt.NDArray[np.float32]
    """[rows]"""
    num_supervised: npt.NDArray[np.int32]
    """[rows]"""


class TrainingSet:
    """All samples of a stage, sources one after the other; order.py shuffles them."""

    def __init__(
        self,
        parts: Sequence[_Part],
        *,
        weights: npt.NDArray[np.float32],
        num_patches: int,
        image_token_id: int,
        skipped: Sequence[str],
    ) -> None:
        """weights: [3] loss weight by kind of token; see load_training_set for the rest."""
        self._parts = parts
        self._weights = weights
        self._num_patches = num_patches
        self._image_token_id = image_token_id
        self._part = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])
        self._row = np.concatenate([part.rows for part in parts])
        self.lengths: npt.NDArray[np.int32] = np.concatenate([part.lengths for part in parts])
        """[N] tokens of each sample with its picture expanded; for a tower, its patches."""
        self.loss_weight_sums: npt.NDArray[np.float32] = np.concatenate(
            [part.loss_weight_sums for part in parts]
        )
        """[N] sum of each sample's loss_weights; for a tower, 1."""
        self.num_supervised: npt.NDArray[np.int32] = np.concatenate(
            [part.num_supervised for part in parts]
        )
        """[N] tokens of each sample that have a loss weight; for a tower, 1."""
        self.skipped = list(skipped)
        """One line per broken item that was left out."""
        self._picture, self._pictures = _number_pictures(parts)
        self._pixels: PixelSource | None = None
        self._side = 0

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, number: int) -> Sample:
        index, row = self._parts[self._part[number]].index, int(self._row[number])
        input_ids, loss_weights = self.sequence(number)
        picture_row = index.picture_rows[row]
        return Sample(
            sample_id=index.ids[row],
            input_ids=input_ids,
            loss_weights=loss_weights,
            image=None if picture_row < 0 else index.picture(picture_row),
            text=index.says[row],
        )

    def sequence(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """A sample's input_ids and loss_weights alone: what a training step needs, each [T]."""
        index, row = self._parts[self._part[number]].index, int(self._row[number])
        ids, kinds = index.tokens(row)
        weights = self._weights[kinds]
        weights[:1] = 0.0  # nothing comes before the first token, so nothing predicts it
        places = np.flatnonzero(ids == self._image_token_id)
        if not len(places):
            return ids, weights
        repeats = np.ones(len(ids), dtype=np.int64)
        repeats[places] = self._num_patches
        return np.repeat(ids, repeats), np.repeat(weights, repeats)

    def text(self, number: int) -> str:
        """What the model is to say, as in Sample."""
        index, row = self._parts[self._part[number]].index, int(self._row[number])
        text: str = index.says[row]
        return text

    def has_image(self, number: int) -> bool:
        return bool(self._picture[number] >= 0)

    def open_pixels(self, *, side: int, cache: Path, blind: bool) -> None:
        """Make pixels() ready; blind sets never read a picture.

        Raises:
            DataError: a picture cannot be decoded; the message names its item.
        """
        self._side = side
        if not blind and len(self._pictures):
            stamps = np.stack([self._parts[p].index.stamps[row] for p, row, _ in self._pictures])
            self._pixels = PixelSource(self._picture_file, stamps, side=side, cache=cache)

    def pixels(self, numbers: Sequence[int]) -> Pixels:
        """Pictures of samples that have one: uint8 [n, 3, H, W] as the tower sees them, before
        images.normalise; zeros in a blind set.

        Raises:
            DataError: a picture cannot be decoded; the message names its item.
        """
        pictures = self._picture[np.asarray(numbers, dtype=np.int64)]
        assert (pictures >= 0).all(), "asked for the pixels of a text-only sample"
        if self._pixels is None:
            return np.zeros((len(pictures), 3, self._side, self._side), dtype=np.uint8)
        return self._pixels(pictures)

    def _picture_file(self, picture: int) -> Picture:
        part, picture_row, row = self._pictures[picture]
        index = self._parts[part].index
        return Picture(index.picture(picture_row), index.describe(row))


def load_training_set(
    spec: TrainingSpec, *, roots: Mapping[str, Path], tokenizer: Any, cache: Path
) -> TrainingSet:
    """All samples of a stage, from the cache where they were prepared before.

    roots: data set -> its folder (data.stage.dataset_root).
    tokenizer: a fast Hugging Face tokenizer; None for a tower.

    Raises:
        DataError: a file cannot be read, or an item is broken and on_broken_item is "stop"; the
            message names file, item and defect, and how many more there are.
    """
    encoder = None if spec.model is None else TextEncoder(tokenizer)
    weights = np.zeros(3, dtype=np.float32)
    weights[[MASKED, PROMPT, ANSWER]] = 0.0, spec.prompt_loss_weight, 1.0
    parts, skipped = [], list[str]()
    for source in spec.data:
        part, lines = _load_part(spec, source, roots, encoder, weights=weights, cache=cache)
        parts.append(part)
        skipped += lines
    for line in skipped[:_MOST_LOGGED]:
        log.warning("skipped: %s", line)
    if len(skipped) > _MOST_LOGGED:
        log.warning("skipped: %d more broken items", len(skipped) - _MOST_LOGGED)
    training_set = TrainingSet(
        parts,
        weights=weights,
        num_patches=0 if spec.tower is None else spec.tower.num_patches,
        image_token_id=-1 if encoder is None else encoder.image_token_id,
        skipped=skipped,
    )
    if spec.tower is not None:
        training_set.open_pixels(side=spec.tower.image_size, cache=cache, blind=spec.blind)
    return training_set


def layout(spec: TrainingSpec) -> str | None:
    """How the stage's items are written out: a template, or None where there are no tokens."""
    if spec.method is Method.tower:
        return None
    if spec.method is Method.projector and spec.template == "mini":
        return "mini_caption"
    return spec.template


def _load_part(
    spec: TrainingSpec,
    source: DataSourceSpec,
    roots: Mapping[str, Path],
    encoder: TextEncoder | None,
    *,
    weights: npt.NDArray[np.float32],
    cache: Path,
) -> tuple[_Part, list[str]]:
    if source.dataset not in roots:
        raise DataError(f"data set {source.dataset!r} has no folder here; give its root")
    root = roots[source.dataset]
    file = SourceFile(
        root=root,
        file=source.file,
        picture_folder=source.image_folder,
        max_items=source.max_items,
        template=layout(spec),
    )
    index = source_index(file, encoder, cache=cache)
    lengths, sums = _lengths(index, spec), _loss_weight_sums(index, weights)
    unfit = _unfit(index, spec, lengths)
    skipped = raise_or_list(
        sorted([*index.broken, *unfit.values()], key=lambda item: item.position),
        path=file.path,
        name=f"{source.dataset}/{source.file}",
        num_items=index.num_items,
        on_broken_item=spec.on_broken_item,
    )
    rows = np.array([row for row in range(len(index)) if row not in unfit], dtype=np.int64)
    supervised = _loss_weight_sums(index, (weights != 0).astype(np.float32)).astype(np.int32)
    part = _Part(
        index=index,
        rows=rows,
        lengths=lengths[rows],
        loss_weight_sums=sums[rows],
        num_supervised=supervised[rows],
    )
    return part, skipped


def _lengths(index: SourceIndex, spec: TrainingSpec) -> npt.NDArray[np.int32]:
    num_patches = 0 if spec.tower is None else spec.tower.num_patches
    if spec.method is Method.tower:
        return np.full(len(index), num_patches, dtype=np.int32)
    has_image = index.picture_rows >= 0
    lengths: npt.NDArray[np.int32] = np.diff(index.token_starts).astype(np.int32)
    lengths += has_image * np.int32(num_patches - 1)
    return lengths


def _loss_weight_sums(
    index: SourceIndex, weights: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    if not len(index.token_ids):
        return np.ones(len(index), dtype=np.float32)
    starts = index.token_starts[:-1]
    # Minus the first token of each item, which nothing predicts.
    sums = -weights[index.token_kinds[starts]].astype(np.float64)
    for kind in (PROMPT, ANSWER):
        counts = np.add.reduceat(index.token_kinds == kind, starts, dtype=np.int64)
        sums += float(weights[kind]) * counts
    return sums.astype(np.float32)


def _unfit(
    index: SourceIndex, spec: TrainingSpec, lengths: npt.NDArray[np.int32]
) -> dict[int, BrokenItem]:
    """Rows that this stage cannot use, though nothing is wrong with the item itself."""
    unfit = {}
    if spec.method is not Method.tower:
        for row in np.flatnonzero(lengths > spec.max_seq_len).tolist():
            defect = f"is {lengths[row]} tokens long, over max_seq_len {spec.max_seq_len}"
            unfit[row] = BrokenItem(int(index.positions[row]), index.ids[row], defect)
    if spec.tower is None:
        for row in np.flatnonzero(index.picture_rows >= 0).tolist():
            defect = "has a picture, but the language model is trained alone"
            unfit[row] = BrokenItem(int(index.positions[row]), index.ids[row], defect)
    return unfit


def _number_pictures(
    parts: Sequence[_Part],
) -> tuple[npt.NDArray[np.int64], list[tuple[int, int, int]]]:
    """Number of each sample's picture (-1: none), and (part, picture row, a row that shows it).

    A picture that several items of a source show has one number.
    """
    numbers, pictures = [], list[tuple[int, int, int]]()
    for number, part in enumerate(parts):
        shown = part.index.picture_rows[part.rows]
        unique, first, inverse = np.unique(shown, return_index=True, return_inverse=True)
        text_only = int(np.count_nonzero(unique < 0))  # 0 or 1: -1 sorts first
        numbers.append(np.where(shown < 0, -1, inverse - text_only + len(pictures)))
        pictures += [
            (number, int(row), int(part.rows[place]))
            for row, place in zip(unique[text_only:], first[text_only:], strict=True)
        ]
    return np.concatenate(numbers), pictures
