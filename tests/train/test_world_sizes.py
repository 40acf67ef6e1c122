"""Ranks, ZeRO stages and micro-batches change where sums are taken, not what is learned."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch

from scalesweep.data.samples import load_training_set
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.specs import Method, TrainingSpec
from scalesweep.train.batches import StepMaker
from scalesweep.train.optimizer import learning_rate
from scalesweep.train.trainable import build_trainable
from tests.train.exactness import (
    BF16_TOLERANCE,
    CHANGES,
    LOSS_TOLERANCE,
    OPTIM,
    apart,
    in_bf16,
    small_stage,
    trained,
)
from tests.train.small_stages import PATHS, Ended, Lab, training_spec


@pytest.fixture(scope="module")
def references(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Method], Ended]:
    """One rank, no ZeRO, one sample at a time; of each method once."""
    root = tmp_path_factory.mktemp("references")

    @functools.cache
    def reference(method: Method) -> Ended:
        return trained(lab, root / method, method, num_ranks=1, zero_stage=0)

    return reference


def losses(run: Ended) -> list[float]:
    return list(run.losses.values())


def learns_the_same(run: Ended, reference: Ended) -> None:
    found = apart(run.losses, run, reference)
    assert found.is_tolerable(), found
    tokens = [[row["tokens"] for row in ended.rows] for ended in (run, reference)]
    assert tokens[0] == tokens[1]


# (ranks, ZeRO stage); python -m tests.train.exactness measures every one.
LAYOUTS = [
    *[(Method.full, 1, stage) for stage in (1, 2, 3)],
    *[(Method.full, num_ranks, stage) for num_ranks in (2, 4) for stage in (0, 1, 2, 3)],
    *[(Method.lora, *layout) for layout in ((2, 1), (2, 3), (4, 0), (4, 2))],
    *[(Method.qlora, *layout) for layout in ((1, 1), (2, 0), (2, 2), (4, 1))],
]


@pytest.mark.parametrize(
    ("method", "num_ranks", "zero_stage"),
    LAYOUTS,
    ids=[f"{method}-{ranks}ranks-zero{stage}" for method, ranks, stage in LAYOUTS],
)
def test_every_layout_learns_the_same(
    lab: Lab,
    references: Callable[[Method], Ended],
    tmp_path: Path,
    method: Method,
    num_ranks: int,
    zero_stage: int,
) -> None:
    run = trained(lab, tmp_path, method, num_ranks=num_ranks, zero_stage=zero_stage)

    learns_the_same(run, references(method))


@pytest.mark.parametrize(
    ("num_ranks", "zero_stage", "micro_batch_size"), [(1, 0, 3), (1, 2, 2), (2, 3, 8)]
)
def test_every_micro_batch_learns_the_same(
    lab: Lab,
    references: Callable[[Method], Ended],
    tmp_path: Path,
    num_ranks: int,
    zero_stage: int,
    micro_batch_size: int,
) -> None:
    stage = small_stage(
        lab,
        tmp_path,
        Method.full,
        num_ranks=num_ranks,
        zero_stage=zero_stage,
        micro_batch_size=micro_batch_size,
    )

    learns_the_same(stage.attempt(), references(Method.full))


def test_small_weights_that_zero_3_keeps_whole_learn_the_same(
    lab: Lab, references: Callable[[Method], Ended], tmp_path: Path
) -> None:
    stage = small_stage(lab, tmp_path, Method.full, num_ranks=2, zero_stage=3)

    learns_the_same(stage.attempt(runner=None), references(Method.full))


def test_in_bf16_all_zero_stages_learn_the_same(lab: Lab, tmp_path: Path) -> None:
    """DeepSpeed steps once too often under ZeRO-0 in bf16, unless it is kept from it."""
    found = {
        stage: losses(in_bf16(lab, tmp_path / str(stage), zero_stage=stage).attempt())
        for stage in (0, 1, 2, 3)
    }

    for stage in (0, 1, 3):
        assert found[stage] == pytest.approx(found[2], rel=BF16_TOLERANCE[stage]), stage


def test_the_loop_on_deepspeed_learns_what_a_bare_loop_learns(
    lab: Lab, references: Callable[[Method], Ended], tmp_path: Path
) -> None:
    spec = training_spec(Method.full, **CHANGES)

    bare = list(bare_loop(spec, lab.data, tmp_path))

    expected = [loss for loss, _ in bare]
    assert losses(references(Method.full)) == pytest.approx(expected, rel=LOSS_TOLERANCE)
    norms = [norm for _, norm in bare]
    assert min(norms) < OPTIM.max_grad_norm < max(norms)


def test_the_gradient_norm_is_that_of_a_bare_loop(lab: Lab, tmp_path: Path) -> None:
    run = lab.stage(tmp_path, Method.full, num_ranks=2, zero_stage=2, **CHANGES).attempt()

    bare = bare_loop(training_spec(Method.full, **CHANGES), lab.data, tmp_path)

    told = [row["grad_norm"] for row in run.rows]
    assert told == pytest.approx([norm for _, norm in bare], rel=1e-4)


def bare_loop(spec: TrainingSpec, data: Path, cache: Path) -> Iterator[tuple[float, float]]:
    """Losses and gradient norms of plain PyTorch: one backward pass a step, clipping, AdamW."""
    tokenizer = miniature_tokenizer()
    made = build_trainable(
        spec,
        paths=PATHS,
        inputs={},
        tokenizer=tokenizer,
        image_token_id=4,
    )
    steps = StepMaker(
        load_training_set(spec, roots={"train": data}, tokenizer=tokenizer, cache=cache),
        seed=spec.seed,
        global_batch_size=spec.global_batch_size,
        micro_batch_size=spec.global_batch_size,
        rank=0,
        world_size=1,
        pad_token_id=0,
        picture_side=32,
    ).steps(samples_seen=0)
    optim = spec.optim
    optimizer = torch.optim.AdamW(
        made.parameters, lr=0.0, weight_decay=optim.weight_decay, eps=optim.eps
    )
    for number, step in enumerate(islice(steps, 8)):
        (batch,) = step.micro_batches
        loss = made.task(batch.input_ids, batch.loss_weights, batch.pixels, batch.num_pictures)
        (loss / batch.loss_weights.sum()).backward()
        norm = torch.nn.utils.clip_grad_norm_(made.parameters, optim.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(optim, step=number, num_steps=8)
        optimizer.step()
        optimizer.zero_grad()
        yield float(loss.detach() / batch.loss_weights.sum()), float(norm)
