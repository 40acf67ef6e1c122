"""Stage 0: making a language model or a tower before anything multimodal (conf/base/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.batch import check_micro_batch
from scalesweep.config.checks import at_least, fraction, one_of, require
from scalesweep.config.datasets import SourceConfig
from scalesweep.config.optim import OptimConfig


@dataclass(kw_only=True)
class BaseRecipe:
    """How one base is trained."""

    sources: list[SourceConfig]
    on_broken_item: str = "stop"
    optim: OptimConfig
    global_batch_size: int
    micro_batch_size: int | None
    micro_batch_tokens: int | None
    """Exactly one of the two is set, as in batch."""
    max_seq_len: int
    zero_stage: int
    nodes: int
    seed: int
    prompt_loss_weight: float = 0.0
    """Loss weight of tokens that are not answers."""
    export_dtype: str = "bfloat16"
    """Dtype of the published weights: float32 | bfloat16 | float16."""

    def __post_init__(self) -> None:
        for name in ("global_batch_size", "nodes"):
            at_least(1, value=(f"base.{name}", getattr(self, name)))
        at_least(0, value=("base.seed", self.seed))
        check_micro_batch("base", self.micro_batch_size, self.micro_batch_tokens, self.max_seq_len)
        require(self.zero_stage in (0, 1, 2, 3), "base.zero_stage", self.zero_stage, "0 to 3")
        fraction("base.prompt_loss_weight", self.prompt_loss_weight)
        one_of("base.export_dtype", self.export_dtype, ("float32", "bfloat16", "float16"))
        one_of("base.on_broken_item", self.on_broken_item, ("stop", "skip"))
        self.optim.check("base.optim")


@dataclass(kw_only=True)
class BaseConfig:
    """Which bases are made by stages of this graph instead of taken as they are."""

    name: str
    language: BaseRecipe | None = None
    """Language model; null: model.weights are taken as they are."""
    language_start: str = "weights"
    """weights: model.weights are instruction-tuned further | random: made from nothing."""
    tower: BaseRecipe | None = None
    """Vision tower, from nothing (miniature only); null: resolution.weights."""

    def __post_init__(self) -> None:
        one_of("base.language_start", self.language_start, ("weights", "random"))
