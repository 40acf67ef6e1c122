"""The learning rate over time, by hand, and what AdamW is told."""

from __future__ import annotations

import pytest
import torch

from scalesweep.train.optimizer import adamw, learning_rate, warmup_steps
from tests.train.small_stages import optim_spec


def rates(num_steps: int, **changes: object) -> list[float]:
    optim = optim_spec(**{"lr": 1.0, **changes})
    return [learning_rate(optim, step=step, num_steps=num_steps) for step in range(num_steps)]


def test_the_rate_rises_from_the_first_step_then_falls_along_half_a_cosine() -> None:
    # warm-up 2 of 6: 1/2, 1; then (1 + cos(pi * k / 4)) / 2 for k = 0 .. 3
    assert rates(6, warmup_steps=2) == pytest.approx([0.5, 1, 1, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_the_rate_falls_in_a_line_to_one_step_before_zero() -> None:
    expected = [0.5, 1, 1, 0.75, 0.5, 0.25]

    assert rates(6, schedule="linear", warmup_steps=2) == pytest.approx(expected)


def test_the_rate_stays_after_the_warm_up() -> None:
    assert rates(5, schedule="constant", warmup_steps=4) == pytest.approx([0.25, 0.5, 0.75, 1, 1])


def test_without_a_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert rates(3, warmup_steps=0)[0] == 1.0


def test_a_run_shorter_than_its_warm_up_only_rises() -> None:
    assert rates(2, warmup_steps=10) == pytest.approx([0.1, 0.2])


@pytest.mark.parametrize(
    ("ratio", "num_steps", "expected"), [(0.03, 100, 3), (0.03, 101, 4), (0.0, 100, 0)]
)
def test_a_warm_up_ratio_is_of_all_steps_rounded_up(
    ratio: float, num_steps: int, expected: int
) -> None:
    optim = optim_spec(warmup_steps=None, warmup_ratio=ratio)

    assert warmup_steps(optim, num_steps=num_steps) == expected


def test_one_step_of_adamw_is_the_papers_formula() -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = adamw([weight], optim_spec(lr=0.1, weight_decay=0.5, betas=[0.8, 0.9], eps=1.0))
    weight.grad = torch.tensor([3.0])

    optimizer.step()

    # decay: 2 * (1 - 0.1 * 0.5) = 1.9; the first moments, corrected for their start, are the
    # gradient and its square: 1.9 - 0.1 * 3 / (3 + 1)
    assert weight.item() == pytest.approx(1.825, abs=1e-6)
