"""The 4-bit base of QLoRA (arXiv:2305.14314): NF4 with double quantisation (bitsandbytes)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor, nn

from scalesweep.errors import StageError
from scalesweep.models.loading import OnDevice, owned, shards


def quantize_language_model(model: Any, *, compute_dtype: torch.dtype) -> None:
    """Replace every linear layer of a LLaVA's language model by its NF4 form, in place.

    Those that were loaded as FourBit stay.

    Tower, projector and lm_head stay as they are: the types of all modules are checked after.
    """
    _replace_linear(model.model.language_model, lambda linear: _nf4(linear, compute_dtype))
    model.is_loaded_in_4bit = True  # peft looks at it to choose its 4-bit adapters
    check_quantized(model)


def _nf4(linear: nn.Linear, compute_dtype: torch.dtype) -> nn.Module:
    layer = _nf4_like(linear, compute_dtype)
    layer.weight = nf4_weight(linear.weight.data)
    if linear.bias is not None:
        layer.bias = linear.bias
    return layer


def _nf4_like(linear: nn.Linear, compute_dtype: torch.dtype) -> nn.Module:
    """A layer of the same shape, on meta."""
    return bnb.nn.Linear4bit(  # type: ignore[no-any-return]
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=compute_dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )


def nf4_weight(weight: Tensor) -> nn.Parameter:
    """A weight in its 4-bit form, on the device where it is."""
    whole: nn.Parameter = bnb.nn.Params4bit(
        weight, requires_grad=False, compress_statistics=True, quant_type="nf4"
    )
    return whole.to(weight.device)  # type: ignore[return-value]  # quantises


@dataclass(frozen=True)
class FourBit:
    """Placement of a LLaMA, or of a LLaVA's: linear layers are quantised as weights are read.

    One 16-bit weight is there at a time, never the whole model.
    """

    device: torch.device
    compute_dtype: torch.dtype

    def prepare(self, model: Any) -> None:
        decoder = getattr(model.model, "language_model", model.model)
        _replace_linear(decoder, lambda linear: _nf4_like(linear, self.compute_dtype))

    def put(
        self, module: nn.Module, name: str, read: Callable[[], Tensor], dtype: torch.dtype
    ) -> None:
        if isinstance(module, bnb.nn.Linear4bit) and name == "weight":
            module.weight = nf4_weight(owned(read(), dtype=dtype, device=self.device))
        else:
            OnDevice(self.device).put(module, name, read, dtype)


class FourBitFiles:
    """Weights in NF4 as transformers saves them: what nf4_tensors gives, each in several tensors.

    One weight is put as soon as all parts of it were read.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._device = device
        self._parts: dict[str, dict[str, Tensor]] = {}
        names = [name for shard in shards(folder) for name in shard.names()]
        self._weights = {match.group(1) for name in names if (match := _PART.fullmatch(name))}
        self._put: set[str] = set()

    def split(self, source: str) -> tuple[str, str] | None:
        if source in self._weights:
            return source, ""
        match = _PART.fullmatch(source)
        return None if match is None else (match.group(1), match.group(2))

    def keep(self, module: nn.Module, name: str, part: str, value: Tensor) -> None:
        if not isinstance(module, bnb.nn.Linear4bit):
            raise StageError(f"{name} is in 4 bit in the file, and is no layer that may be")
        parts = self._parts.setdefault(name, {})
        parts[part] = value.clone().to(self._device)
        if len(parts) < NUM_PARTS:
            return
        shape = (module.out_features, module.in_features)
        weight: Any = bnb.nn.Params4bit.from_prequantized(
            data=parts.pop(""),
            quantized_stats=self._parts.pop(name),
            requires_grad=False,
            device=self._device,
            module=module,
        )
        if tuple(weight.quant_state.shape) != shape:
            raise StageError(
                f"{name} has the shape {list(weight.quant_state.shape)}, not {list(shape)}"
            )
        module.weight = weight
        self._put.add(name)

    def finish(self) -> set[str]:
        if self._parts:
            name, parts = next(iter(self._parts.items()))
            raise StageError(
                f"{name}: {len(parts)} of {NUM_PARTS} parts of a 4-bit weight are there; fetch the "
                "folder again"
            )
        return self._put


NUM_PARTS = 6
"""Values, scales, their codes, the scales' scales and codes, and what they mean."""
_PART = re.compile(
    r"(.*\.weight)\.(absmax|quant_map|nested_absmax|nested_quant_map"
    r"|quant_state\.bitsandbytes__nf4)"
)


def _replace_linear(root: nn.Module, replacement: Callable[[nn.Linear], nn.Module]) -> None:
    for name, linear in list(root.named_modules()):
        if type(linear) is nn.Linear:
            parent, _, leaf = name.rpartition(".")
            setattr(root.get_submodule(parent), leaf, replacement(linear))


def check_quantized(model: Any) -> None:
    """Refuse a model in which not exactly the language model's linear layers are 4-bit.

    A skip list that does not match is silent in the libraries; the tower is then quantised too.
    """
    wrong = []
    for name, module in model.named_modules():
        is_linear = isinstance(module, nn.Linear | bnb.nn.Linear4bit)
        in_llm = "language_model" in name
        if is_linear and isinstance(module, bnb.nn.Linear4bit) != in_llm:
            wrong.append(f"{name} is {type(module).__name__}")
        if isinstance(module, bnb.nn.Linear4bit) and not module.weight.bnb_quantized:
            wrong.append(f"{name} is not quantised")
    if wrong:
        raise StageError(f"4-bit base: wrong layers: {', '.join(wrong[:5])}")


def nf4_tensors(weight: Tensor, *, compute_dtype: torch.dtype) -> dict[str, Tensor]:
    """What transformers saves for a 4-bit weight: suffix of its name -> tensor."""
    quantized: Any = nf4_weight(weight.to(_device()))
    quantized.quant_state.dtype = compute_dtype
    parts = quantized.quant_state.as_dict(packed=True)
    return {"": quantized.data, **{f".{name}": part for name, part in parts.items()}}


def dequantized(weight: Tensor) -> Tensor:
    """What a weight is worth in 4 bit, in its own dtype."""
    quantized: Any = nf4_weight(weight.to(_device()))
    whole: Tensor = bnb.functional.dequantize_4bit(quantized.data, quantized.quant_state)
    return whole.to("cpu", weight.dtype)


def _device() -> torch.device:
    """Where a base is quantised for training: its blocks may round otherwise elsewhere."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
