"""A training stage whose ZeRO-3 really splits every weight, as it does with large ones.

DeepSpeed keeps weights under 100,000 elements whole on every rank: all that a miniature has.
"""

from __future__ import annotations

from typing import Any

from scalesweep.stages import StageContext
from scalesweep.train import deepspeed, stage


def run(context: StageContext) -> None:
    split_every_weight()
    stage.run(context)


def split_every_weight() -> None:
    """From now on in this process."""
    settings = deepspeed.engine_config

    def without_whole_weights(*args: Any, **kwargs: Any) -> dict[str, Any]:
        config = settings(*args, **kwargs)
        zero = {**config["zero_optimization"], "stage3_param_persistence_threshold": 0}
        return {**config, "zero_optimization": zero}

    deepspeed.engine_config = without_whole_weights
