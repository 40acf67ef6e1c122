"""Weights of a Hugging Face folder, read tensor by tensor into a model that was built without any.

transformers' own from_pretrained reads all shards into one state dict on every rank under ZeRO-3,
and a 4-bit base is otherwise made from a whole 16-bit one. Here a model is built on meta tensors
and each weight goes straight to where it stays: host memory holds what a rank keeps and one tensor.
Files are mapped, not read: their pages belong to the page cache.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from scalesweep.errors import StageError
from scalesweep.models.weights import check_architecture

# Of a whole CLIP, whose vision tower is a part, and buffers that older versions saved.
NOT_OURS = (
    "text_model.",
    "text_projection.",
    "visual_projection.",
    "logit_scale",
    ".rotary_emb.inv_freq",
    "embeddings.position_ids",
)


class Placement(Protocol):
    """Where weights stay. Every rank makes the same calls in the same order."""

    @property
    def device(self) -> torch.device:
        """Where a rank computes."""

    def prepare(self, model: nn.Module) -> None:
        """Replace layers of a model on meta tensors, before any weight is put."""

    def put(
        self, module: nn.Module, name: str, read: Callable[[], Tensor], dtype: torch.dtype
    ) -> None:
        """Give a module its weight, cast to dtype; read() maps it from disk."""


@dataclass(frozen=True)
class OnDevice:
    """Whole, on one device."""

    device: torch.device

    def prepare(self, model: nn.Module) -> None:
        pass

    def put(
        self, module: nn.Module, name: str, read: Callable[[], Tensor], dtype: torch.dtype
    ) -> None:
        module._parameters[name] = nn.Parameter(owned(read(), dtype=dtype, device=self.device))


ON_CPU = OnDevice(torch.device("cpu"))


class Elsewhere(nn.Module):
    """Stands where another rank holds a part of the model: its weights are known and never read."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.shapes = {name: weight.shape for name, weight in part.named_parameters()}


