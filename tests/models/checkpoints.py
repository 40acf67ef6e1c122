"""Checkpoints as tune stages publish them, without the training."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from scalesweep.data.tokenize import image_token_id
from scalesweep.specs import GenerateSpec, Method, Precision
from scalesweep.train.publish import publish
from scalesweep.train.trainable import build_trainable
from tests.train.small_stages import PATHS, model_spec, tower_spec, training_spec


def tuned(method: Method, folder: Path, *, paths: Mapping[str, str] = PATHS, **changes: Any) -> Any:
    """Publish a checkpoint whose learned weights were moved at random; returns its model."""
    tokenizer = AutoTokenizer.from_pretrained(paths["tokenizer"])
    made = build_trainable(
        training_spec(method, **changes),
        paths=paths,
        inputs={},
        tokenizer=tokenizer,
        image_token_id=image_token_id(tokenizer),
    )
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in made.parameters:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += 0.1 * noise * parameter.std(unbiased=False).clamp(min=0.1)
    folder.mkdir(parents=True, exist_ok=True)
    publish(made, folder, gathered=lambda _: nullcontext(), is_main=True)
    return made.model.eval()


def generate_spec(method: Method | None, **changes: Any) -> GenerateSpec:
    """A tuned checkpoint, or None for the base, asked both miniature benchmarks."""
    settings: dict[str, Any] = {
        "checkpoint": "base" if method is None else "tune",
        "method": method,
        "model": model_spec(),
        "tower": None if method is None else tower_spec(),
        "blind": False,
        "benchmarks": [],
        "num_beams": 1,
        "max_new_tokens": 6,
        "precision": Precision.fp32,
    }
    return GenerateSpec(**{**settings, **changes})
