"""A tuned checkpoint as a directory for plain transformers, or plain peft.

    python -m scalesweep.models.export < request.json > facts.json

A process of its own: the command line imports no torch. Weights pass through one at a time, so that
host memory is bounded by the largest of them. Three forms:

    full     a LLaVA that was trained whole
    adapter  what LoRA or QLoRA trained, and below base/ the LLaVA it was trained on, assembled of
             language model, tower and aligned projector; for QLoRA in 4 bit
    merged   that base with the adapters added to its weights
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.utils import logging as transformers_logging

from scalesweep.data.tokenize import image_token_id
from scalesweep.errors import ScaleSweepError, StageError
from scalesweep.models.adapters import PROJECTOR
from scalesweep.models.build import DTYPES, EXPORT_DTYPES, linear_projector, llava_config
from scalesweep.models.loading import NOT_OURS, Shard, Targets, read_weight, shards
from scalesweep.models.processor import save_processor
from scalesweep.models.quantization import dequantized, nf4_tensors
from scalesweep.models.saving import SHARD_BYTES, write_shards
from scalesweep.models.stock import (
    adapter_name,
    file_name,
    generation_config,
    is_linear_of_language_model,
    is_projector,
    language_model_name,
    nf4_config,
    stock_shapes,
    stock_vocabulary,
    with_rows,
)
from scalesweep.models.weights import check_language_model, check_vision_tower, weights_folder
from scalesweep.rundir import write_json
from scalesweep.specs import Method, TrainingSpec

FORMS = ("full", "adapter", "merged")
REFUSED = 2
"""Exit status when the directory cannot be made; anything else but 0 is a defect."""
BASE = "base"
"""Folder of the base below that of its adapters."""
_RESERVE_BYTES = 64 << 20
"""Disk space besides the weights: tokenizer, configs, headers."""

Request = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is asked for."""

    folder: Path
    form: str
    with_base: bool
    spec: TrainingSpec
    checkpoint: Path
    """Output of the tune stage."""
    inputs: Mapping[str, Path]
    """Of the tune stage: role -> output of its parent."""
    paths: Mapping[str, str]
    dtype: str | None
    """Of the exported weights; None: what the model was trained in."""
    answers: Mapping[str, Any]
    """How the cell is asked: num_beams, max_new_tokens."""
    shard_bytes: int = SHARD_BYTES

    @classmethod
    def from_json(cls, data: Request) -> Export:
        return cls(
            folder=Path(data["folder"]),
            form=data["form"],
            with_base=data["with_base"],
            spec=TrainingSpec.from_identity(data["spec"]),
            checkpoint=Path(data["checkpoint"]),
            inputs={role: Path(path) for role, path in data["inputs"].items()},
            paths=data["paths"],
            dtype=data["dtype"],
            answers=data["answers"],
            shard_bytes=data.get("shard_bytes", SHARD_BYTES),
        )

    @property
    def weights_dtype(self) -> torch.dtype:
        if self.dtype is not None:
            return EXPORT_DTYPES[self.dtype]
        if self.form == "full":
            return EXPORT_DTYPES[self.spec.export_dtype]
        return DTYPES[self.spec.precision]

    @property
    def is_4_bit(self) -> bool:
        """Whether the base is written in 4 bit."""
        return self.form == "adapter" and self.spec.method is Method.qlora

    def input_folder(self, role: str, declared: str) -> Path:
        return weights_folder(role, declared, paths=self.paths, inputs=self.inputs)

    @cached_property
    def tokenizer(self) -> Any:
        """As the model was trained with it."""
        own = self.checkpoint / "tokenizer_config.json"
        assert self.spec.model is not None
        folder = (
            self.checkpoint
            if own.exists()
            else self.input_folder("tokenizer", self.spec.model.tokenizer)
        )
        return AutoTokenizer.from_pretrained(folder)


def export(asked: Export) -> dict[str, Any]:
    """Write the directory; facts about it for its card.

    Raises:
        StageError: weights are missing, damaged or do not fit, or the disk is too small.
        DataError: the tokenizer cannot be made to give the ids that the model was trained with.
    """
    asked.folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    if asked.form == "adapter":
        _copy_adapters(asked.checkpoint, asked.folder)
        if asked.with_base:
            facts |= _write_model(asked, asked.folder / BASE)
        facts |= _write_processor(asked, asked.folder)
        return facts
    return facts | _write_model(asked, asked.folder) | _write_processor(asked, asked.folder)


def _write_processor(asked: Export, folder: Path) -> dict[str, Any]:
    spec = asked.spec
    assert spec.tower is not None
    return save_processor(
        folder, asked.tokenizer, spec.tower, template=spec.template, blind=spec.blind
    )


# ---------------------------------------------------------------- a whole model


