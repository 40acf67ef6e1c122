"""One copy of an answering model over several ranks of a node, one after the other.

Each rank builds the stock model on meta tensors and keeps a run of its decoder layers; light
stand-ins take the places of the others, so that every rank runs the same generate() in lockstep and
reads only its own weights. The first rank embeds text and pictures; hidden states go to all ranks
after each run of layers, and the last rank's logits after its output layer, so that all choose the
same tokens. On equal devices nothing is computed otherwise than unsplit: logits are bit-equal.

Why not what there is: transformers' tensor parallelism divides each matrix, which changes sums (and
so near ties of tokens), and knows neither 4-bit layers nor peft's; accelerate's dispatch wants one
process that sees all GPUs, while a launcher starts one rank for each, and loads by its own loader.
While one rank computes the others wait: splitting buys room, not speed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import CLIPVisionModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from scalesweep.errors import StageError
from scalesweep.models.loading import (
    ADAPTER_FORMS,
    Elsewhere,
    Placement,
    read_weight,
    shards,
)
from scalesweep.models.replica import Replica


@dataclass(frozen=True)
class Split:
    """Placement of one rank's part of a model; what it keeps is placed as `inner` says."""

    inner: Placement
    replica: Replica
    layers: Sequence[range]
    """Decoder layers of each rank (answering_memory.divided)."""

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def prepare(self, model: Any) -> None:
        self.inner.prepare(model)
        if self.replica.size > 1:
            keep_part(model, self.replica, self.layers)

    def put(
        self, module: nn.Module, name: str, read: Callable[[], Tensor], dtype: torch.dtype
    ) -> None:
        self.inner.put(module, name, read, dtype)


def keep_part(model: Any, replica: Replica, layers: Sequence[range]) -> None:
    """Put stand-ins in a LLaMA or LLaVA, on meta, where other ranks hold it.

    The embedding matrix stays also on the last rank where the output layer is tied to it.
    """
    is_llava = hasattr(model.model, "language_model")
    decoder = model.model.language_model if is_llava else model.model
    config = decoder.config
    if not replica.is_first:
        if not (replica.is_last and config.tie_word_embeddings):
            decoder.embed_tokens = NoEmbedding(decoder.embed_tokens, config, replica.device)
        if is_llava:
            model.model.vision_tower = NoTower(
                model.model.vision_tower, model.config.vision_config, config
            )
            without_projector(model)
    for owner, run in enumerate(layers):
        for index in run:
            shares = index == run[-1] and owner != replica.size - 1
            if owner == replica.rank:
                if shares:
                    decoder.layers[index].register_forward_hook(partial(_sends, replica))
            else:
                decoder.layers[index] = NoLayer(
                    decoder.layers[index], index, replica, receives_from=owner if shares else None
                )
    if replica.is_last:
        model.lm_head.register_forward_hook(partial(_sends, replica))
    else:
        decoder.norm = NoNorm(decoder.norm)
        model.lm_head = NoOutput(model.lm_head, config.vocab_size, replica)


def no_tower(config: Any, text: Any) -> NoTower:
    """A stand-in for a tower that was not read."""
    with torch.device("meta"):
        return NoTower(CLIPVisionModel(config), config, text)


def without_projector(llava: Any) -> None:
    """Put a stand-in for the projector, which the first rank has."""
    llava.model.multi_modal_projector = NoProjector(
        llava.model.multi_modal_projector, llava.config.text_config
    )


def _sends(replica: Replica, _: nn.Module, __: Any, output: Tensor) -> Tensor:
    """A forward hook: what a module gives goes to all ranks."""
    return replica.share(output, owner=replica.rank)


