"""Under ZeRO-3 no rank ever holds the model that it loads, and it learns what others learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scalesweep.specs import Method, Precision
from tests.models import big_checkpoint
from tests.models.big_checkpoint import MIB, loaded
from tests.train.small_stages import LORA, Ended, Lab, optim_spec


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA of 400 MiB in fp32, written shard by shard."""
    return big_checkpoint.write(tmp_path_factory.mktemp("big"))


def bound(num_ranks: int) -> int:
    """What a rank keeps, and the largest tensor (44 MiB) three times."""
    return (400 // num_ranks + 3 * 44) * MIB


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_a_rank_takes_its_part_and_a_few_tensors_of_a_larger_checkpoint(
    big: Path, num_ranks: int
) -> None:
    assert bound(num_ranks) < 400 * MIB

    growths = loaded("sharded", big, num_ranks=num_ranks)

    assert max(growths) < bound(num_ranks)
    assert min(growths) > 400 // num_ranks * MIB  # something was measured


@pytest.mark.slow
def test_a_whole_load_would_take_more_than_the_bound(big: Path) -> None:
    assert min(loaded("sharded after a whole load", big, num_ranks=2)) > 400 * MIB > bound(2)


def losses(run: Ended) -> list[float]:
    return list(run.losses.values())


@pytest.mark.slow
@pytest.mark.parametrize("method", [Method.full, Method.lora])
def test_four_ranks_that_hold_a_quarter_each_learn_what_one_learns(
    lab: Lab, tmp_path: Path, method: Method
) -> None:
    changes = {"lora": replace(LORA, dropout=0.0)} if method is Method.lora else {}
    optim = optim_spec(max_steps=4, eps=1e-2)
    whole = lab.stage(tmp_path / "whole", method, optim=optim, **changes)
    split = lab.stage(tmp_path / "split", method, num_ranks=4, zero_stage=3, optim=optim, **changes)

    expected, run = whole.attempt(), split.attempt(runner="tests.train.sharded")

    assert losses(run) == pytest.approx(losses(expected), rel=2e-6, abs=3e-7)


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_weights_split_as_they_are_read_learn_bit_for_bit_what_those_split_later_learn(
    lab: Lab, tmp_path: Path, precision: Precision
) -> None:
    """Adapters are made in fp32, which DeepSpeed would refuse beside split bf16 weights."""
    changes = {"precision": precision, "optim": optim_spec(max_steps=2)}
    later = lab.stage(tmp_path / "later", Method.lora, zero_stage=3, **changes)
    read = lab.stage(tmp_path / "read", Method.lora, zero_stage=3, **changes)

    expected = later.attempt(runner="tests.train.loaded_whole")
    run = read.attempt(runner="tests.train.sharded")

    assert losses(run) == losses(expected)
    assert run.hashes == expected.hashes