def owned(mapped: Tensor, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A copy in memory of our own, made without another in between."""
    return torch.empty(mapped.shape, dtype=dtype, device=device).copy_(mapped)


class Stored(Protocol):
    """Weights that a file holds in parts, as 4-bit ones are."""

    def split(self, source: str) -> tuple[str, str] | None:
        """(weight's name in the file, which part) of a part's name; None: it is whole."""

    def keep(self, module: nn.Module, name: str, part: str, value: Tensor) -> None:
        """Take one part of the weight of a module; name is the model's."""

    def finish(self) -> set[str]:
        """Names of the weights that were put; refuses one of which a part is missing."""


def load_weights(
    architecture: Any,
    folder: Path,
    *,
    dtype: torch.dtype,
    placement: Placement = ON_CPU,
    expected: Mapping[str, object] | None = None,
    stored: Stored | None = None,
) -> Any:
    """A model of a transformers class from a folder, with every weight of it.

    expected: values that its config must have; where config.json says nothing, transformers'
    defaults have (of heads no shape tells the number).
    stored: reads weights that the folder holds in parts.

    Raises:
        StageError: the weights cannot be read, some are missing (transformers would draw those at
            random and only log it), or they are those of another architecture.
    """
    try:
        config = architecture.config_class.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise StageError(f"{folder}: has no readable config.json: {error}") from error
    found = {key: getattr(config, key, None) for key in expected or {}}
    check_architecture(folder, found, expected or {})
    model = empty_model(architecture, config, dtype=dtype, placement=placement)
    if model.can_generate() and (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    _fill(model, folder, dtype=dtype, placement=placement, stored=stored)
    return model.eval()


def empty_model(architecture: Any, config: Any, *, dtype: torch.dtype, placement: Placement) -> Any:
    """A model whose weights are meta tensors and whose buffers are there."""
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part.dtype = dtype
    with torch.device("meta"):
        model = architecture(config)
        placement.prepare(model)
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                module._buffers[name] = _rebuilt(module).get_buffer(name).to(placement.device)
    return model


def _rebuilt(module: Any) -> nn.Module:
    """The module again, off meta: rotary frequencies and position ids are computed when made."""
    with torch.random.fork_rng(devices=[]):
        return type(module)(module.config)  # type: ignore[no-any-return]


def _fill(
    model: Any, folder: Path, *, dtype: torch.dtype, placement: Placement, stored: Stored | None
) -> None:
    """Put every weight; tied ones once."""
    empty = dict(model.named_parameters(remove_duplicate=False))
    elsewhere = _elsewhere(model)
    same: dict[int, list[str]] = {}
    for name, parameter in empty.items():
        same.setdefault(id(parameter), []).append(name)
    target = Targets(_with_all_parts(model) if elsewhere else model, {**elsewhere, **empty})
    put: dict[str, Tensor | None] = {}
    strange: list[str] = []
    for shard in shards(folder):
        for source in shard.names():
            part = None if stored is None else stored.split(source)
            if part is not None and stored is not None:
                name = target(part[0])
                if name in empty:
                    module = model.get_submodule(name.rpartition(".")[0])
                    stored.keep(module, name, part[1], read_weight(shard, source, folder))
                elif name not in elsewhere:
                    strange.append(source)
                continue
            name = target(source)
            if name not in empty and name not in elsewhere:
                strange += [] if any(part in source for part in NOT_OURS) else [source]
                continue
            shape = empty[name].shape if name in empty else elsewhere[name]
            if shard.shape(source) != shape:
                raise StageError(
                    f"{folder}: {source} has the shape {list(shard.shape(source))}, not "
                    f"{list(shape)} as in {type(model).__name__}"
                )
            if name not in empty:
                continue
            read = partial(read_weight, shard, source, folder)
            names = same[id(empty[name])]
            if name in put:
                _check_tied(names, put[name], read(), folder)
                continue
            parent, _, leaf = name.rpartition(".")
            placement.put(model.get_submodule(parent), leaf, read, dtype)
            for alias in names:
                _share(model, name, alias)
            # Mapped, so it takes no memory; the file may hold its twin too.
            put |= dict.fromkeys(names, read() if len(names) > 1 else None)
    if stored is not None:
        put |= dict.fromkeys(stored.finish())
    if missing := [name for name in empty if name not in put]:
        raise StageError(
            f"{folder}: {len(missing)} weights of {type(model).__name__} are missing, "
            f"{missing[0]} the first; fetch the folder again"
        )
    if strange:
        raise StageError(
            f"{folder}: holds {len(strange)} weights for which {type(model).__name__} of this "
            f"shape has no place, {strange[0]} the first: another architecture"
        )


def _elsewhere(model: nn.Module) -> dict[str, torch.Size]:
    """Shapes of the weights that other ranks hold, by their names in the whole model."""
    return {
        f"{name}.{weight}": shape
        for name, module in model.named_modules()
        if isinstance(module, Elsewhere)
        for weight, shape in module.shapes.items()
    }


def _with_all_parts(model: Any) -> Any:
    """The model on meta without stand-ins: renamings belong to the classes of its parts."""
    with torch.device("meta"):
        return type(model)(model.config)


def _share(model: Any, name: str, alias: str) -> None:
    """The same weight under another name."""
    if alias != name:
        module, _, leaf = alias.rpartition(".")
        model.get_submodule(module)._parameters[leaf] = model.get_parameter(name)


def _check_tied(names: list[str], one: Tensor | None, other: Tensor, folder: Path) -> None:
    if one is None or not torch.equal(one, other):
        raise StageError(
            f"{folder}: holds different weights for {' and '.join(names)}, which config.json says "
            "are one"
        )


class Targets:
    """Name in a file -> name in a model, by the renamings of transformers itself."""

    def __init__(self, model: Any, names: Mapping[str, Any]) -> None:
        entries = get_model_conversion_mapping(model)
        self._renamings = [entry for entry in entries if isinstance(entry, WeightRenaming)]
        self._prefix = model.base_model_prefix
        self._names = dict(names)

    def __call__(self, source: str) -> str:
        name = self._renamed(source, self._renamings)
        if name not in self._names and source in self._names:
            return self._renamed(source, [])
        return name

    def _renamed(self, source: str, renamings: list[WeightRenaming]) -> str:
        name, _ = rename_source_key(
            source, renamings, [], base_model_prefix=self._prefix, meta_state_dict=self._names
        )
        return str(name)


class Shard(Protocol):
    """One file of weights."""

    def names(self) -> list[str]: ...

    def shape(self, name: str) -> torch.Size: ...

    def read(self, name: str) -> Tensor: ...


class SafetensorsShard:
    def __init__(self, path: Path) -> None:
        self._file: Any = safe_open(path, framework="pt")

    def names(self) -> list[str]:
        return list(self._file.offset_keys())

    def shape(self, name: str) -> torch.Size:
        return torch.Size(self._file.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        return self._file.get_tensor(name)  # type: ignore[no-any-return]


class PickledShard:
    """What torch.save wrote; Vicuna v1.3 and CLIP at 336 px have no other files."""

    def __init__(self, path: Path) -> None:
        self._tensors: Mapping[str, Tensor] = torch.load(path, mmap=True, weights_only=True)

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> torch.Size:
        return self._tensors[name].shape

    def read(self, name: str) -> Tensor:
        return self._tensors[name]


# In this order: a folder may hold both forms of the same weights.
FORMS: tuple[tuple[str, Callable[[Path], Shard]], ...] = (
    ("model.safetensors", SafetensorsShard),
    ("pytorch_model.bin", PickledShard),
)


ADAPTER_FORMS: tuple[tuple[str, Callable[[Path], Shard]], ...] = (
    ("adapter_model.safetensors", SafetensorsShard),
    ("adapter_model.bin", PickledShard),
)


def shards(
    folder: Path, forms: Sequence[tuple[str, Callable[[Path], Shard]]] = FORMS
) -> Iterator[Shard]:
    """The files of weights of a folder, one open at a time.

    Raises:
        StageError: there are none, one that the index names is missing, or one cannot be read.
    """
    for name, kind in forms:
        if (folder / name).is_file():
            files = [folder / name]
        elif (folder / f"{name}.index.json").is_file():
            files = _indexed(folder / f"{name}.index.json")
        else:
            continue
        for file in files:
            with _reading(folder):
                shard = kind(file)
            yield shard
        return
    wanted = " or ".join(name for name, _ in forms)
    raise StageError(
        f"{folder}: the weights cannot be read: there is no {wanted} and no index of shards; "
        "fetch the folder again"
    )


def _indexed(index: Path) -> list[Path]:
    """The shards that an index names."""
    with _reading(index.parent):
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [index.parent / name for name in sorted(set(named))]


def read_weight(shard: Shard, source: str, folder: Path) -> Tensor:
    """One weight, mapped.

    Raises:
        StageError: its file cannot be read.
    """
    with _reading(folder):
        return shard.read(source)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        RuntimeError,  # torch's word for a broken file
        ValueError,
        KeyError,
        EOFError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        raise StageError(f"{folder}: the weights cannot be read: {error}") from error
