"""Unions of grids: each combination once, the command line on top."""

from __future__ import annotations

import pytest

from scalesweep.config.sweep import expand, parse_sweep
from scalesweep.errors import ConfigError

TEXT = """\
# What is asked,
# on two lines.
fixed: {tuning: lora}
grids:
  - {model: [a, b], lora.rank: [8, 64]}
  - {model: b, lora.rank: [64, 128]}
"""


def test_grids_are_united_and_each_cell_stands_once() -> None:
    sweep = parse_sweep("x", TEXT)

    cells = expand(sweep, {})

    # 2 x 2 of the first grid, then b-64 stands already, b-128 is new.
    assert [c[1:] for c in cells] == [
        ["model=a", "lora.rank=8"],
        ["model=a", "lora.rank=64"],
        ["model=b", "lora.rank=8"],
        ["model=b", "lora.rank=64"],
        ["model=b", "lora.rank=128"],
    ]
    assert sweep.question == "What is asked, on two lines."


def test_a_new_axis_of_the_command_line_multiplies_every_grid() -> None:
    cells = expand(parse_sweep("x", TEXT), {"seed": ("1", "2", "3")})

    assert len(cells) == 5 * 3


def test_a_value_of_the_command_line_replaces_an_axis() -> None:
    cells = expand(parse_sweep("x", TEXT), {"model": ("b",)})

    assert [c[1:] for c in cells] == [
        ["model=b", "lora.rank=8"],
        ["model=b", "lora.rank=64"],
        ["model=b", "lora.rank=128"],
    ]


def test_prefixes_do_not_hide_that_a_key_is_the_same() -> None:
    cells = expand(parse_sweep("x", TEXT), {"++lora.rank": ("8",)})

    assert all("++lora.rank=8" in cell for cell in cells)
    assert len(cells) == 2


def test_without_a_sweep_the_axes_are_the_grid() -> None:
    assert expand(None, {"a": ("1", "2"), "b": ("3",)}) == [["a=1", "b=3"], ["a=2", "b=3"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grids: [", "not YAML"),
        ("just text", "needs `grids:`"),
        ("grids: []", "needs `grids:`"),
        ("grids: [3]", "grids[0] must be a mapping"),
        ("grids: [{model: []}]", "grids[0].model is empty"),
        ("grids: [{model: a}]\nfxed: {}", "unknown entry fxed"),
        ("grids: [{model: a}]\nfixed: {seed: [1, 2]}", "fixed.seed has several values"),
        ("grids: [{seed: 1}]\nof: nowhere", "no such sweep"),
    ],
)
def test_a_broken_sweep_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_sweep("x", text)

    assert message in str(caught.value)


def test_values_are_typed_as_on_the_command_line() -> None:
    sweep = parse_sweep("x", "grids: [{a: [null, true, 0.0015, 2, text]}]")

    assert sweep.grids[0]["a"] == ("null", "true", "0.0015", "2", "text")
