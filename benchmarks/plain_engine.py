"""An engine with the interface of train.deepspeed.Engine, without DeepSpeed: one device, ZeRO-0."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from scalesweep.specs import OptimSpec
from scalesweep.train.optimizer import adamw


class PlainEngine:
    """One model in training; gradients of several backward passes, then one step."""

    name = "plain"
    zero_stage = 0

    def __init__(
        self, task: nn.Module, optimizer: torch.optim.Optimizer, *, max_grad_norm: float
    ) -> None:
        self.task = task
        self._optimizer = optimizer
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._max_grad_norm = max_grad_norm or float("inf")

    @property
    def device(self) -> torch.device:
        return self._parameters[0].device  # type: ignore[no-any-return]

    def loss_sum(self, *inputs: Any) -> Tensor:
        """The task's sum of losses of one micro-batch."""
        return self.task(*inputs)  # type: ignore[no-any-return]

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add gradients."""
        del last
        loss.backward()

    def step(self, lr: float) -> float:
        """Clip and step; returns the gradient norm before clipping."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        norm = nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(norm)


def optimizer_of(parameters: Iterable[nn.Parameter], optim: OptimSpec) -> torch.optim.Optimizer:
    """AdamW; on fp32 copies where parameters are narrower."""
    parameters = list(parameters)
    if all(p.dtype is torch.float32 for p in parameters):
        return adamw(parameters, optim)
    return MasterAdamW(parameters, optim)


class MasterAdamW(torch.optim.Optimizer):
    """AdamW on fp32 copies of bf16 parameters, as DeepSpeed's bf16 mode keeps them: 16 bytes a
    parameter, and 2 more for a moment in the step."""

    def __init__(self, parameters: Iterable[nn.Parameter], optim: OptimSpec) -> None:
        super().__init__(list(parameters), {"lr": optim.lr})
        self._model = self.param_groups[0]["params"]
        self._masters = [nn.Parameter(p.detach().float()) for p in self._model]
        self._inner = adamw(self._masters, optim)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        del closure
        for group in self._inner.param_groups:
            group["lr"] = self.param_groups[0]["lr"]
        for parameter, master in zip(self._model, self._masters, strict=True):
            if parameter.grad is not None:
                master.grad = parameter.grad.float()
                parameter.grad = None
        self._inner.step()
        self._inner.zero_grad()
        for parameter, master in zip(self._model, self._masters, strict=True):
            parameter.copy_(master)
