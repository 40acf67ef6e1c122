"""Plain values become dataclasses; every fault is named by its dotted key."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from scalesweep.config.schema import build
from scalesweep.errors import ConfigError


@dataclass(kw_only=True)
class Inner:
    rate: float
    names: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Outer:
    count: int
    inner: Inner
    flag: bool = False
    note: str | None = None
    others: dict[str, Inner] = field(default_factory=dict)


def test_nested_values_are_converted() -> None:
    values = {"count": 2, "inner": {"rate": 1, "names": ["a"]}, "others": {"x": {"rate": 0.5}}}

    built = build(Outer, values)

    assert built.inner == Inner(rate=1.0, names=["a"])
    assert built.others["x"].rate == 0.5
    assert built.note is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": True, "inner": {"rate": 1}}, "count=true: must be a whole number"),
        ({"count": 1.0, "inner": {"rate": 1}}, "count=1: must be a whole number"),
        ({"count": 1, "inner": {"rate": "x"}}, "inner.rate=x: must be a number"),
        ({"count": 1, "inner": {"rate": True}}, "inner.rate=true: must be a number"),
        ({"count": 1, "inner": {"rat": 1}}, "inner.rat: no such setting; did you mean inner.rate?"),
        ({"count": 1, "inner": {}}, "inner.rate: not set"),
        ({"count": 1, "inner": 3}, "inner=3: must be a group"),
        ({"count": 1, "inner": {"rate": 1, "names": "a"}}, "inner.names=a: must be a list"),
        ({"count": 1, "inner": {"rate": 1, "names": [1]}}, "inner.names=1: must be text"),
        ({"count": 1, "inner": {"rate": 1}, "flag": 1}, "flag=1: must be true or false"),
        ({"count": 1, "inner": {"rate": 1}, "others": {"x": {"rate": None}}}, "others.x.rate=null"),
    ],
)
def test_faults_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, values)

    assert message in str(caught.value)
