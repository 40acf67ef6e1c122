"""From the seeded order of samples to the micro-batches of one rank. Knows no model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scalesweep.data.order import sample_order
from scalesweep.data.packing import pack
from scalesweep.data.samples import TrainingSet
from scalesweep.models.flops import Work

NO_SAMPLE = -1
"""Stands for a place in a micro-batch that no sample fills."""


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one device sees in one forward pass. B rows, T tokens, n pictures."""

    input_ids: Tensor
    """[B, T] int64: a sample a row, padded on the right; or packed, one row of many samples"""
    lengths: tuple[int, ...] | None
    """Tokens of each sample of a packed row, one behind the other; None: rows are padded"""
    loss_weights: Tensor
    """[B, T] float32, weight of predicting input_ids[:, t]; 0 on padding"""
    pixels: Tensor
    """[n, 3, H, W] uint8, in the order of the rows that have one; one dummy where none has"""
    num_pictures: int
    """0: pixels hold a dummy"""
    texts: Sequence[str]
    """What each row is to say"""
    num_tokens: int
    """Without padding"""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step of one rank."""

    micro_batches: Sequence[MicroBatch]
    loss_weight: float
    """Sum of loss weights over all ranks: what the loss is divided by."""
    num_tokens: int
    """Over all ranks, without padding"""
    num_computed_tokens: int
    """Over all ranks, padding and dummies included"""
    num_samples: int
    work: Work
    """Over all ranks, without padding: what its arithmetic is counted from"""


def step_samples(
    num_samples: int, *, seed: int, samples_seen: int, global_batch_size: int
) -> list[int]:
    """Samples of the step that begins after samples_seen; knows nothing of ranks."""
    order = sample_order(num_samples, seed=seed, start=samples_seen)
    return list(itertools.islice(order, global_batch_size))


def rank_share(
    samples: Sequence[int], *, rank: int, world_size: int, micro_batch_size: int
) -> list[list[int]]:
    """Micro-batches of one rank: equally many on every rank, dummies where samples run out.

    Ranks take turns (rank, rank + world_size, ...), so that shares differ by one sample at most.
    """
    passes = -(-len(samples) // (micro_batch_size * world_size))
    mine = list(samples[rank::world_size])
    parts = [mine[i * micro_batch_size : (i + 1) * micro_batch_size] for i in range(passes)]
    return [part or [NO_SAMPLE] for part in parts]


DUMMY_TOKENS = 2
"""Of a micro-batch without a sample: one to predict the next, with weight 0."""


class StepMaker:
    """Makes the steps of one rank from a training set."""

    def __init__(
        self,
        data: TrainingSet,
        *,
        seed: int,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        pad_token_id: int,
        picture_side: int | None,
        micro_batch_tokens: int = 0,
        pad_to_multiple: int = 1,
    ) -> None:
        """micro_batch_tokens: tokens of a pack; 0: padded rows, micro_batch_size of them.

        pad_to_multiple: packs end with a dummy up to a multiple of it, for compiled kernels.
        """
        self._data = data
        self._seed = seed
        self._global_batch_size = global_batch_size
        self._micro_batch_size = micro_batch_size
        self._micro_batch_tokens = micro_batch_tokens
        self._multiple = pad_to_multiple
        self._rank, self._world_size = rank, world_size
        self._pad = pad_token_id
        self._side = picture_side
        self._packed_step: tuple[tuple[int, ...], list[list[int]]] | None = None
        """The step packed last: all ranks' shares come of one packing."""

    def steps(self, *, samples_seen: int) -> Iterator[Step]:
        """Endless steps, from the one that begins after samples_seen."""
        size = self._global_batch_size
        order = sample_order(len(self._data), seed=self._seed, start=samples_seen)
        while True:
            yield self.step(list(itertools.islice(order, size)))

    def step(self, samples: Sequence[int]) -> Step:
        index = np.asarray(samples)
        shares = [self._share(samples, rank) for rank in range(self._world_size)]
        collate = self._packed if self._micro_batch_tokens else self._padded
        return Step(
            micro_batches=[collate(part) for part in shares[self._rank]],
            loss_weight=float(self._data.loss_weight_sums[index].sum(dtype=np.float64)),
            num_tokens=int(self._data.lengths[index].sum()),
            num_computed_tokens=sum(self._computed(part) for share in shares for part in share),
            num_samples=len(samples),
            work=Work.of(
                self._data.lengths[index].tolist(),
                num_supervised=int(self._data.num_supervised[index].sum()),
                num_pictures=sum(self._data.has_image(n) for n in samples),
            ),
        )

    def _share(self, samples: Sequence[int], rank: int) -> list[list[int]]:
        """Micro-batches of a rank, as numbers of samples."""
        if not self._micro_batch_tokens:
            return rank_share(
                samples,
                rank=rank,
                world_size=self._world_size,
                micro_batch_size=self._micro_batch_size,
            )
        packs = self._packs(tuple(samples))
        return [[samples[place] for place in pack] for pack in packs[rank :: self._world_size]]

    def _packs(self, samples: tuple[int, ...]) -> list[list[int]]:
        if self._packed_step is None or self._packed_step[0] != samples:
            lengths = self._data.lengths[np.asarray(samples)].tolist()
            packs = pack(lengths, capacity=self._micro_batch_tokens, multiple=self._world_size)
            self._packed_step = samples, packs
        return self._packed_step[1]

    def _computed(self, part: Sequence[int]) -> int:
        """Tokens of a micro-batch, padding and dummies included."""
        lengths = [int(self._data.lengths[n]) for n in part if n != NO_SAMPLE] or [DUMMY_TOKENS]
        if not self._micro_batch_tokens:
            return max(lengths) * len(lengths)
        return -(-sum(lengths) // self._multiple) * self._multiple

    def _padded(self, numbers: Sequence[int]) -> MicroBatch:
        real = [n for n in numbers if n != NO_SAMPLE]
        rows = [self._data.sequence(n) for n in real]
        width = max([len(input_ids) for input_ids, _ in rows] or [DUMMY_TOKENS])
        ids = np.full((max(1, len(rows)), width), self._pad, dtype=np.int64)
        weights = np.zeros((max(1, len(rows)), width), dtype=np.float32)
        for i, (input_ids, loss_weights) in enumerate(rows):
            ids[i, : len(input_ids)] = input_ids
            weights[i, : len(loss_weights)] = loss_weights
        return self._micro_batch(real, ids, weights, lengths=None)

    def _packed(self, numbers: Sequence[int]) -> MicroBatch:
        rows = [self._data.sequence(n) for n in numbers]
        lengths = [len(input_ids) for input_ids, _ in rows]
        fill = self._computed(numbers) - sum(lengths)
        if fill:  # a dummy of its own: nothing sees it
            rows.append((np.full(fill, self._pad, np.int32), np.zeros(fill, np.float32)))
            lengths.append(fill)
        ids = np.concatenate([input_ids for input_ids, _ in rows]).astype(np.int64)
        weights = np.concatenate([loss_weights for _, loss_weights in rows])
        return self._micro_batch(numbers, ids[None], weights[None], lengths=tuple(lengths))

    def _micro_batch(
        self,
        real: Sequence[int],
        ids: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32],
        *,
        lengths: tuple[int, ...] | None,
    ) -> MicroBatch:
        shown = [n for n in real if self._data.has_image(n)]
        return MicroBatch(
            input_ids=torch.from_numpy(ids),
            lengths=lengths,
            loss_weights=torch.from_numpy(weights),
            pixels=self._pixels(shown),
            num_pictures=len(shown),
            texts=[self._data.text(n) for n in real],
            num_tokens=int(self._data.lengths[list(real)].sum()) if real else 0,
        )

    def _pixels(self, shown: Sequence[int]) -> Tensor:
        if self._side is None:
            return torch.zeros(0)
        if not shown:
            return torch.zeros(1, 3, self._side, self._side, dtype=torch.uint8)
        return torch.from_numpy(np.ascontiguousarray(self._data.pixels(shown)))
