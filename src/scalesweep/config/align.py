"""Stage 1: only the projector learns, on captions (conf/align/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.batch import check_micro_batch
from scalesweep.config.checks import at_least, one_of, require
from scalesweep.config.datasets import SourceConfig
from scalesweep.config.optim import OptimConfig


@dataclass(kw_only=True)
class AlignConfig:
    """A whole recipe of its own, so that no setting of stage 2 reaches it and it stays shared."""

    name: str
    miniature: bool
    sources: list[SourceConfig]
    on_broken_item: str = "stop"
    template: str
    """plain: picture, caption, newline (LLaVA's stage 1) | mini."""
    optim: OptimConfig
    global_batch_size: int
    micro_batch_size: int | None
    micro_batch_tokens: int | None
    """Exactly one of the two is set, as in batch."""
    max_seq_len: int
    zero_stage: int
    nodes: int
    seed: int
    """Of the projector's first weights and of the order of captions."""

    def __post_init__(self) -> None:
        for name in ("global_batch_size", "nodes"):
            at_least(1, value=(f"align.{name}", getattr(self, name)))
        at_least(0, value=("align.seed", self.seed))
        check_micro_batch("align", self.micro_batch_size, self.micro_batch_tokens, self.max_seq_len)
        require(self.zero_stage in (0, 1, 2, 3), "align.zero_stage", self.zero_stage, "0 to 3")
        one_of("align.template", self.template, ("plain", "mini"))
        one_of("align.on_broken_item", self.on_broken_item, ("stop", "skip"))
        require(bool(self.sources), "align.sources", "[]", "name at least one file")
        self.optim.check("align.optim")
