"""Training of a miniature vision tower: each quarter of a picture names what it shows.

Captions say it ("red circle 4 top left , ..."), so the same files serve that LLaVA reads. The
heads are thrown away; what stays is a tower whose patches know shape, colour and digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from scalesweep.data.images import normalise
from scalesweep.data.world import COLORS, POSITIONS, SHAPES
from scalesweep.errors import DataError

NUM_CLASSES = (1 + len(SHAPES), 1 + len(COLORS), 1 + 10)
"""Shape, colour, digit; class 0 is an empty quarter."""
# Branches of the pre-norm blocks and the norm before them are scaled down when a tower is
# published: the same function up to the epsilon of layer norms, but features then have the size of
# word embeddings, without which the projector learns far more slowly.
FEATURE_SCALE = 0.15
SCALED = ("pre_layrnorm", "out_proj", "fc2")


def quarter_labels(captions: Sequence[str]) -> Tensor:
    """Classes of shape, colour and digit for the four quarters: [n, 4, 3] int64.

    Raises:
        DataError: a caption is not one of the miniature world.
    """
    colors = list(COLORS)
    labels = torch.zeros(len(captions), 4, 3, dtype=torch.long)
    for i, caption in enumerate(captions):
        for part in caption.split(" , "):
            words = part.split()
            try:
                color, shape, digit, *where = words
                labels[i, POSITIONS.index(" ".join(where))] = torch.tensor(
                    [1 + SHAPES.index(shape), 1 + colors.index(color), 1 + int(digit)]
                )
            except ValueError as error:
                raise DataError(f"caption {caption!r}: not one of the miniature world") from error
    return labels


class TowerTask(nn.Module):
    """A CLIP tower and three heads on the mean features of each quarter."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.model = tower
        width = tower.config.hidden_size
        self.heads = nn.ModuleList([nn.Linear(width, classes) for classes in NUM_CLASSES])

    def predictions(self, pixels: Tensor) -> list[Tensor]:
        """Logits of shape, colour and digit: three of [n, 4, classes]; pixels [n, 3, H, W]."""
        patches = self.model(normalise(pixels)).last_hidden_state[:, 1:]
        side = int(patches.shape[1] ** 0.5)
        grid = patches.transpose(1, 2).reshape(len(pixels), -1, side, side)
        quarters = F.adaptive_avg_pool2d(grid, 2).flatten(2).transpose(1, 2)  # [n, 4, D]
        return [head(quarters) for head in self.heads]

    def forward(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Sum over pictures of the mean loss of their quarters; three heads added."""
        losses = [
            F.cross_entropy(logits.flatten(0, 1), labels[..., j].flatten(), reduction="sum")
            for j, logits in enumerate(self.predictions(pixels))
        ]
        return torch.stack(losses).sum() / labels.shape[1]


@torch.no_grad()
def tower_accuracy(task: TowerTask, pixels: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of right shapes, colours and digits, over quarters that hold something."""
    predictions = task.predictions(pixels)
    seen = labels[..., 0] > 0
    return {
        name: (predictions[j].argmax(-1) == labels[..., j])[seen].float().mean().item()
        for j, name in enumerate(("shape", "color", "digit"))
    }


def publishable_state(tower: nn.Module) -> dict[str, Tensor]:
    """Weights of a tower with its features scaled to the size of word embeddings."""
    return {
        name: value * FEATURE_SCALE if any(part in name for part in SCALED) else value
        for name, value in tower.state_dict().items()
    }
