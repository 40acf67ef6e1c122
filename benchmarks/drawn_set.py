"""A training set of drawn sizes: random tokens and pictures in the place of real ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.length_statistics import Samples

IMAGE_TOKEN_ID = 3
"""In the vocabulary, since transformers' own forward looks it up; drawn text never holds it."""
FIRST_TEXT_ID = 5


class DrawnSet:
    """What train.batches.StepMaker asks of a data.samples.TrainingSet.

    A sample is the token 1, its picture's tokens if it has one, then text, whose end is learned.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        vocab_size: int,
        num_patches: int,
        picture_side: int,
        seed: int,
    ) -> None:
        self._samples = samples
        self._vocab_size = vocab_size
        self._num_patches = num_patches
        self._side = picture_side
        self._seed = seed
        self.lengths = samples.lengths.astype(np.int32)
        self.loss_weight_sums = samples.supervised.astype(np.float32)
        self.num_supervised = samples.supervised.astype(np.int32)

    def __len__(self) -> int:
        return len(self._samples)

    def sequence(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """input_ids and loss_weights, each [T]."""
        length = int(self._samples.lengths[number])
        rng = np.random.default_rng([self._seed, number])
        ids = rng.integers(FIRST_TEXT_ID, self._vocab_size, length, dtype=np.int32)
        ids[0] = 1
        if self.has_image(number):
            ids[1 : 1 + self._num_patches] = IMAGE_TOKEN_ID
        weights = np.zeros(length, dtype=np.float32)
        weights[length - int(self._samples.supervised[number]) :] = 1.0
        return ids, weights

    def has_image(self, number: int) -> bool:
        return bool(self._samples.has_image[number])

    def text(self, number: int) -> str:
        del number
        return ""

    def pixels(self, numbers: Sequence[int]) -> npt.NDArray[np.uint8]:
        """uint8 [n, 3, H, W]: noise, another one for each sample."""
        shape = (3, self._side, self._side)
        return np.stack(
            [
                np.random.default_rng([self._seed, 1, n]).integers(0, 256, shape, dtype=np.uint8)
                for n in numbers
            ]
        )
