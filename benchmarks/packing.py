"""Useful tokens per computed token, packed against padded, on the lengths of LLaVA-80K.

Real code on drawn lengths (length_statistics.py): the steps of train/batches.py, padded rows of so
many samples against packs of about as many tokens. The bound is what the published figures leave to
be won: mean padded length / mean length. At 8 ranks, a pass takes as long as the rank with the most
tokens (under ZeRO-3 they wait for each other in every layer), so that what the others wait counts
as computed. Then a miniature is trained on both, for seconds instead of tokens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from benchmarks.drawn_set import DrawnSet
from benchmarks.length_statistics import (
    MAX_SEQ_LEN,
    MEAN_TOKENS,
    NUM_PATCHES,
    PADDED_TOKENS,
    Samples,
    llava_80k,
    mixed,
    sharegpt,
)
from benchmarks.timing import Timing, ratios
from scalesweep.models.attention import Kernel, use_packed_attention
from scalesweep.models.build import llama_config
from scalesweep.models.output_layer import OutputLayer
from scalesweep.specs import LanguageModelSpec
from scalesweep.train.batches import MicroBatch, StepMaker
from scalesweep.train.tasks import LanguageTask

RANKS = 8
SAMPLES_PER_RANK = 16
"""And step: LLaVA's scripts take 128 on 8 GPUs."""
STEPS = 40
GOAL_OF_BOUND, GOAL_MIXED = 0.90, 1.25

ROUNDS, MINIATURE_STEPS, SHRINK = 6, 4, 8
"""The miniature's samples are 1 / SHRINK as long."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Of some steps."""

    useful: int
    computed: int
    """Padding and dummies included."""
    waited: int
    """And what ranks wait for the slowest of each pass."""

    def share(self, *, waiting: bool) -> float:
        return self.useful / (self.waited if waiting else self.computed)


def count_tokens(
    samples: Samples, *, micro_batch_size: int, packed: bool, ranks: int, steps: int
) -> Tokens:
    """Tokens of the micro-batches that all ranks make of the same steps."""
    makers = [_maker(samples, micro_batch_size, packed, rank, ranks) for rank in range(ranks)]
    endless = [maker.steps(samples_seen=0) for maker in makers]
    useful = computed = waited = 0
    for _ in range(steps):
        step = [next(each) for each in endless]
        useful += step[0].num_tokens
        for passes in zip(*(s.micro_batches for s in step), strict=True):
            sizes = [micro.input_ids.numel() for micro in passes]
            computed += sum(sizes)
            waited += ranks * max(sizes)
    return Tokens(useful=useful, computed=computed, waited=waited)


def _maker(
    samples: Samples, micro_batch_size: int, packed: bool, rank: int, ranks: int
) -> StepMaker:
    data: Any = DrawnSet(
        samples, vocab_size=32_000, num_patches=NUM_PATCHES, picture_side=1, seed=1
    )
    return StepMaker(
        data,
        seed=1,
        global_batch_size=SAMPLES_PER_RANK * ranks,
        micro_batch_size=micro_batch_size,
        micro_batch_tokens=micro_batch_size * MAX_SEQ_LEN // 2 if packed else 0,
        rank=rank,
        world_size=ranks,
        pad_token_id=0,
        picture_side=None,
    )


