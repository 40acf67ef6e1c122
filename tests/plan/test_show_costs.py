"""What `plan` says of hours, dollars and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scalesweep.plan.show_costs import amount, duration


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00337, "0.0034"), (0.5, "0.50"), (9.584, "9.58"), (18.72, "18.7"),
     (143.2, "143"), (1283.7, "1,284")],
)  # fmt: skip
def test_amounts_have_three_digits(value: float, text: str) -> None:
    assert amount(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45 s"), (720, "12 min"), (27_000, "7.5 h"), (276_480, "3.2 days")],
)
def test_durations_have_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def plan(folder: Path, *words: str, status: int = 0) -> str:
    """As a user types it, in 80 columns."""
    result = subprocess.run(
        [sys.executable, "-m", "scalesweep", "plan", *words, f"store={folder}/store"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "80", "HOME": str(folder)},
        cwd=folder,
    )
    assert result.returncode == status, result.stderr
    return result.stdout if status == 0 else result.stderr


PAPER = ("-m", "model=33b,65b", "tuning=lora,qlora,full", "cluster=azure_nd_a100_v4")


def test_the_papers_grid_is_priced(tmp_path: Path) -> None:
    text = plan(tmp_path, *PAPER)

    rows = [line.split() for line in text.splitlines() if "px llava80k" in line]
    assert len(rows) == 6
    assert "tune h" in text
    assert "$" in text
    assert "GB" in text
    assert "shared stages save" in text
    assert "speed declared: 34.5% of A100-80GB" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_the_json_has_what_the_tables_sum_up(tmp_path: Path) -> None:
    found = json.loads(plan(tmp_path, *PAPER, "--json", "--nodes", "4"))

    predictions = [stage["execution"]["predicted"] for stage in found["stages"]]
    total = found["predicted"]["total"]
    assert total["node_hours"] == pytest.approx(sum(p["node_hours"] for p in predictions), abs=1e-4)
    assert total["usd"] == pytest.approx(13.63 * total["node_hours"], rel=1e-6)
    shares = sum(cell["predicted"]["share"]["usd"] for cell in found["cells"])
    assert shares == pytest.approx(total["usd"])
    assert found["predicted"]["num_devices"] == 32
    assert found["predicted"]["wall_s"] >= found["predicted"]["critical_path_s"]


def test_a_cell_that_cannot_fit_is_told_with_the_way_out(tmp_path: Path) -> None:
    text = plan(tmp_path, "model=65b", "tuning=lora", "zero.stage=2", PAPER[-1])

    assert "155!" in text
    assert "1: tune does not fit: 155 of 85 GB (weights 133" in text
    assert "nearest that fits: zero.stage=3" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_a_plan_of_what_this_machine_could_never_run_is_shown(tmp_path: Path) -> None:
    text = plan(tmp_path, "model=mini_s", "nodes=8", "cluster=local")

    assert "without a queue it takes" in text


def test_every_stage_has_its_own_row_when_asked(tmp_path: Path) -> None:
    text = plan(tmp_path, "model=33b", "tuning=lora", PAPER[-1], "--stages")

    row = next(line for line in text.splitlines() if line.startswith(" tune 33b"))
    assert "4.77 h" in row
    assert "1 x 8" in row
    assert max(map(len, text.splitlines())) <= 80
    assert "--stages: goes with plan" in plan_error("run", "model=mini_s", "--stages")


def plan_error(*words: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "scalesweep", *words], capture_output=True, text=True, check=False
    )
    return result.stderr


def test_a_judge_without_a_price_is_named(tmp_path: Path) -> None:
    words = ["model=33b", PAPER[-1], "judge=gpt4", "judge.model=gpt-9", "evaluation=llava_bench"]

    text = plan(tmp_path, *words)

    assert "and gpt-9, whose price is not known" in " ".join(text.split())
    assert "judges besides" not in text


def test_too_few_nodes_are_refused_before_anything_is_shown(tmp_path: Path) -> None:
    error = plan(tmp_path, "model=65b", PAPER[-1], "--nodes=2", status=2)

    assert error.startswith("scalesweep: --nodes: base 65b alone takes 32 devices")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nodes", "none"], "--nodes=none: must be a whole number of nodes, at least 1"),
        (["--nodes=0"], "--nodes=0: must be a whole number of nodes, at least 1"),
        (["--nodes="], "--nodes=: must be a whole number of nodes, at least 1"),
    ],
)
def test_a_number_of_nodes_is_one(tmp_path: Path, words: list[str], message: str) -> None:
    assert message in plan(tmp_path, "model=mini_s", *words, status=2)


def test_without_a_device_there_are_sizes_and_no_prices(tmp_path: Path) -> None:
    text = plan(tmp_path, "model=33b", PAPER[-1], "cluster.device=null")

    assert "no time or price: cluster.device names no device" in text
    assert "node-h" not in text
    assert "32.8B" in text  # of how many parameters


def test_sums_say_at_least_where_a_stage_is_not_known_and_flags_may_stand_anywhere(
    tmp_path: Path,
) -> None:
    mixes = tmp_path / "mine" / "data_mix"
    mixes.mkdir(parents=True)
    (mixes / "own.yaml").write_text(
        "# @package _global_\n"
        "data_mix:\n"
        "  {name: own, miniature: false, on_broken_item: stop,\n"
        "   sources: [{dataset: own, file: own.json}]}\n"
        "datasets: {own: {root: nowhere, files: {own.json: ''}}}\n"
    )
    words = ["model=7b", "data_mix=own,llava80k", "-m", PAPER[-1]]

    text = plan(tmp_path, *words, "--config-dir", str(tmp_path / "mine"), "tuning=full")

    tune = next(line.split() for line in text.splitlines() if line.startswith(" tune"))
    assert [word for word in tune if word.endswith("+")] == ["1.22+", "16.6+"]
    assert "to run: at least 5.44 node-hours" in text
    assert "it takes at least 5.4 h" in text
