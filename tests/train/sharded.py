"""A training stage whose ZeRO-3 really splits every weight, as it does with large ones.

DeepSpeed keeps weights under 100,000 elements whole on every rank: all that a miniature has.
"""

from __future__ import annotations

from typing import Any

from scalesweep.specs import Method
from scalesweep.stages import StageContext
from scalesweep.train import deepspeed, stage


def run(context: StageContext) -> None:
    split_every_weight()
    if context.spec.identity["method"] != Method.tower:  # nothing of it is loaded
        check_loaded_split()
    stage.run(context)


def check_loaded_split() -> None:
    """From now on in this process no weight that was loaded reaches the engine whole."""
    build = stage.build_trainable

    def checked(*args: Any, **kwargs: Any) -> Any:
        made = build(*args, **kwargs)
        whole = {
            name
            for name, parameter in made.task.named_parameters()
            if parameter.numel() and not any(part in name for part in ADDED)
        }
        assert not whole, f"loaded whole under ZeRO-3: {sorted(whole)[:3]}"
        return made

    stage.build_trainable = checked


ADDED = ("lora_", "multi_modal_projector")
"""Made after the weights were loaded; the engine splits them."""


def split_every_weight() -> None:
    """From now on in this process."""
    settings = deepspeed.engine_config

    def without_whole_weights(*args: Any, **kwargs: Any) -> dict[str, Any]:
        config = settings(*args, **kwargs)
        zero = {**config["zero_optimization"], "stage3_param_persistence_threshold": 0}
        return {**config, "zero_optimization": zero}

    deepspeed.engine_config = without_whole_weights
