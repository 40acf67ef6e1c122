"""What a micro-batch costs: equal to the stock classes' own loss, whatever it is made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from scalesweep.data.images import normalise
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.specs import Method
from scalesweep.train.tasks import LlavaTask
from scalesweep.train.trainable import Trainable, build_trainable
from tests.train.small_stages import PATHS, training_spec

IMAGE = 4


def trainable(method: Method = Method.full, *, image_token_id: int = IMAGE) -> Trainable:
    return build_trainable(
        training_spec(method),
        paths=PATHS,
        inputs={},
        tokenizer=miniature_tokenizer(),
        image_token_id=image_token_id,
    )


def row(length: int, *, picture: bool, seed: int) -> tuple[Tensor, Tensor]:
    """Ids and weights of a row; the last five tokens are learned."""
    ids = torch.randint(5, 132, (length,), generator=torch.Generator().manual_seed(seed))
    if picture:
        ids[1:17] = IMAGE
    weights = torch.zeros(length)
    weights[-5:] = 1.0
    return ids, weights


def batch(*rows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Rows padded on the right with token 0."""
    ids, weights = zip(*rows, strict=True)
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(list(ids), batch_first=True), pad(list(weights), batch_first=True)


def pixels(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)


def gradients(task: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in task.named_parameters() if p.grad is not None}


PICTURE, OTHER_PICTURE = row(30, picture=True, seed=1), row(24, picture=True, seed=2)
TEXT = row(12, picture=False, seed=3)


def test_the_loss_is_that_of_the_stock_class_with_labels() -> None:
    made = trainable()
    ids, weights = batch(PICTURE, OTHER_PICTURE)
    labels = ids.masked_fill(weights == 0, -100)
    stock = made.model(
        input_ids=ids,
        pixel_values=normalise(pixels(2)),
        attention_mask=(ids != 0).long(),
        labels=labels,
    ).loss

    ours = made.task(ids, weights, pixels(2), 2) / weights.sum()

    torch.testing.assert_close(ours, stock, rtol=1e-6, atol=0)


def test_a_mixed_micro_batch_costs_the_sum_of_its_rows() -> None:
    task = trainable().task
    parts = [
        task(*batch(PICTURE), pixels(2)[:1], 1),
        task(*batch(TEXT), pixels(1), 0),
        task(*batch(OTHER_PICTURE), pixels(2)[1:], 1),
    ]
    sum(parts).backward()
    alone = {name: grad.clone() for name, grad in gradients(task).items()}
    task.zero_grad()

    whole = task(*batch(PICTURE, TEXT, OTHER_PICTURE), pixels(2), 2)
    whole.backward()

    torch.testing.assert_close(whole, sum(parts), rtol=1e-6, atol=0)
    for name, grad in gradients(task).items():
        assert (grad - alone[name]).abs().max() <= 2e-6 * alone[name].abs().max(), name


def test_padding_on_the_right_is_never_seen() -> None:
    task = trainable().task
    ids, weights = batch(PICTURE, TEXT)
    other = ids.clone()
    other[1, len(TEXT[0]) :] = 77

    padded, filled = (task(given, weights, pixels(1), 1) for given in (ids, other))

    assert torch.equal(padded, filled)


def test_text_alone_costs_the_same_with_a_dummy_picture_and_gives_the_projector_zeros() -> None:
    made = trainable()
    ids, weights = batch(TEXT)
    stock = made.model(input_ids=ids, labels=ids.masked_fill(weights == 0, -100)).loss

    ours = made.task(ids, weights, pixels(1), 0)
    ours.backward()

    torch.testing.assert_close(ours / 5, stock, rtol=1e-6, atol=0)
    for parameter in made.model.model.multi_modal_projector.linear_1.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_a_dummy_row_costs_nothing_and_reaches_every_parameter() -> None:
    made = trainable()

    loss = made.task(torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2), pixels(1), 0)
    loss.backward()

    assert loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in made.parameters)


def test_the_image_token_may_lie_beyond_the_vocabulary() -> None:
    ids, weights = batch(PICTURE)
    beyond = ids.masked_fill(ids == IMAGE, 132)

    loss = trainable().task(ids, weights, pixels(1), 1)
    other = trainable(image_token_id=132).task(beyond, weights, pixels(1), 1)

    assert torch.equal(loss, other)


def test_a_blind_model_costs_the_same_whatever_the_picture_shows() -> None:
    made = trainable()
    blind = LlavaTask(made.model, blind=True)
    ids, weights = batch(PICTURE)

    black, other = (blind(ids, weights, shown, 1) for shown in (pixels(1) * 0, pixels(1)))

    assert torch.equal(black, other)
    assert not torch.equal(other, made.task(ids, weights, pixels(1), 1))


def test_a_language_model_learns_weighted_tokens() -> None:
    made = trainable(Method.language)
    ids, weights = batch(TEXT)
    weights = torch.where(weights > 0, 1.0, 0.25)
    logits = made.model(input_ids=ids).logits[0, :-1]
    each = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")

    loss = made.task(ids, weights, torch.zeros(0), 0)

    # 6 tokens weigh a quarter; nothing predicts the first of the 12
    expected = (each[:6] * 0.25).sum() + each[6:].sum()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("method", "learning"),
    [
        pytest.param(Method.projector, ("linear_1",), id="projector"),
        pytest.param(Method.full, ("linear_1", "language_model", "lm_head"), id="full"),
        pytest.param(Method.lora, ("linear_1.modules_to_save", "lora_"), id="lora"),
        pytest.param(Method.qlora, ("linear_1.modules_to_save", "lora_"), id="qlora"),
    ],
)
def test_exactly_what_a_method_trains_requires_gradients(
    method: Method, learning: tuple[str, ...]
) -> None:
    made = trainable(method)

    for name, parameter in made.task.named_parameters():
        assert parameter.requires_grad == any(part in name for part in learning), name


def test_building_twice_draws_the_same_weights() -> None:
    def state(made: Trainable) -> dict[str, Any]:
        return {name: p.detach() for name, p in made.task.named_parameters()}

    one, other = state(trainable(Method.lora)), state(trainable(Method.lora))

    assert all(torch.equal(value, other[name]) for name, value in one.items())
