"""Imports point one way, and what a login node runs imports no GPU stack."""

from __future__ import annotations

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.evaluate.official import SAMPLES

SRC = Path(__file__).parents[1] / "src" / "scalesweep"
HEAVY = (
    "torch",
    "transformers",
    "deepspeed",
    "peft",
    "bitsandbytes",
    "wandb",
    "wandb_workspaces",
    "numpy",
    "PIL",
)

# What each area may import of the project, besides itself and the leaves.
LEAVES = {
    "benchmark_options",
    "endpoints",
    "errors",
    "records",
    "rundir",
    "slurm_records",
    "specs",
    "units",
    "versions",
    "__init__",
}
ALLOWED: dict[str, set[str]] = {
    "config": set(),
    "models": {"config", "data"},
    "cost_model": {"models"},
    "plan": {"config", "models", "cost_model", "tracking"},
    "doctor": {"config", "plan", "models", "cost_model"},
    "data": {"tracking", "stages"},
    "launch": {"config", "plan", "cost_model", "stages", "tracking"},
    "train": {"models", "cost_model", "data", "tracking", "stages"},
    "evaluate": {"models", "cost_model", "data", "tracking", "stages"},
    "report": {"plan", "models", "cost_model", "tracking"},
    "tracking": {"plan", "cost_model", "report", "stages"},
}

LIGHT_COMMANDS = {
    "help": "--help",
    "plan": "plan model=33b tuning=lora",
    "status": "status",
    "report": "report",
    "cancel": "cancel",
    "score": f"score mm_vet {SAMPLES / 'mm_vet_grades.json'} --data {SAMPLES / 'mm_vet'}",
}

PROBE = """
import sys
from scalesweep.cli import run
status = run(sys.argv[1:])
heavy = [name for name in {heavy} if name in sys.modules]
print(status, ",".join(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize("name", LIGHT_COMMANDS)
def test_a_login_node_command_imports_no_gpu_stack(name: str, small_study: Path) -> None:
    words = LIGHT_COMMANDS[name].split()
    if name in ("status", "report", "cancel"):
        words += ["--store", str(small_study)]

    result = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY), *words],
        cwd=small_study.parent,
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stderr.strip().splitlines()[-1] == "0", result.stderr


@pytest.fixture
def small_study(tmp_path: Path) -> Path:
    """A store with one planned study in which nothing ran."""
    from scalesweep.plan.build import CellRequest, build_plan
    from scalesweep.rundir import Store, write_json
    from tests.config.composing import cell

    plan = build_plan([CellRequest(point={}, config=cell("model=mini_s"))], study="small")
    folder = Store(tmp_path / "store").study("small")
    folder.mkdir(parents=True)
    write_json(folder / "plan.json", plan.to_json())
    return tmp_path / "store"


def test_the_doctor_imports_no_gpu_stack_in_its_own_process() -> None:
    probe = (
        f"import sys, scalesweep.doctor.command; print([m for m in {HEAVY} if m in sys.modules])"
    )

    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "[]"


def imports_of(path: Path) -> set[str]:
    """Areas of the project that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        for module in modules:
            parts = module.split(".")
            if parts[0] == "scalesweep" and len(parts) > 1:
                found.add(parts[1])
    return found


@pytest.mark.parametrize("area", ALLOWED)
def test_imports_point_one_way(area: str) -> None:
    areas = set(ALLOWED)
    for path in (SRC / area).rglob("*.py"):
        others = (imports_of(path) & (areas | {"stages", "cli", "study_run", "study_command"})) - {
            area
        }
        assert others <= ALLOWED[area], f"{path.relative_to(SRC)} imports {others - ALLOWED[area]}"


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("submitit", "launch/executors.py"),
        ("deepspeed", "train/deepspeed.py"),
        ("wandb", "tracking/wandb_*.py"),
        ("wandb_workspaces", "tracking/workspaces.py"),
        ("openai", "evaluate/judging/client.py"),
    ],
)
def test_a_librarys_vocabulary_stays_in_one_file(library: str, home: str) -> None:
    users = set()
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            if any(name.partition(".")[0] == library for name in names):
                users.add(path.relative_to(SRC).as_posix())

    assert {user for user in users if not fnmatch(user, home)} == set()
