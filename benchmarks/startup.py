"""What a command costs before it does anything, against a bare interpreter and the training stack.

plan is also split into composing (Hydra's part) and all that comes after it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import Timing, print_timings

GRID = ["-m", "model=7b,13b,33b,65b", "resolution=224px,336px", "tuning=lora,qlora,full"]
"""24 cells of the paper's models."""
BASELINE = "python -c pass"
COMMANDS = {
    BASELINE: ["-c", "pass"],
    "import the training stack": ["-c", "import torch, transformers, peft, deepspeed"],
    "--help": ["-m", "scalesweep", "--help"],
    "status": ["-m", "scalesweep", "status"],
    "report": ["-m", "scalesweep", "report"],
    "plan, one cell": ["-m", "scalesweep", "plan", "model=33b", "tuning=lora"],
    "plan, 24 cells": ["-m", "scalesweep", "plan", *GRID],
}
ROUNDS = 5
SPLIT = """
import contextlib, io, sys, time
from scalesweep.cli import run
from scalesweep.config.compose import Composer
spent, compose = [], Composer.compose
def timed(self, overrides):
    begin = time.perf_counter()
    try:
        return compose(self, overrides)
    finally:
        spent.append(time.perf_counter() - begin)
Composer.compose = timed
begin = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    run(["plan", *sys.argv[1:]])
print(time.perf_counter() - begin, sum(spent), len(spent))
"""


def main() -> None:
    """Print the table of start-ups and the split of a plan of 24 cells."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        _plan_only(store)
        seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for _ in range(ROUNDS):
            for name, words in COMMANDS.items():
                seconds[name].append(_timed(words, store))
        print_timings({n: Timing(seconds=s) for n, s in seconds.items()}, baseline=BASELINE)
        _print_split(folder)


def _plan_only(store: Path) -> None:
    """A study in the store in which nothing ran: what status and report have to read."""
    from hydra import compose, initialize_config_dir
    from omegaconf import open_dict

    from scalesweep.config.load import load, register_resolvers
    from scalesweep.config.paths import conf_dir
    from scalesweep.plan.build import CellRequest, build_plan
    from scalesweep.rundir import Store, write_json

    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", overrides=["model=mini_s"])
    with open_dict(config):
        config.pop("hydra", None)
    request = CellRequest(point={}, config=load(config, planning=True))
    folder = Store(store).study("small")
    folder.mkdir(parents=True)
    write_json(folder / "plan.json", build_plan([request], study="small").to_json())


def _timed(words: list[str], store: Path) -> float:
    at_store = ["--store", str(store)] if words[-1] in ("status", "report") else []
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words, *at_store], check=True, capture_output=True)
    return time.perf_counter() - begin


def _print_split(folder: str) -> None:
    rounds = []
    for _ in range(ROUNDS):
        ended = subprocess.run(
            [sys.executable, "-c", SPLIT, *GRID],
            check=True,
            capture_output=True,
            text=True,
            cwd=folder,
        )
        whole, composing, cells = ended.stdout.split()
        rounds.append((float(whole), float(composing)))
    composing = statistics.median(c for _, c in rounds)
    beyond = statistics.median(w - c for w, c in rounds)
    print(
        f"plan, {cells} cells: composing {composing:.2f} s, all that comes after it and Hydra's "
        f"start {beyond:.2f} s ({beyond / composing:.2f} times composing)"
    )
