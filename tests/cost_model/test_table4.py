"""The declared model of time against the paper's nine rows, from one constant."""

from __future__ import annotations

import pytest

from scalesweep.cost_model import table4


def test_the_constant_is_what_the_published_rows_reached() -> None:
    assert round(table4.fitted_efficiency(table4.PUBLISHED_RUNS), 3) == table4.EFFICIENCY


def test_a_full_13b_sample_costs_eight_operations_a_weight_and_token() -> None:
    (run,) = (r for r in table4.PUBLISHED_RUNS if r.label == "13B full")

    # 40 blocks of 4 x 5120^2 + 3 x 5120 x 13824 weights, twice forward and twice backward
    # (8 a token); an output layer of 5120 x 32000 (6); attention 16 S^2 h L / 2; 916 tokens.
    blocks = 8 * 40 * (4 * 5120**2 + 3 * 5120 * 13824) * 916
    output = 6 * 5120 * 32_000 * 916
    attention = 16 * 916**2 * 5120 * 40 / 2
    by_hand = blocks + output + attention
    # The projector and 23 blocks of the tower forward are what is left: under 1 %.
    assert table4.sample_flops(run.spec) == pytest.approx(by_hand, rel=0.01)
    assert table4.sample_flops(run.spec) > by_hand


def test_one_constant_predicts_rows_and_sizes_it_has_not_seen() -> None:
    rows, sizes = table4.leave_one_row_out(), table4.leave_one_size_out()

    assert table4.mean_error(rows) <= 0.05
    assert table4.worst_error(rows) <= 0.11
    assert table4.mean_error(sizes) <= 0.05
    assert table4.worst_error(table4.sixty_five_from_smaller()) <= 0.10


def test_a_row_left_out_says_nothing_about_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    before = table4.leave_one_row_out()[0].node_hours
    first, *others = table4.PUBLISHED_RUNS
    changed = table4.PublishedRun(
        size=first.size,
        method=first.method,
        rank=first.rank,
        score=first.score,
        node_hours=10 * first.node_hours,
        trainable_billions=first.trainable_billions,
    )
    monkeypatch.setattr(table4, "PUBLISHED_RUNS", (changed, *others))

    assert table4.leave_one_row_out()[0].node_hours == pytest.approx(before)
