"""LoRA adapters on the language model (arXiv:2106.09685), through peft."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model

from scalesweep.specs import LoraSpec

PROJECTOR = "multi_modal_projector.linear_1"
"""Saved with the adapters. Merely letting it require gradients trains it but leaves it out."""


def lora_config(spec: LoraSpec) -> LoraConfig:
    """Adapters on the named linear layers of the language model only; the tower has some too."""
    return LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=rf".*language_model.*\.({'|'.join(spec.targets)})",
        modules_to_save=[PROJECTOR],
    )


def add_adapters(model: Any, spec: LoraSpec) -> PeftModel:
    """The model with fresh adapters; only they and the projector require gradients."""
    with quiet_peft():
        return get_peft_model(model, lora_config(spec))


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Without the warning that peft asks transformers 5 by an old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
        )
        yield
