"""What is learned: a module that turns a micro-batch into a sum of weighted losses.

DeepSpeed wraps the whole task, so that every collective of a step happens inside one forward, on
every rank alike, whatever its samples hold.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from scalesweep.data.images import normalise
from scalesweep.models.embeddings import picture_features, text_embeddings, with_pictures


def weighted_loss_sum(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Sum of weight x negative log-likelihood, in fp32.

    Shapes: logits [N, V], targets [N] int64, weights [N] -> scalar. N may be 0.
    """
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    return (losses * weights).sum()


class LanguageTask(nn.Module):
    """A language model learns from text alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, loss_weights: Tensor, pixels: Tensor, num_pictures: int
    ) -> Tensor:
        del pixels, num_pictures
        hidden = self.model.model(input_ids=input_ids, use_cache=False).last_hidden_state
        return _answer_loss(self.model.lm_head, hidden, input_ids, loss_weights)


class LlavaTask(nn.Module):
    """Language model, projector or adapters learn from pictures and text.

    Every micro-batch calls tower and projector: a rank whose samples have no picture takes a dummy
    times 0, or the others would wait for its gradients for ever.

    No attention mask: rows are padded on the right, so that no real token sees padding, and none
    of the padding has a loss.
    """

    def __init__(self, model: Any, *, blind: bool) -> None:
        super().__init__()
        self.model = model
        self.blind = blind

    def forward(
        self, input_ids: Tensor, loss_weights: Tensor, pixels: Tensor, num_pictures: int
    ) -> Tensor:
        llava = self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        hidden, is_image = text_embeddings(llava, input_ids)
        normalised = normalise(pixels, blind=self.blind).to(hidden.dtype)
        features = picture_features(llava, normalised)
        if num_pictures:
            hidden = with_pictures(hidden, is_image, features)
        else:
            hidden = hidden + 0.0 * features.sum()
        hidden = llava.model.language_model(inputs_embeds=hidden, use_cache=False).last_hidden_state
        return _answer_loss(llava.lm_head, hidden, input_ids, loss_weights)


def _answer_loss(lm_head: nn.Module, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Loss of the tokens that have a weight; logits of the others are never made.

    Shapes: hidden [B, T, D], ids [B, T], weights [B, T]
    """
    learned = weights[:, 1:] != 0
    logits = lm_head(hidden[:, :-1][learned])  # [N, V]
    return weighted_loss_sum(logits, ids[:, 1:][learned], weights[:, 1:][learned])
