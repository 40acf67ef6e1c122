"""Numbers as people read them, and texts that give nothing private away."""

from __future__ import annotations

import pytest

from scalesweep.report import formatting as fmt


@pytest.mark.parametrize(
    ("value", "text"),
    [(312, "312"), (34_880, "34.9 k"), (181_248, "181 k"), (999_600, "1.00 M"), (7.0e9, "7.00 B")],
)
def test_counts(value: int, text: str) -> None:
    assert fmt.count(int(value)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.04, "3.0 s"), (42, "42 s"), (125, "2 min 05 s"), (1000, "17 min"), (4210, "1 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert fmt.duration(seconds) == text


@pytest.mark.parametrize(
    ("values", "decimals"),
    [([0.00023, 0.5], 5), ([184.01], 2), ([0.0, 0.0], 2), ([], 2), ([1e-9], 6)],
)
def test_a_column_has_two_digits_for_its_smallest_value(values: list[float], decimals: int) -> None:
    assert fmt.decimals_for(values) == decimals


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("store=/home/me/secret place/x", "store=…/secret place/x"),
        ("no /tmp/a/b.png: broken", "no …/b.png: broken"),
        ("file:///srv/data/x.json", "…/x.json"),
        ("~/models/llama", "…/llama"),
        ("stages/tune/ab12/attempts/0001/log", "stages/tune/ab12/attempts/0001/log"),
        ("3 tokens/s, 24 / 2, and/or", "3 tokens/s, 24 / 2, and/or"),
        ("WANDB_API_KEY=abcdef0123 x", "WANDB_API_KEY=*** x"),
        ("judge.token: 'a b'", "judge.token: ***"),
        ("uses sk-abcdefghijklmnop now", "uses *** now"),
        ("https://me:pw@host.example/path", "https://host.example/path"),
    ],
)
def test_public_text(text: str, shown: str) -> None:
    assert fmt.public(text) == shown
    assert fmt.public(shown) == shown  # once more changes nothing