_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def with_part_of_adapters(
    base: Any, folder: Path, replica: Replica, layers: Sequence[range]
) -> PeftModel:
    """A split base with its part of the adapters in a folder; the others are never read.

    Raises:
        StageError: weights cannot be read, some are missing, or adapters are on the embedding or
            the output layer.
        ValueError: peft's, where the adapters do not fit the base.
    """
    config = PeftConfig.from_pretrained(folder)
    config.inference_mode = True
    model = PeftModel(base, config)
    state = {}
    for shard in shards(folder, ADAPTER_FORMS):
        for name in shard.names():
            if any(part in name for part in ("lm_head", "embed_tokens")):
                raise StageError(
                    f"{folder}: {name} changes the embedding or the output layer, which a model "
                    "that is split over devices cannot have adapters on; merge them into the "
                    "weights first"
                )
            if _is_own(name, replica, layers):
                state[name] = read_weight(shard, name, folder)
    result = set_peft_model_state_dict(model, state)
    missing = [name for name in result.missing_keys if "lora_" in name or "_to_save" in name]
    if missing or result.unexpected_keys:
        raise StageError(
            f"{folder}: does not fit its base: missing {missing[:1]}, without a place "
            f"{result.unexpected_keys[:1]}"
        )
    return model.eval()


def _is_own(name: str, replica: Replica, layers: Sequence[range]) -> bool:
    """Whether an adapter belongs to what this rank holds: by its layer, else it is the tower's or
    the projector's."""
    layer = _LAYER.search(name)
    if layer is None or "vision_tower" in name:
        return replica.is_first
    return int(layer.group(1)) in layers[replica.rank]


class NoEmbedding(Elsewhere):
    """Hidden states of the right shape; the first rank has the real ones."""

    def __init__(self, part: nn.Module, config: Any, device: torch.device) -> None:
        super().__init__(part)
        self._size, self._dtype, self._device = config.hidden_size, config.dtype, device

    def forward(self, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, self._size, dtype=self._dtype, device=self._device)


class NoTower(Elsewhere):
    """Features of the right shape."""

    def __init__(self, part: nn.Module, config: Any, text: Any) -> None:
        super().__init__(part)
        self.config = config
        self._dtype = text.dtype

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        config = self.config
        tokens = (config.image_size // config.patch_size) ** 2 + 1
        zeros = torch.zeros(
            len(pixel_values),
            tokens,
            config.hidden_size,
            dtype=self._dtype,
            device=pixel_values.device,
        )
        return BaseModelOutputWithPooling(hidden_states=(zeros,) * (config.num_hidden_layers + 1))


class NoProjector(Elsewhere):
    def __init__(self, part: nn.Module, config: Any) -> None:
        super().__init__(part)
        self._size = config.hidden_size

    def forward(self, features: Tensor) -> Tensor:
        return features.new_zeros(*features.shape[:-1], self._size)


class NoLayer(Elsewhere):
    """Passes hidden states on; the last of a run takes those of the rank that has the run.

    Masks and positions follow from how long a layer's cache is, and whoever moves its rows moves
    those of all layers: a stand-in keeps one as long, of one head of size one.
    """

    def __init__(
        self, part: nn.Module, index: int, replica: Replica, *, receives_from: int | None
    ) -> None:
        super().__init__(part)
        self._index, self._replica, self._receives_from = index, replica, receives_from

    def forward(self, hidden: Tensor, *, past_key_values: Any = None, **_: Any) -> Tensor:
        if past_key_values is not None:
            least = hidden.new_zeros(len(hidden), 1, hidden.shape[1], 1)
            past_key_values.update(least, least, self._index)
        if self._receives_from is None:
            return hidden
        return self._replica.share(torch.empty_like(hidden), owner=self._receives_from)


class NoNorm(Elsewhere):
    def forward(self, hidden: Tensor) -> Tensor:
        return hidden


class NoOutput(Elsewhere):
    """The last rank's logits."""

    def __init__(self, part: nn.Module, vocab_size: int, replica: Replica) -> None:
        super().__init__(part)
        self._vocab_size, self._replica = vocab_size, replica

    def forward(self, hidden: Tensor) -> Tensor:
        logits = hidden.new_empty(*hidden.shape[:-1], self._vocab_size)
        return self._replica.share(logits, owner=self._replica.size - 1)
