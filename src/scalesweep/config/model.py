"""The language model of a cell (conf/model/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import at_least, one_of, positive, require

TEMPLATES = ("mini", "vicuna_v1", "llama_2", "chatml")


@dataclass(kw_only=True)
class ModelConfig:
    """A LLaMA language model: its shape, its weights, how it is spoken to."""

    name: str
    miniature: bool
    """Studied in the miniature world: its towers, data and benchmark, on a CPU."""
    hidden_size: int
    intermediate_size: int
    """Width of the feed-forward layers."""
    num_layers: int
    num_heads: int
    num_kv_heads: int
    """Key/value heads; fewer than num_heads is grouped-query attention."""
    vocab_size: int
    max_position_embeddings: int
    template: str
    """Conversation template: mini | vicuna_v1 | llama_2 | chatml."""
    weights: str
    """Declared identity, part of the key: hub:owner/name@revision or sha256:<folder digest>."""
    tokenizer: str
    """Declared identity of the tokenizer folder, same forms."""
    path: str | None = None
    """Folder with the weights on this machine; null: in the hub's cache, for hub:... ones."""
    tokenizer_path: str | None = None
    """Folder with the tokenizer; null: model.path, or the hub's cache."""
    tie_word_embeddings: bool = False
    """The output layer is the embedding matrix itself."""
    base_lr: float | None = None
    """Learning rate at which a miniature's base is made from nothing; null: never made here."""
    licence: str = ""
    """Of the weights, for people; empty: not known here."""
    source: str = ""
    """Where the weights come from and how to get them, for people."""

    def __post_init__(self) -> None:
        for name in (
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "vocab_size",
            "max_position_embeddings",
        ):
            at_least(1, value=(f"model.{name}", getattr(self, name)))
        one_of("model.template", self.template, TEMPLATES)
        require(
            self.hidden_size % self.num_heads == 0,
            "model.num_heads",
            self.num_heads,
            f"must divide model.hidden_size={self.hidden_size}",
        )
        require(
            self.num_heads % self.num_kv_heads == 0,
            "model.num_kv_heads",
            self.num_kv_heads,
            f"must divide model.num_heads={self.num_heads}",
        )
        positive("model.base_lr", self.base_lr)
