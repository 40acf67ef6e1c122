"""A model ready to be trained, for each method: what learns, what is frozen, what is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionModel, LlamaForCausalLM

from scalesweep.models.adapters import add_adapters
from scalesweep.models.attention import Kernel, use_packed_attention
from scalesweep.models.build import (
    DTYPES,
    assemble_llava,
    clip_config,
    llama_config,
    load_language_model,
    load_projector,
    load_vision_tower,
)
from scalesweep.models.elementwise import fuse_elementwise
from scalesweep.models.loading import ON_CPU, Placement
from scalesweep.models.output_layer import OutputLayer
from scalesweep.models.quantization import FourBit, quantize_language_model
from scalesweep.models.recompute import Recompute, recompute_activations
from scalesweep.models.weights import weights_folder
from scalesweep.specs import Method, TrainingSpec
from scalesweep.train.tasks import LanguageTask, LlavaTask
from scalesweep.train.tower_task import TowerTask


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """A task, and the model in it."""

    task: nn.Module
    model: Any
    spec: TrainingSpec
    tokenizer: Any

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What learns."""
        return [p for p in self.task.parameters() if p.requires_grad]

    @property
    def num_trainable_params(self) -> int:
        """Of the published model; a tower's heads do not count."""
        return sum(_numel(p) for p in self.model.parameters() if p.requires_grad)


def _numel(parameter: nn.Parameter) -> int:
    # Under ZeRO-3 the parameter itself is empty.
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def build_trainable(
    spec: TrainingSpec,
    *,
    paths: Mapping[str, str],
    inputs: Mapping[str, Path],
    tokenizer: Any,
    image_token_id: int,
    recompute: Recompute = Recompute.none,
    kernel: Kernel = Kernel.sdpa,
    fuse: bool = False,
    placement: Placement = ON_CPU,
) -> Trainable:
    """The model of a stage with exactly what its method trains requiring gradients.

    recompute: activations that the backward pass computes again.
    kernel: of attention over packed samples; fuse: compile the element-wise parts.
    placement: where loaded weights stay; a language model's under qlora are made 4-bit on the way.

    Raises:
        StageError: weights are missing, not the declared ones, or of another architecture.
    """
    torch.manual_seed(spec.seed)  # first weights of adapters, heads, and of models from nothing
    if spec.method is Method.tower:
        assert spec.tower is not None
        model: Any = CLIPVisionModel(clip_config(spec.tower))
        return Trainable(task=TowerTask(model), model=model, spec=spec, tokenizer=None)
    if spec.method is Method.language:
        model = _language_model(spec, paths, inputs, tokenizer, placement)
        model.requires_grad_(True)
        blocks = model.model
        task: nn.Module = LanguageTask(model, kernel=kernel)
    else:
        model = _llava(spec, paths, inputs, tokenizer, image_token_id, placement)
        blocks = model.model.language_model
        model = _with_gradients(model, spec)
        task = LlavaTask(model, blind=spec.blind, kernel=kernel)
    use_packed_attention(blocks)
    recompute_activations(blocks, recompute)
    if fuse:
        fuse_elementwise(blocks)
    return Trainable(task=task, model=model, spec=spec, tokenizer=tokenizer)


def _language_model(
    spec: TrainingSpec,
    paths: Mapping[str, str],
    inputs: Mapping[str, Path],
    tokenizer: Any,
    placement: Placement,
) -> LlamaForCausalLM:
    assert spec.model is not None
    if spec.model.weights == "random":
        model = LlamaForCausalLM(llama_config(spec.model, tokenizer=tokenizer))
    else:
        folder = weights_folder("language_model", spec.model.weights, paths=paths, inputs=inputs)
        dtype = DTYPES[spec.precision]
        if spec.method is Method.qlora:
            placement = FourBit(placement.device, compute_dtype=dtype)
        model = load_language_model(spec.model, folder, dtype=dtype, placement=placement)
    model.lm_head = OutputLayer.of(model.lm_head)
    return model


def _llava(
    spec: TrainingSpec,
    paths: Mapping[str, str],
    inputs: Mapping[str, Path],
    tokenizer: Any,
    image_token_id: int,
    placement: Placement,
) -> Any:
    assert spec.tower is not None
    folder = weights_folder("vision_tower", spec.tower.weights, paths=paths, inputs=inputs)
    dtype = DTYPES[spec.precision]
    tower = load_vision_tower(spec.tower, folder, dtype=dtype, placement=placement)
    model = assemble_llava(
        _language_model(spec, paths, inputs, tokenizer, placement),
        tower,
        spec.tower,
        image_token_id=image_token_id,
        seed=spec.seed,
    )
    if "align" in inputs:
        load_projector(model, inputs["align"] / "projector.safetensors")
    return model


def _with_gradients(model: Any, spec: TrainingSpec) -> Any:
    model.requires_grad_(False)
    if spec.method in (Method.lora, Method.qlora):
        assert spec.lora is not None
        if spec.method is Method.qlora:
            quantize_language_model(model, compute_dtype=DTYPES[spec.precision])
        return add_adapters(model, spec.lora)
    model.model.multi_modal_projector.linear_1.requires_grad_(True)
    if spec.method is Method.full:
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)
    return model