def main() -> None:
    """Print shares and ratios for LLaVA-80K alone and with ShareGPT, then seconds."""
    num = STEPS * SAMPLES_PER_RANK * RANKS
    llava = llava_80k(num, seed=1)
    mix = mixed(llava_80k(2 * num // 3, seed=1), sharegpt(num - 2 * num // 3, seed=1), seed=1)
    for name, samples, is_mix in (("LLaVA-80K", llava, False), ("with ShareGPT", mix, True)):
        print(f"{name}: {samples.lengths.mean():.0f} tokens a sample; useful per computed token, "
              "and packed / padded")  # fmt: skip
        print(f"  {'micro-batch':<12} {'ranks':>5} {'padded':>7} {'packed':>7} {'ratio':>6}  "
              + ("goal" if is_mix else "bound  of the bound  goal"))  # fmt: skip
        for size in PADDED_TOKENS:
            for ranks in (1, RANKS):
                _print_row(samples, size=size, ranks=ranks, is_mix=is_mix)
    _print_seconds(llava, mix)


def _print_row(samples: Samples, *, size: int, ranks: int, is_mix: bool) -> None:
    steps = STEPS * RANKS // ranks
    padded, packed = (
        count_tokens(samples, micro_batch_size=size, packed=packed, ranks=ranks, steps=steps).share(
            waiting=ranks > 1
        )
        for packed in (False, True)
    )
    ratio, bound = packed / padded, PADDED_TOKENS[size] / MEAN_TOKENS
    if is_mix:
        goal = f">= {GOAL_MIXED}: {'reached' if ratio >= GOAL_MIXED else 'MISSED'}"
    else:
        met = "reached" if ratio >= GOAL_OF_BOUND * bound else "MISSED"
        goal = f"{bound:.3f}  {ratio / bound:>12.1%}  >= {GOAL_OF_BOUND:.0%}: {met}"
    print(f"  {size:<12} {ranks:>5} {padded:>7.3f} {packed:>7.3f} {ratio:>6.3f}  {goal}")


MINIATURE = LanguageModelSpec(
    name="miniature", hidden_size=128, intermediate_size=384, num_layers=4, num_heads=4,
    num_kv_heads=4, vocab_size=1024, max_position_embeddings=MAX_SEQ_LEN // SHRINK,
    template="mini", weights="random", tokenizer="random",
)  # fmt: skip


class _NoTokens:
    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2


def _print_seconds(llava: Samples, mix: Samples) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model: Any = LlamaForCausalLM(llama_config(MINIATURE, tokenizer=_NoTokens()))
    model.lm_head = OutputLayer.of(model.lm_head)
    use_packed_attention(model)
    task = LanguageTask(model, kernel=Kernel.sdpa)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    print(
        f"seconds: forward and backward of a miniature ({millions:.1f}M), one thread, lengths / "
        f"{SHRINK}, {ROUNDS} paired rounds of {MINIATURE_STEPS} steps, micro-batch 8"
    )
    for name, samples in (("LLaVA-80K", llava), ("with ShareGPT", mix)):
        timing = _timings(task, _shrunk(samples))
        found = sorted(ratios(timing["packed"], timing["padded"]))
        best = min(timing["padded"].seconds) / min(timing["packed"].seconds)
        print(
            f"  {name:<14} packed is {best:.2f} times as fast by the fastest rounds, "
            f"{np.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f}) by paired ones"
        )


def _shrunk(samples: Samples) -> Samples:
    lengths = np.maximum(samples.lengths // SHRINK, 2)
    supervised = np.clip(samples.supervised // SHRINK, 1, lengths - 1)
    return Samples(
        lengths=lengths, supervised=supervised, has_image=np.zeros(len(samples), dtype=np.bool_)
    )


def _timings(task: LanguageTask, samples: Samples) -> dict[str, Timing]:
    """CPU seconds of the same samples, padded and packed in turn."""
    made = {
        name: _batches(samples, packed=name == "packed", steps=(ROUNDS + 1) * MINIATURE_STEPS)
        for name in ("padded", "packed")
    }
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(ROUNDS + 1):
        part = slice(turn * MINIATURE_STEPS, (turn + 1) * MINIATURE_STEPS)
        for name in sorted(made, reverse=turn % 2 == 0):
            begin = time.process_time()
            for step in made[name][part]:
                for micro in step:
                    loss = task(micro.input_ids, micro.loss_weights, micro.pixels, 0, micro.lengths)
                    loss.backward()
                task.zero_grad()
            if turn:  # the first warms up
                seconds[name].append(time.process_time() - begin)
    return {name: Timing(seconds=s) for name, s in seconds.items()}


def _batches(samples: Samples, *, packed: bool, steps: int) -> list[Sequence[MicroBatch]]:
    data: Any = DrawnSet(
        samples, vocab_size=MINIATURE.vocab_size, num_patches=0, picture_side=1, seed=1
    )
    maker = StepMaker(
        data, seed=1, global_batch_size=SAMPLES_PER_RANK, micro_batch_size=8,
        micro_batch_tokens=8 * MAX_SEQ_LEN // SHRINK // 2 if packed else 0,
        rank=0, world_size=1, pad_token_id=0, picture_side=None,
    )  # fmt: skip
    endless = maker.steps(samples_seen=0)
    return [next(endless).micro_batches for _ in range(steps)]
