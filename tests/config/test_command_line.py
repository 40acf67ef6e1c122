"""Whatever is wrong on the command line gives one clear message, status 2, and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scalesweep.cli import REFUSED, help_text, run

# words -> what the one message must name
WRONG: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown option": ("plan model=34b", ("model=34b", "33b")),
    "unknown group": ("plan modle=33b", ("modle", "model")),
    "unknown key": ("plan tuning=lora lora.rnk=8", ("lora.rnk", "lora.rank")),
    "unknown deep key": ("plan foo.bar=1", ("foo.bar",)),
    "not a number": ("plan optim.lr=fast", ("optim.lr=fast", "number")),
    "not a whole number": ("plan seed=1.5", ("seed=1.5", "whole number")),
    "huge seed": ("plan seed=99999999999999999999999", ("seed=99999999", "2^32")),
    "negative seed": ("plan seed=-1", ("seed=-1", "at least 0")),
    "zero learning rate": ("plan optim.lr=0", ("optim.lr=0", "above zero")),
    "infinite learning rate": ("plan optim.lr=inf", ("optim.lr=inf", "finite")),
    "not a divisor": (
        "plan model=33b batch.micro_batch_size=3 batch.micro_batch_tokens=null "
        "cluster=azure_nd_a100_v4",
        ("batch.global_batch_size=512", "576"),
    ),
    "rows and packs": (
        "plan model=33b batch.micro_batch_size=3",
        ("batch.micro_batch_size=3 and batch.micro_batch_tokens=8192", "set the other to null"),
    ),
    "a pack below the longest sample": (
        "plan model=33b batch.micro_batch_tokens=1024",
        ("batch.micro_batch_tokens=1024", "batch.max_seq_len=2048", "at least as many"),
    ),
    "no such recomputation": (
        "plan model=33b zero.gradient_checkpointing=some",
        ("zero.gradient_checkpointing=some", "none, selective, full"),
    ),
    "no such kernel": ("plan kernels.attention=fast", ("kernels.attention=fast", "varlen")),
    "lora key under full": ("plan tuning=full lora.rank=8", ("lora.rank=8", "tuning=lora")),
    "qlora with zero 3": (
        "plan tuning=qlora zero.stage=3",
        ("zero.stage=3", "4-bit weights", "not sharded", "zero.stage=2"),
    ),
    "no such zero stage": ("plan zero.stage=4", ("zero.stage=4", "0, 1, 2 or 3")),
    "lora target": ("plan tuning=lora lora.targets=[lm_head]", ("lora.targets=lm_head", "q_proj")),
    "lora dropout": ("plan tuning=lora lora.dropout=1", ("lora.dropout=1", "below 1")),
    "lora without rank": ("plan tuning=lora lora.rank=null", ("lora.rank=null",)),
    "unknown sweep": ("plan -m +sweep=quickstat", ("quickstat", "did you mean quickstart")),
    "sweep without -m": ("plan +sweep=quickstart", ("+sweep=quickstart", "-m")),
    "two sweeps": ("plan -m +sweep=table1,table2", ("table1,table2", "one sweep")),
    "empty sweep": ("plan -m +sweep=", ("+sweep=", "empty")),
    "grid without -m": ("plan model=7b,13b", ("model=7b,13b", "-m")),
    "continuous axis": ("plan -m seed=interval(1,2)", ("interval(1,2)", "range")),
    "unknown cluster": ("plan cluster=azur", ("cluster=azur", "azure_nd_a100_v4")),
    "zero price": ("plan cluster.usd_per_node_hour=0", ("usd_per_node_hour=0", "cluster.free")),
    "price of no name": ("plan cluster.price=rent", ("cluster.price=rent", "cloud, own")),
    "negative price": ("plan cluster.usd_per_node_hour=-1", ("usd_per_node_hour=-1",)),
    "unknown verb": (
        "trian model=33b",
        ("trian", "plan, doctor, evaluate, status, watch, logs, judge, report, export, cancel"),
    ),
    "empty value": ("plan model=", ("model=", "empty")),
    "no key": ("plan =3", ("=3", "key=value")),
    "no equals sign": ("plan -m model", ("model", "key=value")),
    "unclosed bracket": ("plan model=[7b", ("[7b", "cannot be read")),
    "unknown flag": ("plan --fast", ("--fast",)),
    "json without plan": ("run --json model=mini_s", ("--json",)),
    "deleted group": ("plan ~model", ("~model",)),
    "axis over the cluster": ("plan -m cluster=local,slurm", ("cluster", "single value")),
    "resolution of another world": (
        "plan model=mini_s resolution=336px",
        ("resolution=336px", "model=mini_s", "32px"),
    ),
    "mix of another world": ("plan model=33b data_mix=mini", ("data_mix=mini", "llava80k")),
    "patches": ("plan resolution.pixels=33", ("resolution.pixels=33", "40")),
    "short sequences": ("plan batch.max_seq_len=10", ("batch.max_seq_len=10", "16 tokens")),
    "long sequences": ("plan batch.max_seq_len=4096", ("batch.max_seq_len=4096", "256")),
    "schedule": ("plan optim.schedule=step", ("optim.schedule=step", "cosine")),
    "epochs and steps": ("plan optim.epochs=1", ("optim.epochs", "optim.max_steps")),
    "zero beams": ("plan evaluation.num_beams=0", ("evaluation.num_beams=0", "at least 1")),
    "budget": ("plan budget.usd=-3", ("budget.usd=-3", "above zero")),
    "budget of no hours": ("plan budget.node_hours=0", ("budget.node_hours=0", "above zero")),
    "order of a budget": ("plan budget.order=best", ("budget.order=best", "cheapest, listed")),
    "budget without a price": (
        "plan budget.usd=1 cluster=local cluster.prices.cloud=null",
        ("budget.usd=1", "cluster.usd_per_node_hour", "budget.node_hours"),
    ),
    "study name": ("plan study=../x", ("study=../x",)),
    "precision": ("plan precision=fp8", ("precision=fp8", "bf16")),
    "data set": (
        "plan evaluation.benchmarks.0.dataset=nowhere",
        ("evaluation.benchmarks.dataset=nowhere", "mini_test"),
    ),
    "status of two": ("status one two", ("two", "one")),
    "status of a setting": ("status model=33b", ("model=33b",)),
    "unknown format": ("report --format pdf", ("--format", "html")),
    "format without value": ("report --format", ("--format",)),
    "unknown study": ("report nowhere", ("no study in the store",)),
}


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCALESWEEP_STORE", raising=False)
    return tmp_path


@pytest.mark.parametrize("words", WRONG, ids=str)
def test_a_wrong_line_is_refused_with_one_message(
    words: str, empty_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line, named = WRONG[words]

    status = run(line.split())

    out, err = capfd.readouterr()
    assert status == REFUSED, (out, err)
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("scalesweep: ")
    assert "Traceback" not in err
    for text in named:
        assert text in err
    assert list(empty_folder.iterdir()) == []


def test_all_faults_of_all_cells_are_named_at_once(
    empty_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = run(["plan", "-m", "tuning=full,lora", "lora.rank=0,8"])

    err = capfd.readouterr().err
    assert status == REFUSED
    assert "lora.rank=0: must be at least 1" in err
    assert "lora.rank=8: has no effect under tuning=full" in err
    assert list(empty_folder.iterdir()) == []


def test_without_arguments_it_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0

    text = capsys.readouterr().out
    assert "python -m scalesweep" in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize(
    "words",
    [
        "--cfg job",
        "--cfg job model=33b tuning=lora",
        "--info defaults",
        "plan model=mini_s tuning=lora",
        "-sc install=bash",
    ],
)
def test_hydra_itself_works_and_leaves_no_litter(words: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "scalesweep", *words.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "SCALESWEEP_STORE"},
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_two_commands_are_the_same(tmp_path: Path) -> None:
    words = ["plan", "-m", "model=mini_xs,mini_s", "--json"]
    script = Path(sys.executable).with_name("scalesweep")

    first = subprocess.run([str(script), *words], cwd=tmp_path, capture_output=True, check=True)
    second = subprocess.run(
        [sys.executable, "-m", "scalesweep", *words], cwd=tmp_path, capture_output=True, check=True
    )

    assert first.stdout == second.stdout


def test_another_sweeper_works_and_leaves_its_file_in_the_store(tmp_path: Path) -> None:
    words = "plan -m hydra/sweeper=basic model=mini_xs,mini_s store=store --json"

    result = subprocess.run(
        [sys.executable, "-m", "scalesweep", *words.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert len(json.loads(result.stdout)["cells"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("name", ["é", "a b(c)", "it's", "a=b"])
def test_a_store_may_lie_anywhere(
    name: str, empty_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = run(["plan", "model=mini_xs", f"store={empty_folder / name}", "--json"])

    out, err = capfd.readouterr()
    assert status == 0, err
    assert json.loads(out)["cells"][0]["config"]["store"] == str(empty_folder / name)


def test_a_closed_pipe_is_no_fault_of_the_line(empty_folder: Path) -> None:
    line = f"set -o pipefail; {sys.executable} -m scalesweep plan -m model=mini_xs,mini_s | head -1"

    ended = subprocess.run(
        ["bash", "-c", line], cwd=empty_folder, capture_output=True, text=True, check=False
    )

    assert ended.stderr == ""
    assert ended.returncode in (0, 128 + 13)


@pytest.mark.parametrize(
    "line",
    [
        "scalesweep plan -m model=mini_",
        "scalesweep run model=mini_",
        "scalesweep model=mini_",
    ],
)
def test_options_are_completed_after_a_verb_too(line: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "scalesweep", "-sc", "query=bash"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COMP_LINE": line},
    )

    assert ended.stdout.split() == ["model=mini_m", "model=mini_s", "model=mini_xs"]


def test_the_help_fits_a_terminal_of_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALESWEEP_STORE", "store")

    assert max(map(len, help_text().splitlines())) < 80
