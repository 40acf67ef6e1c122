"""Checkpoints that stages published, loaded for answering."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoTokenizer, LlamaForCausalLM, LlavaForConditionalGeneration

from scalesweep.data.tokenize import image_token_id
from scalesweep.errors import StageError
from scalesweep.models.adapters import quiet_peft
from scalesweep.models.answering_memory import divided
from scalesweep.models.build import (
    DTYPES,
    assemble_llava,
    check_linear_projector,
    clip_config,
    load_language_model,
    load_vision_tower,
)
from scalesweep.models.loading import OnDevice, load_weights
from scalesweep.models.quantization import (
    FourBit,
    FourBitFiles,
    check_quantized,
    quantize_language_model,
)
from scalesweep.models.replica import Replica
from scalesweep.models.split import Split, no_tower, with_part_of_adapters, without_projector
from scalesweep.models.weights import (
    check_architecture,
    language_model_values,
    read_config,
    vision_tower_values,
)
from scalesweep.specs import GenerateSpec, Method


def load_checkpoint(
    *,
    spec: GenerateSpec,
    checkpoint: Path | None,
    language_model: Path,
    vision_tower: Path | None,
    tokenizer: Path,
    replica: Replica | None = None,
) -> tuple[Any, Any]:
    """(model in evaluation mode, tokenizer) of a tuned checkpoint or of a base.

    checkpoint: output of a tune stage; None for a base, which answers without pictures.
    replica: the ranks that hold the model together; None: this one, on its first device.
    QLoRA answers on the 4-bit base that it was trained on.

    Raises:
        StageError: a folder holds another architecture than the spec says.
    """
    dtype = DTYPES[spec.precision]
    replica = replica or Replica(device=_first_device())
    parts = divided(
        spec.model,
        spec.tower,
        method=spec.method,
        precision=spec.precision,
        parts=replica.size,
    ).layers
    four_bit = spec.method is Method.qlora
    whole = OnDevice(replica.device)
    placement = Split(FourBit(replica.device, dtype) if four_bit else whole, replica, parts)
    loaded_tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    if checkpoint is None:
        model: Any = load_language_model(
            spec.model, language_model, dtype=dtype, placement=placement
        )
    elif spec.method is Method.full:
        model = load_weights(
            LlavaForConditionalGeneration, checkpoint, dtype=dtype, placement=placement
        )
        if replica.is_first:
            check_linear_projector(model)
    else:
        assert spec.tower is not None
        assert vision_tower is not None
        llama = load_language_model(spec.model, language_model, dtype=dtype, placement=placement)
        base = assemble_llava(
            llama,
            load_vision_tower(spec.tower, vision_tower, dtype=dtype, placement=whole)
            if replica.is_first
            else no_tower(clip_config(spec.tower), llama.config),
            spec.tower,
            image_token_id=image_token_id(loaded_tokenizer),
            seed=0,
        )
        if not replica.is_first:
            without_projector(base)
        if four_bit:
            quantize_language_model(base, compute_dtype=dtype)
        model = _with_adapters(base, checkpoint, replica, parts)
    return model.to(replica.device).eval(), loaded_tokenizer


def load_external(
    *,
    spec: GenerateSpec,
    checkpoint: Path,
    base: Path | None,
    tokenizer: Path,
    replica: Replica | None = None,
) -> tuple[Any, Any]:
    """(model in evaluation mode, tokenizer) of a checkpoint that no stage made (external.py).

    base: folder that adapters in `checkpoint` are over; None: the checkpoint is whole.

    Raises:
        StageError: a folder holds another architecture than the spec says, or cannot be read.
    """
    dtype = DTYPES[spec.precision]
    replica = replica or Replica(device=_first_device())
    parts = divided(
        spec.model, spec.tower, method=spec.method, precision=spec.precision, parts=replica.size
    ).layers
    four_bit = spec.method is Method.qlora
    inner = FourBit(replica.device, dtype) if four_bit else OnDevice(replica.device)
    whole = base or checkpoint
    quantized = four_bit and "quantization_config" in read_config(whole)
    model: Any = load_weights(
        LlamaForCausalLM if spec.tower is None else LlavaForConditionalGeneration,
        whole,
        dtype=dtype,
        placement=Split(inner, replica, parts),
        stored=FourBitFiles(whole, replica.device) if quantized else None,
    )
    _check_shapes(whole, spec, model.config)
    loaded_tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    if spec.tower is not None:
        wanted = image_token_id(loaded_tokenizer)
        if model.config.image_token_id != wanted:
            raise StageError(
                f"{tokenizer}: gives pictures the token {wanted}, but the model looks for "
                f"{model.config.image_token_id}"
            )
    if four_bit:
        model.is_loaded_in_4bit = True  # peft looks at it to choose its 4-bit adapters
        if spec.tower is not None:
            check_quantized(model)
    if base is not None:
        model = _with_adapters(model, checkpoint, replica, parts)
    return model.to(replica.device).eval(), loaded_tokenizer


def _check_shapes(folder: Path, spec: GenerateSpec, config: Any) -> None:
    """What was planned with is what transformers made of the same files."""
    found = config.get_text_config().to_dict()
    found["tie_word_embeddings"] = config.tie_word_embeddings
    check_architecture(folder, found, language_model_values(spec.model))
    if spec.tower is not None:
        check_architecture(folder, config.vision_config.to_dict(), vision_tower_values(spec.tower))


def _first_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _with_adapters(base: Any, folder: Path, replica: Replica, layers: Sequence[range]) -> PeftModel:
    try:
        with quiet_peft():
            # peft would go on with the adapters it drew at random.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            if replica.size > 1:
                return with_part_of_adapters(base, folder, replica, layers)
            # peft itself would load them to the first device, whichever is this rank's.
            return PeftModel.from_pretrained(base, folder, torch_device=str(replica.device))
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        UserWarning,
        SafetensorError,
    ) as error:
        raise StageError(f"{folder}: does not fit its base: {error!r}") from error