def _write_model(asked: Export, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    source = _full_source(asked) if asked.form == "full" else _base_source(asked)
    trained_vocabulary = int(source.config.text_config.vocab_size)
    config = _stock_config(source.config)
    shapes = stock_shapes(config)
    _check_names(source, shapes)
    adapters = _Adapters(asked.checkpoint) if asked.form == "merged" else None
    if adapters is not None:
        adapters.check_names(shapes)
    _check_disk(folder, _expected_bytes(shapes, asked))
    num_tensors = (6 if asked.is_4_bit else 1) * len(shapes)
    num_bytes = write_shards(
        _exported(asked, source, shapes, adapters),
        folder,
        num_tensors=num_tensors,
        shard_bytes=asked.shard_bytes,
    )
    _write_config(config, asked, folder)
    generation_config(
        asked.tokenizer,
        trained_vocabulary=trained_vocabulary,
        vocabulary=int(config.text_config.vocab_size),
        answers=asked.answers,
    ).save_pretrained(folder)
    return {
        "dtype": "nf4" if asked.is_4_bit else str(asked.weights_dtype).removeprefix("torch."),
        "num_params": sum(shape.numel() for shape in shapes.values()),
        "weight_bytes": num_bytes,
        "trained_vocabulary": trained_vocabulary,
        "vocabulary": int(config.text_config.vocab_size),
    }


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Weights of a LLaVA that lie in one folder."""

    folder: Path
    architecture: Any
    config: Any
    in_llava: Callable[[str], str]
    """What LLaVA calls a weight of it."""

    def names(self) -> Iterator[tuple[str, Shard, str]]:
        """Name in LLaVA, file, name there; one file after the other.

        Raises:
            StageError: a weight has no place in this architecture.
        """
        with torch.device("meta"):
            model = self.architecture(self.config)
        own = dict(model.named_parameters(remove_duplicate=False))
        target = Targets(model, own)
        for shard in shards(self.folder):
            for source in shard.names():
                name = target(source)
                if name in own:
                    yield self.in_llava(name), shard, source
                elif not any(part in source for part in NOT_OURS):
                    raise StageError(
                        f"{self.folder}: holds {source}, for which "
                        f"{self.architecture.__name__} has no place"
                    )


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where the weights of a LLaVA come from."""

    config: LlavaConfig
    """As trained."""
    parts: Sequence[_Part]
    made: Mapping[str, Tensor] = field(default_factory=dict)
    """Weights that stand in no file of a model."""
    dtype: torch.dtype | None = None
    """Weights are brought to it first, as they were for training."""

    def names(self) -> set[str]:
        return {*self.made, *(name for part in self.parts for name, _, _ in part.names())}

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight once, read when it is its turn."""
        for part in self.parts:
            for name, shard, source in part.names():
                yield name, self._cast(read_weight(shard, source, part.folder))
        for name, weight in self.made.items():
            yield name, self._cast(weight)

    def _cast(self, weight: Tensor) -> Tensor:
        return weight if self.dtype is None else weight.to(self.dtype)


def _full_source(asked: Export) -> _Source:
    config = LlavaConfig.from_pretrained(asked.checkpoint)
    part = _Part(
        folder=asked.checkpoint,
        architecture=LlavaForConditionalGeneration,
        config=config,
        in_llava=lambda name: name,
    )
    return _Source(config=config, parts=[part])


def _base_source(asked: Export) -> _Source:
    """The LLaVA that adapters were trained on, in the dtype they were trained in."""
    spec = asked.spec
    assert spec.model is not None
    assert spec.tower is not None
    llm = asked.input_folder("language_model", spec.model.weights)
    check_language_model(spec.model, llm)
    tower = asked.input_folder("vision_tower", spec.tower.weights)
    check_vision_tower(spec.tower, tower)
    text, vision = LlamaConfig.from_pretrained(llm), CLIPVisionConfig.from_pretrained(tower)
    config = llava_config(text, vision, spec.tower, image_token_id=image_token_id(asked.tokenizer))
    return _Source(
        config=config,
        parts=[
            _Part(
                folder=llm,
                architecture=LlamaForCausalLM,
                config=text,
                in_llava=language_model_name,
            ),
            _Part(
                folder=tower,
                architecture=CLIPVisionModel,
                config=vision,
                in_llava=lambda name: f"model.vision_tower.{name}",
            ),
        ],
        made=_base_projector(asked, config),
        dtype=DTYPES[spec.precision],
    )


def _base_projector(asked: Export, config: LlavaConfig) -> dict[str, Tensor]:
    """The aligned projector, from which tuning began; its second layer is the identity."""
    fresh = linear_projector(config, dtype=DTYPES[asked.spec.precision], seed=asked.spec.seed)
    state = {f"model.multi_modal_projector.{k}": v for k, v in fresh.state_dict().items()}
    if "align" in asked.inputs:
        file = asked.inputs["align"] / "projector.safetensors"
        try:
            aligned = load_file(file)
        except (OSError, SafetensorError) as error:
            raise StageError(f"{file}: cannot be read: {error}") from error
        state |= {f"model.multi_modal_projector.{name}": value for name, value in aligned.items()}
    return state


def _check_names(source: _Source, shapes: Mapping[str, torch.Size]) -> None:
    missing = sorted(set(shapes) - source.names())
    if missing:
        raise StageError(
            f"{len(missing)} weights of the model are missing, {missing[0]} the first; the weights "
            "of its base are not those that it was trained on"
        )


def _stock_config(trained: LlavaConfig) -> LlavaConfig:
    config: LlavaConfig = LlavaConfig.from_dict(trained.to_dict())
    config.text_config.vocab_size = stock_vocabulary(
        config.text_config.vocab_size, image_token_id=config.image_token_id
    )
    config.architectures = ["LlavaForConditionalGeneration"]
    return config


def _write_config(config: LlavaConfig, asked: Export, folder: Path) -> None:
    data = _without_paths(config.to_dict())
    name = str(asked.weights_dtype).removeprefix("torch.")
    for part in (data, data["text_config"], data["vision_config"]):
        part["dtype"] = name
    if asked.is_4_bit:
        data["quantization_config"] = nf4_config(asked.weights_dtype)
    write_json(folder / "config.json", data)


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_paths(v) for k, v in value.items() if k != "_name_or_path"}
    return value


def _expected_bytes(shapes: Mapping[str, torch.Size], asked: Export) -> int:
    size = asked.weights_dtype.itemsize
    total = 0
    for name, shape in shapes.items():
        in_4_bit = asked.is_4_bit and is_linear_of_language_model(name)
        # Half a byte, and one byte of scale for 64 weights.
        total += int(shape.numel() * (0.52 if in_4_bit else size))
    return total


def _check_disk(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes + _RESERVE_BYTES:
        raise StageError(
            f"the disk has {free / 2**30:.1f} GiB free and {num_bytes / 2**30:.1f} GiB are needed; "
            "name a directory on another one"
        )


def _exported(
    asked: Export,
    source: _Source,
    shapes: Mapping[str, torch.Size],
    adapters: _Adapters | None,
) -> Iterator[tuple[str, Tensor]]:
    for name, weight in source.weights():
        shape = shapes.get(name)
        if shape is None:  # an output layer that is tied
            continue
        if name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
            weight = with_rows(weight, shape[0])
        if weight.shape != shape:
            raise StageError(f"{name} has the shape {list(weight.shape)}, not {list(shape)}")
        if adapters is not None:
            if asked.spec.method is Method.qlora and is_linear_of_language_model(name):
                weight = dequantized(weight)
            weight = adapters.merged(name, weight)
        if asked.is_4_bit and is_linear_of_language_model(name):
            parts = nf4_tensors(weight, compute_dtype=asked.weights_dtype)
            for suffix, part in parts.items():
                yield file_name(name) + suffix, part
        else:
            yield file_name(name), weight.to(asked.weights_dtype)


# ---------------------------------------------------------------- adapters


class _Adapters:
    """What peft saved, added to the weights one by one."""

    def __init__(self, checkpoint: Path) -> None:
        self._config = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
        for flag in ("use_dora", "use_rslora", "lora_bias", "fan_in_fan_out"):
            if self._config.get(flag):
                raise StageError(f"{checkpoint}: adapters with {flag} cannot be merged")
        if self._config.get("rank_pattern") or self._config.get("alpha_pattern"):
            raise StageError(f"{checkpoint}: adapters of several ranks cannot be merged")
        try:
            self._state = load_file(checkpoint / "adapter_model.safetensors")
        except (OSError, SafetensorError) as error:
            raise StageError(f"{checkpoint}: the adapters cannot be read: {error}") from error

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse adapters of weights that the model has not, and a projector that is not whole."""
        known: set[str] = set()
        for name in names:
            if is_projector(name):
                known.add(f"base_model.model.{name}")
            else:
                known |= {f"{adapter_name(name)}.lora_{part}.weight" for part in "AB"}
        if unknown := sorted(set(self._state) - known):
            raise StageError(f"adapters of no weight of the model: {unknown[0]}")
        for name in names:
            if is_projector(name) and f"base_model.model.{name}" not in self._state:
                raise StageError(f"the adapters lack {name}")

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """W + alpha / r * B A, summed in fp32; the projector is replaced."""
        if is_projector(name):
            trained: Tensor = self._state[f"base_model.model.{name}"]
            return trained
        module = adapter_name(name)
        if f"{module}.lora_A.weight" not in self._state:
            return weight
        a = self._state[f"{module}.lora_A.weight"].float()
        b = self._state[f"{module}.lora_B.weight"].float()
        scale = self._config["lora_alpha"] / self._config["r"]
        # A copy: fp32 weights may be the file itself, mapped.
        merged: Tensor = torch.addmm(weight.float(), b, a, alpha=scale)
        return merged


def _copy_adapters(checkpoint: Path, folder: Path) -> None:
    shutil.copyfile(checkpoint / "adapter_model.safetensors", folder / "adapter_model.safetensors")
    config = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = BASE
    if config.get("modules_to_save") != [PROJECTOR]:
        raise StageError(f"{checkpoint}: the projector is not saved with the adapters")
    write_json(folder / "adapter_config.json", config)


def main() -> int:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        facts = export(Export.from_json(json.load(sys.stdin)))
    except ScaleSweepError as error:
        print(" ".join(str(error).splitlines()), file=sys.stderr)
        return REFUSED
    json.dump(facts, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
