"""Plain values -> dataclasses, every type checked and every fault named by its dotted key."""

from __future__ import annotations

import dataclasses
import difflib
import json
import marshal
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from scalesweep.config.checks import shown
from scalesweep.errors import ConfigError

T = TypeVar("T")


class Parts:
    """Groups of settings that were built before: equal ones are one object in all cells.

    Nothing changes a config after it was built, so cells may share, and two configs built with the
    same parts are equal exactly where their parts are the same objects.
    """

    def __init__(self) -> None:
        self._by_values: dict[tuple[str, bytes], Any] = {}
        self._by_content: dict[tuple[str, str], Any] = {}

    def part(self, key: str, values: dict[str, Any], make: Callable[[], Any]) -> Any:
        """What make() builds of these values at this key, or its equal that is there already."""
        try:
            given = key, marshal.dumps(values, 2)  # 2: the same bytes for the same values
        except ValueError:  # something that is not plain
            return make()
        if given not in self._by_values:
            part = make()
            content = json.dumps(part, sort_keys=True, default=_fields)
            self._by_values[given] = self._by_content.setdefault((key, content), part)
        return self._by_values[given]


def _fields(value: Any) -> object:
    return vars(value) if dataclasses.is_dataclass(value) else repr(value)


def build(cls: type[T], values: object, key: str = "", *, parts: Parts | None = None) -> T:
    """An instance of a config dataclass; its __post_init__ checks the rules.

    key: dotted key of this node, "" at the root.
    parts: shared with other instances of the class.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key}={shown(values)}: must be a group of settings")
    hints, required = _hints(cls), _required(cls)  # type: ignore[arg-type]
    for name in values:
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            hint = f"did you mean {_join(key, near[0])}? " if near else ""
            raise ConfigError(f"{_join(key, str(name))}: no such setting; {hint}".rstrip(" ;"))
    for name in required:
        if name not in values:
            raise ConfigError(f"{_join(key, name)}: not set; give a value")
    return cls(
        **{n: _field(hints[n], values[n], _join(key, n), parts) for n in hints if n in values}
    )


def _field(hint: Any, value: object, key: str, parts: Parts | None) -> Any:
    if parts is None or not isinstance(value, dict):
        return _convert(hint, value, key)
    return parts.part(key, value, lambda: _convert(hint, value, key))


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@cache
def _required(cls: type) -> tuple[str, ...]:
    """Names of fields without a default."""
    return tuple(
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _convert(hint: Any, value: object, key: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        (inner,) = (arm for arm in typing.get_args(hint) if arm is not type(None))
        return None if value is None else _convert(inner, value, key)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, key)
    if origin is list:
        (inner,) = typing.get_args(hint)
        if not isinstance(value, list):
            raise ConfigError(f"{key}={shown(value)}: must be a list, as in {key}=[a,b]")
        return [_convert(inner, item, key) for item in value]
    if origin is dict:
        _, inner = typing.get_args(hint)
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}={shown(value)}: must be a group of settings")
        return {str(k): _convert(inner, v, _join(key, str(k))) for k, v in value.items()}
    return _scalar(hint, value, key)


def _scalar(hint: Any, value: object, key: str) -> Any:
    if hint is Any:
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, str):
        return value
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text (quote it)",
    }
    raise ConfigError(f"{key}={shown(value)}: must be {words[hint]}")
