"""Whole stages on packs, in processes: the losses of padded rows, whatever a pack holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scalesweep.specs import Method
from tests.train.small_stages import INSTRUCT, LORA, TEXT, Ended, Lab, optim_spec

CHANGES = {"optim": optim_spec(max_steps=4, lr=1e-3)}
ABSOLUTE = 2e-5
"""Of losses around 4 over four steps of fp32 sums in another order."""


def tera_operations(run: Ended) -> list[float]:
    """Of each step: what it asks for, however it is divided."""
    return [row["model_tflops_per_second"] * row["step_s"] for row in run.rows]


@pytest.fixture(scope="module")
def padded(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return lab.stage(tmp_path_factory.mktemp("padded"), Method.full, **CHANGES).attempt()


@pytest.mark.parametrize(
    ("num_ranks", "zero_stage", "recompute", "runner"),
    [
        pytest.param(1, 0, "none", None, id="one rank"),
        pytest.param(2, 2, "full", None, id="two ranks, ZeRO-2, recomputing"),
        pytest.param(2, 3, "selective", "tests.train.sharded", id="two ranks, ZeRO-3, split"),
    ],
)
def test_packs_learn_what_padded_rows_learn(
    lab: Lab,
    padded: Ended,
    tmp_path: Path,
    num_ranks: int,
    zero_stage: int,
    recompute: str,
    runner: str | None,
) -> None:
    run = lab.stage(
        tmp_path,
        Method.full,
        num_ranks=num_ranks,
        zero_stage=zero_stage,
        micro_batch_tokens=256,
        gradient_checkpointing=recompute,
        **CHANGES,
    ).attempt(runner=runner)

    assert list(run.losses.values()) == pytest.approx(list(padded.losses.values()), abs=ABSOLUTE)
    ours, expected = (load_file(e.output / "model.safetensors") for e in (run, padded))
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=2e-5, msg=name)
    assert {row["padding_fraction"] for row in run.rows} == {0.0}
    assert max(row["padding_fraction"] for row in padded.rows) > 0.1
    assert all(row["tokens_per_second"] > 0 and row["data_wait_s"] >= 0 for row in run.rows)
    assert tera_operations(run) == pytest.approx(tera_operations(padded), rel=0.02)
    assert all("mfu" not in row for row in run.rows)  # a CPU's peak is not known


@pytest.mark.parametrize("method", [Method.full, Method.lora], ids=str)
def test_a_rank_with_text_alone_does_not_hang_the_others(
    lab: Lab, tmp_path: Path, method: Method
) -> None:
    """One picture in a step of two samples: under ZeRO-3 one of two ranks never sees one."""
    mix = [replace(INSTRUCT, max_items=1), replace(TEXT, max_items=1)]
    changes = {
        "data": mix,
        "global_batch_size": 2,
        "lora": replace(LORA, dropout=0.0) if method is Method.lora else None,
        **CHANGES,
    }
    alone = lab.stage(tmp_path / "alone", method, **changes).attempt()

    run = lab.stage(
        tmp_path / "ranks", method, num_ranks=2, zero_stage=3, micro_batch_tokens=256, **changes
    ).attempt(runner="tests.train.sharded")

    assert list(run.losses.values()) == pytest.approx(list(alone.losses.values()), abs=ABSOLUTE)


def test_a_stage_refuses_a_model_whose_packs_leak(lab: Lab, tmp_path: Path) -> None:
    run = lab.stage(tmp_path, Method.full, micro_batch_tokens=256, **CHANGES).attempt(
        runner="tests.train.leaking"
    )

    assert set(run.codes) != {0}
    assert "packed samples are not kept apart" in run.log
    assert run.losses == {}
