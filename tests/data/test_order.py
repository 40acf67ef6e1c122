"""The order of samples can be taken up anywhere, and every epoch holds each sample once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesweep.data.order import sample_order
from scalesweep.errors import DataError
from scalesweep.specs import OptimSpec


def take(count: int, num_samples: int, *, seed: int = 0, start: int = 0) -> list[int]:
    return list(itertools.islice(sample_order(num_samples, seed=seed, start=start), count))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(num_samples=st.integers(1, 50), seed=st.integers(0, 10**9), start=st.integers(0, 200))
def test_the_order_goes_on_where_it_stopped(num_samples: int, seed: int, start: int) -> None:
    whole = take(start + 60, num_samples, seed=seed)

    resumed = take(60, num_samples, seed=seed, start=start)

    assert resumed == whole[start:]


def test_every_epoch_holds_each_sample_once_in_another_order() -> None:
    epochs = [take(100, 100, seed=1, start=100 * epoch) for epoch in range(3)]

    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_another_seed_gives_another_order() -> None:
    assert take(100, 100, seed=1) != take(100, 100, seed=2)


def test_the_order_is_the_same_on_every_machine() -> None:
    # Written down once: a change here would change what every seed means.
    assert take(10, 5, seed=1) == [1, 0, 4, 2, 3, 4, 2, 3, 0, 1]


def test_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="no sample to train on"):
        sample_order(0, seed=0, start=0)


def optim(*, epochs: float | None = None, max_steps: int | None = None) -> OptimSpec:
    return OptimSpec(
        lr=1e-3,
        schedule="constant",
        warmup_steps=0,
        warmup_ratio=None,
        weight_decay=0.0,
        betas=[0.9, 0.999],
        eps=1e-8,
        max_grad_norm=0.0,
        epochs=epochs,
        max_steps=max_steps,
    )


@pytest.mark.parametrize(
    ("epochs", "num_samples", "batch", "steps"),
    [
        (1.0, 80_000, 512, 157),  # 156.25: the last step borrows from the next epoch
        (1.0, 80_000, 64, 1250),
        (3.0, 100, 10, 30),
        (0.1, 1000, 10, 10),
        (0.001, 10, 10, 1),
    ],
)
def test_steps_cover_the_asked_epochs(
    epochs: float, num_samples: int, batch: int, steps: int
) -> None:
    found = optim(epochs=epochs).num_steps(num_samples=num_samples, global_batch_size=batch)

    assert found == steps


def test_max_steps_are_taken_as_they_are() -> None:
    assert optim(max_steps=7).num_steps(num_samples=1, global_batch_size=1000) == 7
