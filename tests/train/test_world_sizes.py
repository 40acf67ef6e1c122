"""Ranks, ZeRO stages and micro-batches change where sums are taken, not what is learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scalesweep.data.samples import load_training_set
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.specs import Method, TrainingSpec
from scalesweep.train.batches import StepMaker
from scalesweep.train.optimizer import learning_rate
from scalesweep.train.trainable import build_trainable
from tests.train.small_stages import LORA, PATHS, Ended, Lab, optim_spec, training_spec

# Of a loss. Sums are taken in another order, and 8 steps carry that on.
RELATIVE, ABSOLUTE = 2e-6, 3e-7
# Steps of 3 samples leave the second of two ranks a dummy; a third of the samples have no picture.
# The large epsilon makes a step depend on the size of the gradient, which AdamW otherwise hides;
# some gradients are clipped at 20, others not.
OPTIM = optim_spec(weight_decay=0.1, max_grad_norm=20.0, eps=1e-2)
CHANGES = {"global_batch_size": 3, "optim": OPTIM}


@pytest.fixture(scope="module")
def reference(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """One rank, no ZeRO, one sample at a time."""
    root = tmp_path_factory.mktemp("reference")
    return lab.stage(root, Method.full, micro_batch_size=1, **CHANGES).attempt()


def losses(run: Ended) -> list[float]:
    return list(run.losses.values())


def learns_the_same(run: Ended, reference: Ended) -> None:
    assert losses(run) == pytest.approx(losses(reference), rel=RELATIVE, abs=ABSOLUTE)
    tokens = [[row["tokens"] for row in ended.rows] for ended in (run, reference)]
    assert tokens[0] == tokens[1]
    weights, expected = (load_file(e.output / "model.safetensors") for e in (run, reference))
    assert set(weights) == set(expected)
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5, msg=name)


LAYOUTS = [(1, 0, 3), (1, 2, 2), (1, 3, 1), (2, 0, 1), (2, 2, 1), (2, 3, 1), (2, 3, 8)]


@pytest.mark.parametrize(
    ("num_ranks", "zero_stage", "micro_batch_size"),
    LAYOUTS,
    ids=str,
)
def test_every_layout_learns_the_same(
    lab: Lab,
    reference: Ended,
    tmp_path: Path,
    num_ranks: int,
    zero_stage: int,
    micro_batch_size: int,
) -> None:
    run = lab.stage(
        tmp_path,
        Method.full,
        num_ranks=num_ranks,
        zero_stage=zero_stage,
        micro_batch_size=micro_batch_size,
        **CHANGES,
    ).attempt()

    learns_the_same(run, reference)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_weights_that_zero_3_splits_learn_and_are_published_the_same(
    lab: Lab, reference: Ended, tmp_path: Path, num_ranks: int
) -> None:
    stage = lab.stage(tmp_path, Method.full, num_ranks=num_ranks, zero_stage=3, **CHANGES)

    learns_the_same(stage.attempt(runner="tests.train.sharded"), reference)


def test_adapters_that_zero_3_splits_learn_and_are_published_the_same(
    lab: Lab, tmp_path: Path
) -> None:
    lora = replace(LORA, dropout=0.0)
    whole = lab.stage(tmp_path / "whole", Method.lora, lora=lora, **CHANGES).attempt()
    split = lab.stage(
        tmp_path / "split", Method.lora, num_ranks=2, zero_stage=3, lora=lora, **CHANGES
    ).attempt(runner="tests.train.sharded")

    assert losses(split) == pytest.approx(losses(whole), rel=RELATIVE, abs=ABSOLUTE)
    adapters, expected = (load_file(e.output / "adapter_model.safetensors") for e in (split, whole))
    assert set(adapters) == set(expected)
    for name, value in adapters.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5, msg=name)


def test_the_loop_on_deepspeed_learns_what_a_bare_loop_learns(
    lab: Lab, reference: Ended, tmp_path: Path
) -> None:
    spec = training_spec(Method.full, **CHANGES)

    bare = list(bare_loop(spec, lab.data, tmp_path))

    assert losses(reference) == pytest.approx(
        [loss for loss, _ in bare], rel=RELATIVE, abs=ABSOLUTE
    )
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
