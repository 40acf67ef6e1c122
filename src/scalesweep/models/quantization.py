"""The 4-bit base of QLoRA (arXiv:2305.14314): NF4 with double quantisation (bitsandbytes)."""

from __future__ import annotations

from typing import Any

import bitsandbytes as bnb
import torch
from torch import nn

from scalesweep.errors import StageError


def quantize_language_model(model: Any, *, compute_dtype: torch.dtype) -> None:
    """Replace every linear layer of a LLaVA's language model by its NF4 form, in place.

    Tower, projector and lm_head stay as they are: the types of all modules are checked after.
    """
    llm = model.model.language_model
    for name, linear in list(llm.named_modules()):
        if type(linear) is nn.Linear:
            parent = llm.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _nf4(linear, compute_dtype))
    model.is_loaded_in_4bit = True  # peft looks at it to choose its 4-bit adapters
    check_quantized(model)


def _nf4(linear: nn.Linear, compute_dtype: torch.dtype) -> nn.Module:
    layer: nn.Module = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=compute_dtype,
        compress_statistics=True,
        quant_type="nf4",
    )
    layer.weight = bnb.nn.Params4bit(
        linear.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
    )
    if linear.bias is not None:
        layer.bias = linear.bias
    return layer.to(linear.weight.device)  # quantises  # type: ignore[no-any-return]


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
