"""Sweep files: a question, and the grids of cells that answer it (sweeps/)."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override

from scalesweep.config.paths import sweeps_dir
from scalesweep.errors import ConfigError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # with libyaml ten times as fast

Axes = Mapping[str, tuple[str, ...]]
"""Override key, its prefix included -> values as they are typed; one value is no axis."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One study: products of axes, united.

    `of: NAME` in a file multiplies the grids of another sweep by its own.
    """

    name: str
    question: str
    fixed: Axes
    """Set in every cell."""
    grids: tuple[Axes, ...]


def sweep_names() -> list[str]:
    """Shipped sweeps."""
    return sorted(path.stem for path in sweeps_dir().glob("*.yaml"))


def load_sweep(name: str) -> Sweep:
    """A shipped sweep by name, or any file by a path that ends in .yaml.

    Raises:
        ConfigError: there is none, or it is not a sweep file.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else sweeps_dir() / f"{name}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        near = difflib.get_close_matches(name, sweep_names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"+sweep={name}: no such sweep; {hint}choose one of {', '.join(sweep_names())}, "
            "or give the path of a .yaml file"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"+sweep={name}: {path} is not UTF-8 text") from None
    return parse_sweep(path.stem, text)


def parse_sweep(name: str, text: str) -> Sweep:
    """A sweep from the text of its file.

    Raises:
        ConfigError: it is not YAML, or not a mapping with grids.
    """
    key = f"+sweep={name}"
    try:
        data = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or not isinstance(data.get("grids"), list) or not data["grids"]:
        raise ConfigError(f"{key}: needs `grids:`, a list of mappings from key to values")
    unknown = set(data) - {"of", "fixed", "grids"}
    if unknown:
        raise ConfigError(
            f"{key}: unknown entry {min(map(str, unknown))}; it may hold of, fixed, grids"
        )
    fixed = _axes(key, "fixed", data.get("fixed") or {})
    several = [k for k, values in fixed.items() if len(values) != 1]
    if several:
        raise ConfigError(f"{key}: fixed.{several[0]} has several values; move it to grids")
    grids = tuple(_axes(key, f"grids[{i}]", grid) for i, grid in enumerate(data["grids"]))
    if data.get("of") is not None:
        other = load_sweep(str(data["of"]))
        fixed = {**other.fixed, **fixed}
        grids = tuple({**theirs, **ours} for theirs in other.grids for ours in grids)
    return Sweep(name=name, question=_question(text), fixed=fixed, grids=grids)


def _question(text: str) -> str:
    """The comment on top of the file."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ").strip() for line in lines).strip()


def _axes(key: str, where: str, grid: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(grid, dict):
        raise ConfigError(f"{key}: {where} must be a mapping from key to values")
    axes: dict[str, tuple[str, ...]] = {}
    for name, values in grid.items():
        listed = values if isinstance(values, list) else [values]
        if not listed:
            raise ConfigError(f"{key}: {where}.{name} is empty; give at least one value")
        axes[str(name)] = tuple(typed_text(value) for value in listed)
    return axes


def typed_text(value: Any) -> str:
    """A YAML value as it is typed in an override."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, list):
        return "[" + ",".join(typed_text(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{typed_text(v)}" for k, v in value.items()) + "}"
    return str(value)


def axes_of(overrides: Sequence[Override]) -> dict[str, tuple[str, ...]]:
    """Axes of a command line; an override with one value is an axis of length one.

    Raises:
        ConfigError: a continuous range, which has no cells, or a deletion over several values.
    """
    axes: dict[str, tuple[str, ...]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise ConfigError(
                    f"{override.input_line}: a continuous interval has no cells; use range(...) "
                    "or choice(...), or another sweeper (hydra/sweeper=...)"
                )
            axes[key] = tuple(override.sweep_string_iterator())
        elif override.is_delete():
            axes[key] = ()
        else:
            axes[key] = (override.get_value_element_as_str(),)
    empty = [key for key, values in axes.items() if not values and not key.startswith("~")]
    if empty:
        raise ConfigError(f"{empty[0]}: no values; give at least one")
    return axes


def expand(sweep: Sweep | None, axes: Axes) -> list[list[str]]:
    """Overrides of every cell, each combination once, in the order of the grids.

    An axis of the command line replaces the axis of the same key in the sweep, or else multiplies
    every grid.
    """
    grids: Sequence[Axes] = sweep.grids if sweep else ({},)
    fixed: Axes = sweep.fixed if sweep else {}
    given = {bare(key): (key, values) for key, values in axes.items()}
    cells: dict[frozenset[str], list[str]] = {}
    for grid in grids:
        merged: dict[str, tuple[str, tuple[str, ...]]] = {}
        for key, values in {**fixed, **grid}.items():
            merged[bare(key)] = (key, values)
        merged.update(given)
        choices = [
            [f"{key}={value}" for value in values] if values else [key]
            for key, values in merged.values()
        ]
        for cell in itertools.product(*choices):
            cells.setdefault(frozenset(cell), list(cell))
    return list(cells.values())


def bare(key: str) -> str:
    """An override key without the prefix that adds or deletes."""
    return key.lstrip("+~")
