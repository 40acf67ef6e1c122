"""Declared lengths of LLaVA-80K and ShareGPT, since neither is here: seeded draws of sample sizes.

LLaVA-80K (llava_instruct_80k.json): 80,000 samples of one picture and 2.77 rounds of 57.3 + 372.1
characters. At 4.3 characters a token, with a system prompt of 36 tokens and 9 tokens a round, that
is 340 text tokens, so 916 with the 576 of a picture at 336 px. Padded to the longest of a
micro-batch 1,067 (4), 1,132 (8) and 1,192 (16). The shape between is ours: a shifted Weibull
distribution, the simplest of those tried that meets all four figures (a gamma distribution has too
long a tail).

ShareGPT: 370M tokens in 125,000 conversations (Vicuna-33B's data), 2,960 each. Conversations are
cut between rounds into items of at most 2,048 tokens, as FastChat does. Assumed: lengths of
conversations and of rounds are log-normal, the middle conversation has 2,000 tokens, a round 450.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NUM_PATCHES = 576
MAX_SEQ_LEN = 2048
MEAN_TOKENS = 916
"""Of a LLaVA-80K sample at 336 px."""
PADDED_TOKENS = {4: 1067, 8: 1132, 16: 1192}
"""Micro-batch size -> mean length of its longest LLaVA-80K sample."""

SHORTEST_TEXT, MEAN_TEXT, WEIBULL_SHAPE = 46, 340, 2.2
SUPERVISED_SHARE = 0.8
"""Of the text after the system prompt: (2.77 x 372.1 / 4.3 + 2.77 ends) of 304 tokens."""
SYSTEM_TOKENS = 36

SHAREGPT_MEAN, SHAREGPT_MEDIAN = 2960, 2000
ROUND_MEAN, ROUND_SIGMA = 450, 0.9
NUM_LLAVA, NUM_SHAREGPT = 80_000, 40_000
"""Samples of the mix (conf/data_mix/llava80k_sharegpt.yaml)."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Sizes of samples in the order of the draw."""

    lengths: npt.NDArray[np.int64]
    """[N] tokens, pictures expanded"""
    supervised: npt.NDArray[np.int64]
    """[N] of them learned: the end of the sample"""
    has_image: npt.NDArray[np.bool_]
    """[N]"""

    def __len__(self) -> int:
        return len(self.lengths)


def llava_80k(
    num_samples: int = NUM_LLAVA, *, seed: int, num_patches: int = NUM_PATCHES
) -> Samples:
    """Samples with a picture each."""
    rng = np.random.default_rng([seed, 80])
    scale = (MEAN_TEXT - SHORTEST_TEXT) / math.gamma(1 + 1 / WEIBULL_SHAPE)
    drawn = SHORTEST_TEXT + scale * rng.weibull(WEIBULL_SHAPE, num_samples)
    text = np.clip(np.rint(drawn), SHORTEST_TEXT, MAX_SEQ_LEN - num_patches).astype(np.int64)
    return Samples(
        lengths=text + num_patches,
        supervised=_supervised(text),
        has_image=np.ones(num_samples, dtype=np.bool_),
    )


def sharegpt(num_samples: int = NUM_SHAREGPT, *, seed: int) -> Samples:
    """Text alone: the items that conversations were cut into."""
    rng = np.random.default_rng([seed, 125])
    sigma = math.sqrt(2 * math.log(SHAREGPT_MEAN / SHAREGPT_MEDIAN))
    round_median = ROUND_MEAN * math.exp(-(ROUND_SIGMA**2) / 2)
    items = list[int]()
    while len(items) < num_samples:
        target = rng.lognormal(math.log(SHAREGPT_MEDIAN), sigma)
        item, said = SYSTEM_TOKENS, 0
        while said < target:
            size = min(int(rng.lognormal(math.log(round_median), ROUND_SIGMA)) + 9,
                       MAX_SEQ_LEN - SYSTEM_TOKENS)  # fmt: skip
            if item + size > MAX_SEQ_LEN:
                items.append(item)
                item = SYSTEM_TOKENS
            item, said = item + size, said + size
        items.append(item)
    lengths = np.array(items[:num_samples], dtype=np.int64)
    return Samples(
        lengths=lengths,
        supervised=_supervised(lengths),
        has_image=np.zeros(num_samples, dtype=np.bool_),
    )


def mixed(first: Samples, second: Samples, *, seed: int) -> Samples:
    """Both, shuffled."""
    order = np.random.default_rng([seed, 2]).permutation(len(first) + len(second))
    return Samples(
        lengths=np.concatenate([first.lengths, second.lengths])[order],
        supervised=np.concatenate([first.supervised, second.supervised])[order],
        has_image=np.concatenate([first.has_image, second.has_image])[order],
    )


def _supervised(text: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    learned = np.rint(SUPERVISED_SHARE * (text - SYSTEM_TOKENS)).astype(np.int64)
    return np.maximum(learned, 1)
