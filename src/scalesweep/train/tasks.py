"""What is learned: a module that turns a micro-batch into a sum of weighted losses.

DeepSpeed wraps the whole task, so that every collective of a step happens inside one forward, on
every rank alike, whatever its samples hold.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scalesweep.data.images import normalise
from scalesweep.models.attention import Kernel, packed_sequences
from scalesweep.models.embeddings import picture_features, text_embeddings, with_pictures
from scalesweep.models.output_layer import OutputLayer


class _AnswerTask(nn.Module):
    """Hidden states of a micro-batch become the sum of losses of what is to be said."""

    def __init__(self, model: Any, *, kernel: Kernel = Kernel.sdpa) -> None:
        super().__init__()
        self.model = model
        self.kernel = kernel

    @property
    def unwrapped(self) -> Any:
        """The model, whatever peft wraps around it."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    def forward(
        self,
        input_ids: Tensor,
        loss_weights: Tensor,
        pixels: Tensor,
        num_pictures: int,
        lengths: tuple[int, ...] | None = None,
    ) -> Tensor:
        hidden = self.hidden_states(input_ids, pixels, num_pictures, lengths)
        return _answer_loss(self.unwrapped.lm_head, hidden, input_ids, loss_weights)

    def hidden_states(
        self,
        input_ids: Tensor,
        pixels: Tensor,
        num_pictures: int,
        lengths: tuple[int, ...] | None,
    ) -> Tensor:
        """[B, T, D] before the output layer."""
        raise NotImplementedError


class LanguageTask(_AnswerTask):
    """A language model learns from text alone."""

    def hidden_states(
        self,
        input_ids: Tensor,
        pixels: Tensor,
        num_pictures: int,
        lengths: tuple[int, ...] | None,
    ) -> Tensor:
        """[B, T, D] before the output layer."""
        del pixels, num_pictures
        embedded = self.model.get_input_embeddings()(input_ids)
        return _last_hidden(self.model.model, embedded, lengths, self.kernel)


class LlavaTask(_AnswerTask):
    """Language model, projector or adapters learn from pictures and text.

    Every micro-batch calls tower and projector: a rank whose samples have no picture takes a dummy
    times 0, or the others would wait for its gradients for ever.
    """

    def __init__(self, model: Any, *, blind: bool, kernel: Kernel = Kernel.sdpa) -> None:
        super().__init__(model, kernel=kernel)
        self.blind = blind

    def hidden_states(
        self,
        input_ids: Tensor,
        pixels: Tensor,
        num_pictures: int,
        lengths: tuple[int, ...] | None,
    ) -> Tensor:
        """[B, T, D] before the output layer."""
        llava = self.unwrapped
        hidden, is_image = text_embeddings(llava, input_ids)
        normalised = normalise(pixels, blind=self.blind).to(hidden.dtype)
        features = picture_features(llava, normalised)
        if num_pictures:
            hidden = with_pictures(hidden, is_image, features)
        else:
            hidden = hidden + 0.0 * features.sum()
        return _last_hidden(llava.model.language_model, hidden, lengths, self.kernel)


def _last_hidden(
    language_model: Any, embedded: Tensor, lengths: tuple[int, ...] | None, kernel: Kernel
) -> Tensor:
    """Embeddings [B, T, D] through the blocks of a LLaMA.

    lengths: of the samples packed in one row; None: each row is one sample, padded on the right,
    so that no real token sees padding, and none of the padding has a loss.

    Never a mask and never a cache: with either, packed samples would see one another.
    """
    if lengths is None:
        out = language_model(inputs_embeds=embedded, use_cache=False)
    else:
        packed = packed_sequences(lengths, device=embedded.device, kernel=kernel)
        out = language_model(
            inputs_embeds=embedded,
            position_ids=packed.position_ids(),
            use_cache=False,
            packed=packed,
        )
    hidden: Tensor = out.last_hidden_state
    return hidden


def _answer_loss(lm_head: OutputLayer, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Loss of the tokens that have a weight; logits of the others are never made.

    Shapes: hidden [B, T, D], ids [B, T], weights [B, T]. In a packed row the first token of every
    sample has weight 0, so that no sample is predicted from the one before it.
    """
    places = torch.nonzero(weights[:, 1:].reshape(-1)).squeeze(1)
    # [B, T, D] -> [N, D]
    learned = hidden[:, :-1].reshape(-1, hidden.shape[-1]).index_select(0, places)
    targets = ids[:, 1:].reshape(-1).index_select(0, places)
    loss: Tensor = lm_head(learned, targets, weights[:, 1:].reshape(-1).index_select(0, places))
    return loss
