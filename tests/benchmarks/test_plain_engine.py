"""The engine of the GPU benchmark steps as a bare loop does, and keeps fp32 copies of bf16."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from benchmarks.plain_engine import MasterAdamW, PlainEngine, optimizer_of
from scalesweep.train.optimizer import adamw
from tests.train.small_stages import optim_spec


class Squares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).pow(2).sum()


def test_two_micro_batches_and_a_step_are_those_of_a_bare_loop() -> None:
    torch.manual_seed(1)
    bare, task = Squares(), Squares()
    task.load_state_dict(bare.state_dict())
    optim, inputs = optim_spec(max_grad_norm=0.1), [torch.randn(4, 3) for _ in range(2)]
    optimizer = adamw(bare.parameters(), optim)
    for x in inputs:
        bare(x).backward()
    norm = nn.utils.clip_grad_norm_(bare.parameters(), 0.1)
    optimizer.step()

    engine = PlainEngine(task, optimizer_of(task.parameters(), optim), max_grad_norm=0.1)
    for i, x in enumerate(inputs):
        engine.backward(engine.loss_sum(x), last=i == 1)
    found = engine.step(optim.lr)

    assert found == pytest.approx(float(norm))
    assert all(torch.equal(a, b) for a, b in zip(task.parameters(), bare.parameters(), strict=True))
    assert all(p.grad is None for p in task.parameters())


def test_a_bf16_parameter_takes_updates_too_small_for_bf16() -> None:
    optim = optim_spec(lr=1e-4)
    wide = nn.Parameter(torch.ones(8))
    narrow = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    alone = copy.deepcopy(narrow)
    optimizers = [adamw([wide], optim), optimizer_of([narrow], optim), adamw([alone], optim)]
    assert isinstance(optimizers[1], MasterAdamW)

    for _ in range(100):
        for parameter, optimizer in zip((wide, narrow, alone), optimizers, strict=True):
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()

    # 100 steps of 1e-4 each; the step of bf16 below 1 is 2^-8
    assert torch.equal(narrow, wide.to(torch.bfloat16))
    assert narrow[0].item() == pytest.approx(0.99, abs=2**-8)
    assert alone[0].item() == 1.0
    assert narrow.grad is None
