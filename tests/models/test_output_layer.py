"""The loss by chunks: equal to the plain one, and never all logits at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scalesweep.models.output_layer import CHUNK_BYTES, OutputLayer, chunked_loss_sum

N, D, V = 37, 16, 50


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_loss(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    losses = F.cross_entropy((hidden @ weight.T).float(), targets, reduction="none")
    return (losses * weights).sum()


def test_the_loss_of_two_tokens_by_hand() -> None:
    # With an identity as weight the hidden states are the logits.
    logits = torch.tensor([[0.0, 0.0], [1.0, 0.0]])

    total = chunked_loss_sum(
        logits, torch.eye(2), torch.tensor([0, 1]), torch.tensor([1.0, 0.5]), rows=1
    )

    # ln 2, and ln(1 + e) since the second token is the less likely one
    assert total.item() == pytest.approx(0.693147 + 0.5 * 1.313262, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 5, 36, 37, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_loss_and_gradients_are_those_of_the_plain_loss(rows: int, dtype: torch.dtype) -> None:
    targets = torch.arange(N) % V
    weights = torch.linspace(0.0, 2.0, N)
    results = []
    for function in (plain_loss, lambda *args: chunked_loss_sum(*args, rows=rows)):
        hidden = drawn(N, D).to(dtype).requires_grad_()
        weight = drawn(V, D, seed=2).to(dtype).requires_grad_()
        loss = function(hidden, weight, targets, weights) / 7
        loss.backward()
        results.append((loss, hidden.grad, weight.grad))

    rtol = 1e-5 if dtype is torch.float32 else 4 * torch.finfo(dtype).eps
    for ours, plain in zip(results[1], results[0], strict=True):
        assert ours is not None
        assert plain is not None
        assert (ours - plain).abs().max() <= rtol * plain.abs().max()


def test_a_frozen_output_layer_gets_no_gradient_and_hidden_states_theirs() -> None:
    hidden, weight = drawn(N, D).requires_grad_(), drawn(V, D, seed=2)
    expected = hidden.detach().clone().requires_grad_()
    plain_loss(expected, weight, torch.arange(N), torch.ones(N)).backward()

    chunked_loss_sum(hidden, weight, torch.arange(N), torch.ones(N), rows=8).backward()

    torch.testing.assert_close(hidden.grad, expected.grad)


def test_no_tokens_cost_nothing_and_still_reach_the_weights() -> None:
    layer = OutputLayer.of(nn.Linear(D, V, bias=False))
    hidden = drawn(0, D).requires_grad_()

    loss = layer(hidden, torch.zeros(0, dtype=torch.long), torch.zeros(0))
    loss.backward()

    assert loss.item() == 0.0
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()
    assert hidden.grad is not None


def test_the_layer_is_the_one_it_was_made_of() -> None:
    linear = nn.Linear(D, V, bias=False)
    layer = OutputLayer.of(linear)

    assert layer.weight is linear.weight
    assert list(layer.state_dict()) == ["weight"]
    assert torch.equal(layer(drawn(3, D)), linear(drawn(3, D)))
    assert OutputLayer.of(layer) is layer


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.num_bytes = max(self.num_bytes, leaf.numel() * leaf.element_size())
        return out


def test_logits_of_2048_tokens_and_32000_words_never_exist_at_once() -> None:
    whole = 2048 * 32_000 * 4
    targets, weights = torch.zeros(2048, dtype=torch.long), torch.ones(2048)
    sizes = {}
    for name, function in (("plain", plain_loss), ("ours", chunked_loss_sum)):
        hidden = drawn(2048, 8).requires_grad_()
        weight = drawn(32_000, 8, seed=2).requires_grad_()
        with Largest() as largest:
            function(hidden, weight, targets, weights).backward()
        sizes[name] = largest.num_bytes

    assert sizes["plain"] >= whole
    assert sizes["ours"] <= CHUNK_BYTES < whole
