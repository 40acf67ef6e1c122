"""Vision towers of the miniature learn from captions; what is published has features to scale."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPVisionModel

from scalesweep.errors import DataError
from scalesweep.models.build import clip_config
from scalesweep.train.tower_task import (
    FEATURE_SCALE,
    TowerTask,
    publishable_state,
    quarter_labels,
    tower_accuracy,
)
from tests.train.small_stages import tower_spec


@pytest.fixture
def task() -> TowerTask:
    torch.manual_seed(0)
    return TowerTask(CLIPVisionModel(clip_config(tower_spec()))).eval()


def test_a_caption_labels_the_quarters_that_hold_something() -> None:
    labels = quarter_labels(["red circle 4 top left , blue cross 0 bottom right"])

    # shapes: circle, square, triangle, cross, diamond from 1; colours: red, green, blue from 1;
    # digits from 1
    assert labels.tolist() == [[[1, 1, 5], [0, 0, 0], [0, 0, 0], [4, 3, 1]]]


@pytest.mark.parametrize("caption", ["a photo of a cat", "red circle 4 nowhere", ""])
def test_a_caption_of_another_world_is_refused(caption: str) -> None:
    with pytest.raises(DataError, match="not one of the miniature world"):
        quarter_labels([caption])


def test_the_loss_is_the_mean_over_quarters_of_three_heads(task: TowerTask) -> None:
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    labels = quarter_labels(["red circle 4 top left", "white diamond 9 bottom left"])
    heads = [logits.log_softmax(-1) for logits in task.predictions(pixels)]
    by_hand = -sum(
        heads[j][i, q, labels[i, q, j]] for i in range(2) for q in range(4) for j in range(3)
    )

    torch.testing.assert_close(task(pixels, labels), by_hand / 4, rtol=1e-5, atol=0)


def test_accuracy_counts_only_quarters_that_hold_something(task: TowerTask) -> None:
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    said = [int(logits[0, 0].argmax()) for logits in task.predictions(pixels)]
    labels = torch.zeros(1, 4, 3, dtype=torch.long)
    labels[0, 0] = torch.tensor([max(1, said[0]), said[1], said[2]])

    found = tower_accuracy(task, pixels, labels)

    assert (found["color"], found["digit"]) == (1.0, 1.0)
    assert found["shape"] == float(said[0] > 0)


def test_published_features_are_the_trained_ones_to_scale(task: TowerTask) -> None:
    published = CLIPVisionModel(clip_config(tower_spec())).eval()
    published.load_state_dict(publishable_state(task.model))
    pixels = torch.randn(2, 3, 32, 32)

    trained, scaled = (
        model(pixels, output_hidden_states=True).hidden_states[-2]
        for model in (task.model, published)
    )

    # equal up to the epsilon of layer norms
    torch.testing.assert_close(scaled, trained * FEATURE_SCALE, rtol=1e-2, atol=1e-3)
