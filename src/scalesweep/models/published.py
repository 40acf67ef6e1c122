"""Checkpoints that stages published, loaded for answering."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from scalesweep.data.tokenize import image_token_id
from scalesweep.errors import StageError
from scalesweep.models.adapters import quiet_peft
from scalesweep.models.build import (
    DTYPES,
    assemble_llava,
    check_linear_projector,
    load_language_model,
    load_vision_tower,
)
from scalesweep.models.loading import OnDevice, load_weights
from scalesweep.models.quantization import FourBit, quantize_language_model
from scalesweep.specs import GenerateSpec, Method


def load_checkpoint(
    *,
    spec: GenerateSpec,
    checkpoint: Path | None,
    language_model: Path,
    vision_tower: Path | None,
    tokenizer: Path,
) -> tuple[Any, Any]:
    """(model in evaluation mode, tokenizer) of a tuned checkpoint or of a base.

    checkpoint: output of a tune stage; None for a base, which answers without pictures.
    QLoRA answers on the 4-bit base that it was trained on.

    Raises:
        StageError: a folder holds another architecture than the spec says.
    """
    dtype = DTYPES[spec.precision]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    whole = OnDevice(device)
    loaded_tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    if checkpoint is None:
        model: Any = load_language_model(spec.model, language_model, dtype=dtype, placement=whole)
    elif spec.method is Method.full:
        model = load_weights(
            LlavaForConditionalGeneration, checkpoint, dtype=dtype, placement=whole
        )
        check_linear_projector(model)
    else:
        assert spec.tower is not None
        assert vision_tower is not None
        base = assemble_llava(
            load_language_model(
                spec.model,
                language_model,
                dtype=dtype,
                placement=FourBit(device, dtype) if spec.method is Method.qlora else whole,
            ),
            load_vision_tower(spec.tower, vision_tower, dtype=dtype, placement=whole),
            spec.tower,
            image_token_id=image_token_id(loaded_tokenizer),
            seed=0,
        )
        if spec.method is Method.qlora:
            quantize_language_model(base, compute_dtype=dtype)
        model = _with_adapters(base, checkpoint)
    return model.to(device).eval(), loaded_tokenizer


def _with_adapters(base: Any, folder: Path) -> PeftModel:
    try:
        with quiet_peft():
            # peft would go on with the adapters it drew at random.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(base, folder)
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        UserWarning,
        SafetensorError,
    ) as error:
        raise StageError(f"{folder}: does not fit its base: {error!r}") from error
