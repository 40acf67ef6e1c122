"""The language model's output layer, with its loss computed a few tokens at a time.

Logits of 32,000 words for 8,192 tokens are 1 GB in fp32, and the softmax's gradient as much again.
Here loss and gradients of a chunk of tokens are computed together and its logits are dropped, so
that only one chunk's are ever there (the idea of Liger's fused linear cross-entropy,
arXiv:2410.10989, without a kernel of its own).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CHUNK_BYTES = 128 * 2**20
"""Of fp32 logits at once: 1,048 tokens of 32,000 words."""


class OutputLayer(nn.Linear):
    """lm_head that also gives the loss; its parameters and their names stay what they were.

    The loss is a call of this module, so that ZeRO-3 gathers its weight once for it.
    """

    @classmethod
    def of(cls, linear: nn.Linear) -> OutputLayer:
        """The same layer, with the same parameter objects."""
        if isinstance(linear, cls):
            return linear
        assert linear.bias is None, "LLaMA's output layer has no bias"
        layer = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        layer.weight = linear.weight
        return layer

    def forward(
        self, input: Tensor, targets: Tensor | None = None, loss_weights: Tensor | None = None
    ) -> Tensor:
        """Logits; or, with targets, the sum of loss weight x negative log-likelihood in fp32.

        Shapes: input [N, D], targets [N] int64, loss_weights [N] -> scalar. N may be 0.
        """
        if targets is None:
            return super().forward(input)
        assert loss_weights is not None
        return chunked_loss_sum(input, self.weight, targets, loss_weights)


def chunked_loss_sum(
    hidden: Tensor, weight: Tensor, targets: Tensor, loss_weights: Tensor, *, rows: int = 0
) -> Tensor:
    """Sum of loss weight x negative log-likelihood, in fp32; never all logits at once.

    Shapes: hidden [N, D], weight [V, D], targets [N] int64, loss_weights [N] -> scalar.
    rows: tokens in a chunk; 0: as many as CHUNK_BYTES allow.
    """
    rows = rows or max(1, CHUNK_BYTES // (4 * weight.shape[0]))
    loss: Tensor = _ChunkedLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, loss_weights, rows
    )
    return loss


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, loss_weights: Tensor, rows: int
    ) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        # fp32: many chunks' gradients are added up.
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for begin in range(0, len(hidden), rows):
            part = slice(begin, begin + rows)
            logits = (hidden[part] @ weight.T).float()  # [rows, V]
            normaliser = logits.logsumexp(dim=-1, keepdim=True)
            right = targets[part].unsqueeze(1)
            losses = (normaliser - logits.gather(1, right)).squeeze(1)
            total += (losses * loss_weights[part]).sum()
            if grad_hidden is None and grad_weight is None:
                continue
            # softmax minus one at the right word, times the token's weight; in place of the logits
            grad = logits.sub_(normaliser).exp_()
            grad.scatter_add_(1, right, grad.new_full(right.shape, -1.0))
            grad = grad.mul_(loss_weights[part].unsqueeze(1)).to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad, weight, out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight += grad.T @ hidden[part]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:  # in fp32: a factor rounded to bf16 would bias every gradient
            grad_hidden = (grad_hidden.float() * scale).to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * scale).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None
