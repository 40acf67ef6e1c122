"""The GPU benchmark: complete without a GPU, on a machine with hardly anything installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_recipes
from benchmarks.gpu import goals, modes, table, training_spec
from benchmarks.gpu_recipes import LLAVA, OURS, Job, Measured, Mode, least_memory_bytes
from scalesweep.plan import identity
from scalesweep.specs import Method
from tests.config.composing import cell

ROOT = Path(__file__).parents[2]

# What a rented machine with torch, transformers and peft may lack.
BARE = """
import importlib.abc, importlib.util, sys
MISSING = {"hydra", "omegaconf", "submitit", "rich", "wandb", "deepspeed", "bitsandbytes"}
class Lacks(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Lacks())
found = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name.partition(".")[0] in MISSING else found(name, package)
importlib.util.find_spec = find_spec
from benchmarks.gpu import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_self_check_passes_on_a_bare_machine(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BARE, "--self-check", "--output", str(tmp_path / "found.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "NOTHING ABOUT GPUS WAS MEASURED" in ended.stdout
    for method in ("lora", "full"):
        assert f"{method}: losses of all modes of both recipes differ by" in ended.stdout
    assert "NOT THE SAME" not in ended.stdout
    assert "| tiny | qlora | bitsandbytes is not installed |" in ended.stdout
    results = json.loads((tmp_path / "found.json").read_text("utf-8"))["results"]
    for result in results:
        for recipe in (OURS, LLAVA):
            assert result["missing"] or len(result[recipe]) >= 1
            for one in result[recipe]:
                assert one["fits"]
                assert not one["error"]
                assert len(one["seconds"]) == 2
                assert one["mfu"] is None


@pytest.mark.parametrize("model", ["7b", "13b", "33b", "65b", "70b"])
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_shapes_read_without_hydra_are_those_of_a_plan(model: str, method: str) -> None:
    config = cell(f"model={model}", f"tuning={method}", "resolution=336px")

    spec = training_spec(model, method)

    assert spec.method is Method(method)
    assert spec.model == identity.language_model(config)
    assert spec.tower == identity.vision_tower(config)
    assert spec.optim.lr == config.optim.lr
    if method != "full":
        assert spec.lora is not None
        assert (spec.lora.rank, spec.lora.alpha, spec.lora.dropout, spec.lora.targets) == (
            config.lora.rank, config.lora.alpha, config.lora.dropout, config.lora.targets,
        )  # fmt: skip


def tiny_job(recipe: str, *tried: Mode) -> Job:
    return Job.from_json({**gpu._tiny_job("full", recipe).to_json(), "best_of": [],
                          "modes": [mode.__dict__ for mode in tried]})  # fmt: skip


def test_a_mode_that_fails_is_told_and_the_next_one_runs() -> None:
    job = tiny_job(OURS, Mode(micro_batch_tokens=256, attention="varlen"),
                   Mode(micro_batch_tokens=256))  # fmt: skip

    failed, ran = gpu_recipes.run(job)

    assert "needs a CUDA device" in failed.error
    assert ran.error == ""
    assert ran.samples_per_second > 0
    assert ran.tokens_per_second > ran.samples_per_second


def test_what_needs_more_memory_than_what_did_not_fit_is_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def out_of_memory(_: Any, mode: Mode) -> Measured:
        tried.append(mode)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpu_recipes._Bench, "_ours", out_of_memory)
    job = tiny_job(OURS, *modes(OURS, quick=False))

    found = list(gpu_recipes.run(job))

    assert tried == [Mode(gradient_checkpointing="full", micro_batch_tokens=2048)]
    assert [one.fits for one in found] == [False]


def test_what_cannot_fit_is_told_without_building_it() -> None:
    # 7B: 6.74e9 weights of 2 bytes, and 14 more of each that learns
    full, lora = (least_memory_bytes(training_spec("7b", m)) for m in ("full", "lora"))

    assert full / 1e9 == pytest.approx(6.74 * 16 + 0.3 * 2, rel=0.01)
    assert lora / 1e9 == pytest.approx(7.04 * 2 + 0.16 * 14, rel=0.02)


def test_nothing_begins_after_the_deadline() -> None:
    job = Job.from_json({**tiny_job(OURS, Mode(micro_batch_tokens=256)).to_json(), "deadline": 1.0})

    assert list(gpu_recipes.run(job)) == []


def measured(samples_per_second: float, *, recipe: str, **changes: Any) -> dict[str, Any]:
    """16 samples of 916 tokens a step."""
    mode = Mode(micro_batch_size=8) if recipe == LLAVA else Mode(micro_batch_tokens=8192)
    fields: dict[str, Any] = {
        "mode": mode, "fits": True, "engine": "plain", "kernel": "varlen",
        "seconds": [16 / samples_per_second], "samples_per_second": samples_per_second,
        "spread": (samples_per_second, samples_per_second),
        "tokens_per_second": 916 * samples_per_second, "mfu": 0.4, "hfu": 0.5,
        "losses": [10.0, 9.0],
    }  # fmt: skip
    return gpu.as_result(Measured(**{**fields, **changes}))


def result(**recipes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"model": "13b", "method": "lora", "missing": "", OURS: recipes["ours"],
            LLAVA: recipes["llava"]}  # fmt: skip


def test_the_best_of_both_recipes_are_compared() -> None:
    found = result(
        ours=[measured(5.0, recipe=OURS), measured(8.0, recipe=OURS, mfu=0.51)],
        llava=[measured(4.0, recipe=LLAVA), gpu.as_result(Measured(mode=Mode(), fits=False))],
    )

    text = goals([found])

    assert "13b lora: 2.00 times the samples/s of LLaVA's recipe (goal >= 1.5: reached)" in text
    assert "13b lora: MFU 51.0% (goal >= 50%: reached)" in text
    assert "NOT COMPARABLE" not in text
    lines = table([found]).splitlines()
    assert len(lines) == 4
    assert "| 8.00 (8.00 to 8.00) | 7328 | 2.00 | 51.0% | 50.0% |" in lines[3]


def test_a_missed_goal_and_other_losses_are_told() -> None:
    found = result(
        ours=[measured(5.0, recipe=OURS, losses=[10.5, 9.0])], llava=[measured(4.0, recipe=LLAVA)]
    )

    text = goals([found])

    assert "1.25 times the samples/s of LLaVA's recipe (goal >= 1.5: MISSED)" in text
    assert "MFU 40.0% (goal >= 50%: MISSED)" in text
    assert "NOT COMPARABLE: first losses differ by 5.0e-02" in text


def test_a_model_that_does_not_fit_is_a_row_of_the_table() -> None:
    nothing = [gpu.as_result(Measured(mode=Mode(), fits=False))]

    text = table([result(ours=nothing, llava=nothing)])

    assert text.count("does not fit") == 2
    assert goals([result(ours=nothing, llava=nothing)]) == "13b lora: not compared"


def test_a_device_of_unknown_peak_has_no_mfu() -> None:
    found = result(
        ours=[measured(5.0, recipe=OURS, mfu=None, hfu=None)], llava=[measured(4.0, recipe=LLAVA)]
    )

    assert "MFU is not known" in goals([found])
    assert "| 1.25 | - | - |" in table([found])
