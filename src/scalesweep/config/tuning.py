"""How stage 2 tunes the language model (conf/tuning/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import one_of


@dataclass(kw_only=True)
class TuningConfig:
    """The tuning method. The projector learns in all of them."""

    method: str
    """full | lora | qlora."""

    def __post_init__(self) -> None:
        one_of("tuning.method", self.method, ("full", "lora", "qlora"))
