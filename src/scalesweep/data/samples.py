"""The samples that a training stage learns from: several files, mixed, in tokens and pixels.

What is longer than max_seq_len is, as the file's on_long_item says,
    stop    broken (on_broken_item then decides),
    cut     trained on up to max_seq_len, as LLaVA's train.py truncates; a sample with no answer in
            front of the cut is left out (the official code trains on it without any loss),
    split   several conversations of whole turns (data/splitting.py); what is still too long, and
            any with a picture, is cut.
How many were cut, split and left out is counted, and those left out are named.
"""

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
_MOST_NAMED = 100


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
class LongItems:
    """What was done about conversations over max_seq_len, and about unanswered last questions."""

    split: int = 0
    """Conversations that became several."""
    parts: int = 0
    """What they became."""
    cut: int = 0
    """Samples that are trained on up to max_seq_len."""
    left_out: tuple[str, ...] = ()
    """One line per sample that has no answer in front of the cut."""
    unanswered: int = 0
    """Conversations that lost a last question without an answer: only where long ones are split."""

    def __add__(self, other: LongItems) -> LongItems:
        return LongItems(
            split=self.split + other.split,
            parts=self.parts + other.parts,
            cut=self.cut + other.cut,
            left_out=self.left_out + other.left_out,
            unanswered=self.unanswered + other.unanswered,
        )

    def to_json(self) -> dict[str, Any]:
        """Counts, and the first of those that were left out."""
        counts = {"split": self.split, "parts": self.parts, "cut": self.cut}
        counts |= {"left_out": len(self.left_out), "unanswered": self.unanswered}
        return {**counts, "left_out_items": list(self.left_out[:_MOST_NAMED])}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """The rows of one source that are used."""

    index: SourceIndex
    rows: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int32]
    """[rows] tokens in front of the cut, a picture being one"""
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
        long_items: LongItems,
    ) -> None:
        """weights: [3] loss weight by kind of token; see load_training_set for the rest."""
        self._parts = parts
        self._weights = weights
        self._num_patches = num_patches
        self._image_token_id = image_token_id
        self._part = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])
        self._row = np.concatenate([part.rows for part in parts])
        self._kept = np.concatenate([part.kept for part in parts])
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
        self.long_items = long_items
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
        ids, kinds = ids[: self._kept[number]], kinds[: self._kept[number]]
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

    def token_sums(self) -> dict[str, int]:
        """Sums over all samples, by the names of cost_model.token_statistics.TokenStatistics."""
        pictured = self._picture >= 0
        text = self.lengths.astype(np.int64) - np.where(pictured, self._num_patches, 0)
        text = np.maximum(text, 0)  # where a sample was cut within its picture
        return {
            "num_samples": len(self),
            "text_tokens": int(text.sum()),
            "squared_text_tokens": int((text * text).sum()),
            "pictures": int(pictured.sum()),
            "pictured_text_tokens": int(text[pictured].sum()),
            "supervised": int(self.num_supervised.sum(dtype=np.int64)),
        }

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
    parts, skipped, long_items = [], list[str](), LongItems()
    for source in spec.data:
        part, lines, long = _load_part(spec, source, roots, encoder, weights=weights, cache=cache)
        parts.append(part)
        skipped += lines
        long_items += long
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
        long_items=long_items,
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
) -> tuple[_Part, list[str], LongItems]:
    if source.dataset not in roots:
        raise DataError(f"data set {source.dataset!r} has no folder here; give its root")
    root = roots[source.dataset]
    file = SourceFile(
        root=root,
        file=source.file,
        picture_folder=source.image_folder,
        max_items=source.max_items,
        template=layout(spec),
        split_tokens=spec.max_seq_len if source.on_long_item == "split" else None,
    )
    name = f"{source.dataset}/{source.file}"
    index = source_index(file, encoder, cache=cache)
    lengths = _lengths(index, spec)
    too_long = np.flatnonzero(lengths > spec.max_seq_len)
    stops = source.on_long_item == "stop" or spec.method is Method.tower
    unfit = _unfit(index, spec, lengths, too_long if stops else too_long[:0])
    skipped = raise_or_list(
        sorted([*index.broken, *unfit.values()], key=lambda item: item.position),
        path=file.path,
        name=name,
        num_items=index.num_items,
        on_broken_item=source.on_broken_item or spec.on_broken_item,
    )
    kept = np.diff(index.token_starts).astype(np.int32)
    lost, uncut = set[int](), lengths
    if not stops:
        lengths = np.minimum(lengths, spec.max_seq_len)
        kept[too_long] -= uncut[too_long] - lengths[too_long]
        lost = _without_answer(index, too_long, kept)
    rows = np.array(
        [row for row in range(len(index)) if row not in unfit and row not in lost], dtype=np.int64
    )
    if not len(rows):
        raise DataError(f"{file.path}: no item has an answer within max_seq_len {spec.max_seq_len}")
    supervised = (weights != 0).astype(np.float32)
    part = _Part(
        index=index,
        rows=rows,
        kept=kept[rows],
        lengths=lengths[rows],
        loss_weight_sums=_loss_weight_sums(index, weights, kept)[rows],
        num_supervised=_loss_weight_sums(index, supervised, kept)[rows].astype(np.int32),
    )
    if stops:
        return part, skipped, LongItems()
    return part, skipped, _long_items(index, too_long, lost - unfit.keys(), uncut, spec, name=name)


