"""Sums of tokens give the work of any number of samples at any resolution."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalesweep.cost_model.token_cache import keep_statistics, kept_statistics, tokens_file
from scalesweep.cost_model.token_statistics import TokenStatistics
from scalesweep.models.flops import Work

TEXTS, PICTURED = (10, 30, 50), (True, False, True)
SUMS = {
    "num_samples": 3,
    "text_tokens": 90,
    "squared_text_tokens": 100 + 900 + 2500,
    "pictures": 2,
    "pictured_text_tokens": 60,
    "supervised": 20,
}


@pytest.mark.parametrize("patches", [16, 576])
def test_the_work_is_that_of_the_lengths_at_every_resolution(patches: int) -> None:
    lengths = [t + patches * p for t, p in zip(TEXTS, PICTURED, strict=True)]

    found = TokenStatistics(**SUMS).work(3, num_patches=patches)

    assert found == Work.of(lengths, num_supervised=20, num_pictures=2)


def test_twice_the_samples_are_twice_the_work() -> None:
    found = TokenStatistics(**SUMS).work(6, num_patches=0)

    assert (found.num_tokens, found.sum_squared_lengths, found.num_pictures) == (180, 7000, 4)


def test_kept_statistics_come_back_and_damaged_ones_do_not(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    keep_statistics(cache, "key", SUMS)

    assert kept_statistics(cache, "key") == TokenStatistics(**SUMS)
    assert kept_statistics(cache, "other") is None
    for content in ("", "{}", '{"num_samples": 0}', "[1]"):
        tokens_file(cache, "key").write_text(content)
        assert kept_statistics(cache, "key") is None
