"""Short names of cells for tables and figures: what a cell has that the others have not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from scalesweep.plan.graph import Cell
from scalesweep.records import canonical_json
from scalesweep.report.formatting import public

SEED_KEYS = ("seed", "align.seed")
"""Where a cell's seed stands in its config; cells that differ only here are one setting."""

BOOKKEEPING_KEYS = ("study", "store", "until", "budget", "tracking")
"""Parts of the config that change no result."""

_ATTRIBUTES = {
    "data_mix.name": "mix={}",
    "lora.rank": "r{}",
    "lora.alpha": "a{:g}",
    "optim.lr": "lr={:g}",
}
"""Said only where a cell differs from the usual value of its model and tuning method."""

_ALWAYS_SAID = ("model", "resolution", "resolution.blind", "data_mix", "tuning", "lora", *SEED_KEYS)


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, or None."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def seed_of(cell: Cell) -> int:
    """The cell's seed; 0 where its config names none."""
    seed = value_at(cell.config, "seed")
    return seed if isinstance(seed, int) else 0


def flattened(config: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, seeds and bookkeeping left out."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in SEED_KEYS or key in BOOKKEEPING_KEYS:
            continue
        if isinstance(value, Mapping):
            flat.update(flattened(value, prefix=f"{key}."))
        else:
            flat[key] = value
    return flat


def setting_key(cell: Cell) -> str:
    """Equal for cells that differ in their seed alone."""
    return canonical_json(flattened(cell.config))


def setting_labels(cells: Sequence[Cell]) -> dict[str, str]:
    """Cell name -> label of its setting ("mini_s 48px full"); the same for all its seeds."""
    usual = _usual_values(cells)
    labels = {cell.name: _label(cell, usual) for cell in cells}
    settings: dict[str, set[str]] = {}
    for cell in cells:
        settings.setdefault(labels[cell.name], set()).add(setting_key(cell))
    clashing = {label for label, keys in settings.items() if len(keys) > 1}
    return {name: name if label in clashing else label for name, label in labels.items()}


def usual_values(cells: Sequence[Cell]) -> list[str]:
    """What labels leave out, one line per model and tuning method where anything varies."""
    lines = []
    usual = _usual_values(cells)
    for key, pattern in _ATTRIBUTES.items():
        values = {value_at(cell.config, key) for cell in cells} - {None}
        if len(values) < 2:
            continue
        said: dict[str, list[str]] = {}
        for (model, method, name), value in usual.items():
            if name == key and value is not None:
                who = str(method) if key.startswith("lora.") else f"{model} {method}"
                words = said.setdefault(pattern.format(value), [])
                if who not in words:
                    words.append(who)
        if len(said) == 1:
            lines.append(next(iter(said)))
        else:
            lines += [f"{text} ({', '.join(who)})" for text, who in said.items()]
    return lines


_Usual = dict[tuple[Any, Any, str], Any]


def _usual_values(cells: Sequence[Cell]) -> _Usual:
    """(model, method, key) -> its most frequent value; among equals the first of the plan."""
    counts: dict[tuple[Any, Any, str], Counter[Any]] = {}
    for cell in cells:
        group = (value_at(cell.config, "model.name"), value_at(cell.config, "tuning.method"))
        for key in _ATTRIBUTES:
            counts.setdefault((*group, key), Counter())[value_at(cell.config, key)] += 1
    return {key: counter.most_common(1)[0][0] for key, counter in counts.items()}


def _label(cell: Cell, usual: _Usual) -> str:
    config = cell.config
    model, method = value_at(config, "model.name"), value_at(config, "tuning.method")
    parts = [model, value_at(config, "resolution.name"), method]
    if value_at(config, "resolution.blind"):
        parts.append("blind")
    for key, pattern in _ATTRIBUTES.items():
        value = value_at(config, key)
        if value is not None and value != usual[model, method, key]:
            parts.append(pattern.format(value))
    parts += [
        f"{key}={value}"
        for key, value in cell.point.items()
        if key not in _ALWAYS_SAID and key not in _ATTRIBUTES
    ]
    # A path of whoever ran the study may be what was varied, and labels go into every report.
    return public(" ".join(str(part) for part in parts if part is not None)) or cell.name


def short_labels(labels: Sequence[str]) -> dict[str, str]:
    """Label -> the same without what all begin with ("mini_s 48px full" -> "s 48px full").

    For figures, where room is short; only whole words up to "_" are left out.
    """
    if len(set(labels)) < 2:
        return {label: label for label in labels}
    first, last = min(labels), max(labels)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    head = first[:same]
    cut = head.partition(" ")[0].rfind("_") + 1
    return {label: label[cut:] for label in labels}