def _without_answer(
    index: SourceIndex, too_long: npt.NDArray[np.int64], kept: npt.NDArray[np.int32]
) -> set[int]:
    """Rows with no answer in front of the cut.

    A picture stands before all answers, so whatever is cut within it is among them.
    """
    return {
        row
        for row in too_long.tolist()
        if not (index.tokens(row)[1][: max(0, kept[row])] == ANSWER).any()
    }


def _long_items(
    index: SourceIndex,
    too_long: npt.NDArray[np.int64],
    lost: set[int],
    lengths: npt.NDArray[np.int32],
    spec: TrainingSpec,
    *,
    name: str,
) -> LongItems:
    _, times = np.unique(index.positions, return_counts=True)
    defects = [
        BrokenItem(
            int(index.positions[row]),
            index.ids[row],
            f"is {lengths[row]} tokens long and has no answer in the first {spec.max_seq_len}",
        )
        for row in sorted(lost)
    ]
    long_items = LongItems(
        split=int((times > 1).sum()),
        parts=int(times[times > 1].sum()),
        cut=len(too_long) - len(lost),
        left_out=tuple(f"{name}, {defect}" for defect in defects),
        unanswered=index.num_unanswered,
    )
    if long_items != LongItems():
        log.info(
            "%s: %d conversations over %d tokens are %d samples, %d samples are cut, %d left out "
            "as they have no answer in front of the cut, %d lost an unanswered question",
            name,
            long_items.split,
            spec.max_seq_len,
            long_items.parts,
            long_items.cut,
            len(defects),
            long_items.unanswered,
        )
    for defect in long_items.left_out[:_MOST_LOGGED]:
        log.warning("left out: %s", defect)
    return long_items


def _lengths(index: SourceIndex, spec: TrainingSpec) -> npt.NDArray[np.int32]:
    num_patches = 0 if spec.tower is None else spec.tower.num_patches
    if spec.method is Method.tower:
        return np.full(len(index), num_patches, dtype=np.int32)
    has_image = index.picture_rows >= 0
    lengths: npt.NDArray[np.int32] = np.diff(index.token_starts).astype(np.int32)
    lengths += has_image * np.int32(num_patches - 1)
    return lengths


def _loss_weight_sums(
    index: SourceIndex, weights: npt.NDArray[np.float32], kept: npt.NDArray[np.int32]
) -> npt.NDArray[np.float32]:
    """Of the tokens that are kept of each row."""
    if not len(index.token_ids):
        return np.ones(len(index), dtype=np.float32)
    starts = index.token_starts[:-1]
    # Minus the first token of each item, which nothing predicts.
    sums = -weights[index.token_kinds[starts]].astype(np.float64)
    for kind in (PROMPT, ANSWER):
        counts = np.add.reduceat(index.token_kinds == kind, starts, dtype=np.int64)
        sums += float(weights[kind]) * counts
    for row in np.flatnonzero(kept < np.diff(index.token_starts)).tolist():
        sums[row] = weights[index.tokens(row)[1][1 : max(1, kept[row])]].sum(dtype=np.float64)
    return sums.astype(np.float32)


def _unfit(
    index: SourceIndex,
    spec: TrainingSpec,
    lengths: npt.NDArray[np.int32],
    too_long: npt.NDArray[np.int64],
) -> dict[int, BrokenItem]:
    """Rows that this stage cannot use, though nothing is wrong with the item itself."""
    unfit = {}
    if spec.method is not Method.tower:
        for row in too_long.tolist():
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
