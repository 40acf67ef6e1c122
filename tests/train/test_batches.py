"""A step's samples are divided among ranks: every sample once, equally many passes."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalesweep.data.samples import TrainingSet, load_training_set
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.models.flops import Work
from scalesweep.specs import Method
from scalesweep.train.batches import NO_SAMPLE, MicroBatch, StepMaker, rank_share, step_samples
from tests.train.small_stages import Lab, training_spec


@given(
    num_samples=st.integers(1, 70),
    world_size=st.integers(1, 9),
    micro_batch_size=st.integers(1, 9),
)
def test_ranks_run_equally_many_passes_and_share_every_sample_once(
    num_samples: int, world_size: int, micro_batch_size: int
) -> None:
    samples = list(range(100, 100 + num_samples))

    shares = [
        rank_share(samples, rank=r, world_size=world_size, micro_batch_size=micro_batch_size)
        for r in range(world_size)
    ]

    assert len({len(share) for share in shares}) == 1
    places = [number for share in shares for part in share for number in part]
    assert sorted(number for number in places if number != NO_SAMPLE) == samples
    assert all(1 <= len(part) <= micro_batch_size for share in shares for part in share)
    assert all(part == [NO_SAMPLE] or NO_SAMPLE not in part for share in shares for part in share)
    # no rank could do with fewer passes
    assert len(shares[0]) == -(-num_samples // (world_size * micro_batch_size))


def test_ranks_take_turns_and_a_dummy_fills_up() -> None:
    def share(rank: int) -> list[list[int]]:
        return rank_share([7, 8, 9], rank=rank, world_size=2, micro_batch_size=1)

    assert share(0) == [[7], [9]]
    assert share(1) == [[8], [NO_SAMPLE]]


@given(num_samples=st.integers(1, 30), size=st.integers(1, 12), num_steps=st.integers(1, 8))
def test_steps_cut_one_endless_order_without_gaps(
    num_samples: int, size: int, num_steps: int
) -> None:
    def step(number: int) -> list[int]:
        return step_samples(num_samples, seed=1, samples_seen=number * size, global_batch_size=size)

    seen = [sample for number in range(num_steps) for sample in step(number)]

    whole = len(seen) // num_samples * num_samples
    epochs = np.array(seen[:whole]).reshape(-1, num_samples)
    assert (np.sort(epochs, axis=1) == np.arange(num_samples)).all()


@pytest.fixture(scope="module")
def mix(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """24 samples with a picture, then 12 without."""
    return load_training_set(
        training_spec(Method.full),
        roots={"train": lab.data},
        tokenizer=miniature_tokenizer(),
        cache=tmp_path_factory.mktemp("cache"),
    )


def maker(mix: TrainingSet, **changes: Any) -> StepMaker:
    settings: dict[str, Any] = {
        "seed": 1,
        "global_batch_size": 4,
        "micro_batch_size": 2,
        "rank": 0,
        "world_size": 1,
        "pad_token_id": 0,
        "picture_side": 32,
    }
    return StepMaker(mix, **{**settings, **changes})


def test_rows_are_padded_on_the_right_without_a_loss(mix: TrainingSet) -> None:
    lengths = np.argsort(mix.lengths)
    short, long = int(lengths[0]), int(lengths[-1])

    batch = maker(mix).step([short, long]).micro_batches[0]

    assert batch.input_ids.shape == (2, mix.lengths[long])
    padding = batch.input_ids[0, mix.lengths[short] :]
    assert len(padding) > 0
    assert not padding.any()
    assert not batch.loss_weights[0, mix.lengths[short] :].any()
    assert batch.input_ids[0, : mix.lengths[short]].tolist() == mix[short].input_ids.tolist()
    assert batch.num_tokens == mix.lengths[short] + mix.lengths[long]


def test_pictures_come_in_the_order_of_the_rows_that_have_one(mix: TrainingSet) -> None:
    batch = maker(mix, micro_batch_size=4).step([5, 30, 2, 31]).micro_batches[0]

    assert batch.num_pictures == 2
    assert torch.equal(batch.pixels, torch.from_numpy(mix.pixels([5, 2])))


def shown(batch: MicroBatch) -> tuple[int, tuple[int, ...]]:
    return batch.num_pictures, tuple(batch.pixels.shape)


def test_a_micro_batch_without_a_picture_brings_a_dummy(mix: TrainingSet) -> None:
    text_only, nothing = (
        maker(mix, micro_batch_size=1, rank=rank, world_size=2).step([30]).micro_batches[0]
        for rank in (0, 1)
    )

    assert shown(text_only) == shown(nothing) == (0, (1, 3, 32, 32))
    assert nothing.num_tokens == 0
    assert nothing.texts == []
    assert not nothing.loss_weights.any()


def test_a_step_counts_tokens_and_loss_over_all_ranks(mix: TrainingSet) -> None:
    samples = [0, 30, 7]
    by_hand = sum(float(mix[n].loss_weights.sum()) for n in samples)

    steps = [maker(mix, rank=rank, world_size=2).step(samples) for rank in (0, 1)]

    assert {step.loss_weight for step in steps} == {by_hand}  # whole numbers
    assert {step.num_tokens for step in steps} == {int(mix.lengths[samples].sum())}
    assert {step.num_samples for step in steps} == {3}
    work = Work.of(
        mix.lengths[samples], num_supervised=int(by_hand), num_pictures=2
    )  # answers weigh 1
    assert [step.work for step in steps] == [work, work]


def test_steps_go_on_where_others_stopped(mix: TrainingSet) -> None:
    whole = list(islice(maker(mix).steps(samples_seen=0), 12))  # more than an epoch of 36
    rest = list(islice(maker(mix).steps(samples_seen=8 * 4), 4))

    for one, other in zip(whole[8:], rest, strict=True):
        assert one.loss_weight == other.loss_weight
        for a, b in zip(one.micro_batches, other.micro_batches, strict=True):
            assert torch.equal(a.input_ids, b.input_ids)
            assert torch.equal(a.pixels, b.pixels)
