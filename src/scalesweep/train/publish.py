"""What a training stage leaves: adapters, a projector, or a whole model in shards.

Under ZeRO-3 no rank has whole weights. They are put together a part at a time, on the device, and
written from there: neither a device nor a host ever holds a 65B model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion

from scalesweep.models.build import EXPORT_DTYPES
from scalesweep.models.saving import SHARD_BYTES, write_shards
from scalesweep.specs import Method
from scalesweep.train.tower_task import publishable_state
from scalesweep.train.trainable import Trainable

GATHERED_BYTES = 1 << 30
"""Of weights that are whole on a device at once; one larger weight is still gathered whole."""

Gathered = Callable[[Sequence[nn.Parameter]], AbstractContextManager[None]]
"""Makes parameters whole on every rank while it is open (Engine.gathered)."""


def publish(trainable: Trainable, output: Path, *, gathered: Gathered, is_main: bool) -> None:
    """Write what the stage made. All ranks call it, rank zero writes.

    config.json names the dtype of training, which plain transformers loads the weights in, whatever
    they are stored in.
    """
    method, model = trainable.spec.method, trainable.model
    if is_main:
        output.mkdir(parents=True, exist_ok=True)
    if method in (Method.full, Method.language):
        _publish_model(trainable, output, gathered=gathered, is_main=is_main)
        return
    # Small: whole at once.
    whole = list(model.parameters()) if method is Method.tower else trainable.parameters
    with gathered(whole):
        if not is_main:
            return
        if method is Method.projector:
            _publish_projector(trainable, output)
        elif method is Method.tower:
            _publish_tower(trainable, output)
        else:
            model.save_pretrained(output)
            (output / "README.md").unlink(missing_ok=True)  # peft's empty model card
            _forget_paths(output / "adapter_config.json")


def _publish_projector(trainable: Trainable, output: Path) -> None:
    linear = trainable.model.model.multi_modal_projector.linear_1
    state = {f"linear_1.{k}": _as_published(v, trainable) for k, v in linear.state_dict().items()}
    save_file(state, output / "projector.safetensors")


def _publish_tower(trainable: Trainable, output: Path) -> None:
    state = publishable_state(trainable.model)
    trainable.model.save_pretrained(
        output, state_dict={name: _as_published(value, trainable) for name, value in state.items()}
    )
    _name_nowhere(output / "config.json")


def _publish_model(
    trainable: Trainable, output: Path, *, gathered: Gathered, is_main: bool
) -> None:
    weights = whole_weights(trainable.model, gathered=gathered)
    if not is_main:
        for _ in weights:  # gathering takes all ranks
            pass
        return
    model = trainable.model
    model.save_pretrained(output, state_dict={})  # everything but the weights
    names = file_names(model)
    write_shards(
        ((names[name], _as_published(weight, trainable)) for name, weight in weights),
        output,
        num_tensors=len(names),
        shard_bytes=SHARD_BYTES,
    )
    _name_nowhere(output / "config.json")
    trainable.tokenizer.save_pretrained(output)


def whole_weights(model: nn.Module, *, gathered: Gathered) -> Iterator[tuple[str, Tensor]]:
    """Every weight of a model by its name, a tied one once; whole until the next is asked for."""
    for part in _parts(list(model.named_parameters())):
        with gathered([parameter for _, parameter in part]):
            for name, parameter in part:
                yield name, parameter.detach()


def _parts(weights: Sequence[tuple[str, nn.Parameter]]) -> Iterator[list[tuple[str, Any]]]:
    """Weights in order, in parts of at most GATHERED_BYTES."""
    part: list[tuple[str, Any]] = []
    size = 0
    for name, parameter in weights:
        # Under ZeRO-3 the parameter itself is empty.
        num_bytes = getattr(parameter, "ds_numel", parameter.numel()) * parameter.element_size()
        if part and size + num_bytes > GATHERED_BYTES:
            yield part
            part, size = [], 0
        part.append((name, parameter))
        size += num_bytes
    if part:
        yield part


def file_names(model: Any) -> dict[str, str]:
    """What transformers calls each weight of a model in its files."""
    names = {}
    for name, parameter in model.named_parameters():
        (names[name],) = revert_weight_conversion(model, {name: parameter.detach()})
    return names


def _as_published(weight: Tensor, trainable: Trainable) -> Tensor:
    return weight.detach().to(EXPORT_DTYPES[trainable.spec.export_dtype]).contiguous()


def _name_nowhere(config: Path) -> None:
    """Take out where the weights were read from: the same stage gives the same bytes anywhere."""

    def without(data: Any) -> Any:
        if isinstance(data, Mapping):
            return {k: without(v) for k, v in data.items() if k != "_name_or_path"}
        return data

    data = without(json.loads(config.read_text(encoding="utf-8")))
    config.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _forget_paths(config: Path) -> None:
    """Take this machine's paths out of an adapter's config: the base is named by its identity."""
    data = json.loads(config.read_text(encoding="utf-8"))
    data["base_model_name_or_path"] = None
    config.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
