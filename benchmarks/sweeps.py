"""What a big grid costs the command that composes and plans it, against Hydra's own composition.

`plan` runs in a process of its own and prints to a file; its CPU and peak memory are those of that
process. The baseline composes some cells of the same grid one by one with Hydra and resolves them,
and plans nothing: the ratio is the least that is saved.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BASELINE = "Hydra's own composition of each cell"
SAMPLE = 20
"""Cells that Hydra composes; its time does not depend on how many there are."""
SIZES = (100, 1_000, 10_000)

Choices = Mapping[str, Sequence[str]]

MINIATURES: Choices = {
    "model": ("mini_xs", "mini_s", "mini_m"),
    "resolution": ("32px", "48px"),
    "data_mix": ("mini", "mini_text"),
    "tuning": ("lora", "qlora", "full"),
    "evaluation": ("mini", "mini_dev"),
    "base": ("none", "mini"),
}
FULL_SIZE: Choices = {
    "model": ("7b", "13b", "33b", "65b", "70b"),
    "resolution": ("224px", "336px"),
    "data_mix": ("llava80k", "llava80k_sharegpt"),
    "tuning": ("lora", "qlora", "full"),
    "base": ("none", "sharegpt"),
}
SHIPPED_OPTIM = ("mini", "paper")
OWN_OPTIM = tuple(f"own_{number}" for number in range(70))
"""Options in a --config-dir, so that there are more than 10,000 distinct choices."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one command."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    """Print the cost of every kind of grid at every size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_own_options(folder)
        planning(folder)


def planning(folder: Path) -> None:
    """Composing and planning: `plan` of each grid."""
    empty = plan_cost(folder, cells=[["model=mini_s"]])
    print(f"plan of one cell: {empty.cpu_s:.2f} s CPU, {empty.peak_mb:.0f} MB at most\n")
    print(f"{'':<44} {'cells':>6} {'wall s':>7} {'CPU ms a cell':>14} {'beyond one':>11} "
          f"{'peak MB':>8}  times {BASELINE}")  # fmt: skip
    for name, grid in GRIDS.items():
        hydra_ms = baseline_ms(folder, grid(SAMPLE))
        print(f"{name + ': ' + 'Hydra composes':<44} {SAMPLE:>6} {'':>7} {hydra_ms:>14.1f}"
              f" {'':>11} {'':>8}  1")  # fmt: skip
        for size in SIZES:
            cost = plan_cost(folder, cells=grid(size))
            each = 1000 * cost.cpu_s / size
            beyond = 1000 * (cost.cpu_s - empty.cpu_s) / size
            print(f"{name:<44} {size:>6} {cost.wall_s:>7.1f} {each:>14.2f} {beyond:>11.2f} "
                  f"{cost.peak_mb:>8.0f}  {each / hydra_ms:.4f}", flush=True)  # fmt: skip


# ---------------------------------------------------------------- grids: overrides of every cell


def shipped_choices(size: int) -> list[list[str]]:
    """All 528 choices that conf/ allows as it is shipped, times seeds."""
    combinations = shuffled({**MINIATURES, "optim": SHIPPED_OPTIM})
    combinations += shuffled({**FULL_SIZE, "optim": SHIPPED_OPTIM})
    seeds = itertools.count(1)
    cells = ([*c, f"seed={seed}"] for seed in seeds for c in combinations)
    return list(itertools.islice(cells, size))


def own_choices(size: int) -> list[list[str]]:
    """No two cells with the same choices, and nothing but choices."""
    return shuffled({**MINIATURES, "optim": OWN_OPTIM})[:size]


def plain_values(size: int) -> list[list[str]]:
    """One choice, four axes of values."""
    axes = {
        "lora.rank": [str(2**power) for power in range(1, 8)],
        "lora.alpha": ["8", "16", "32"],
        "optim.lr": [str(number / 1000) for number in range(1, 11)],
        "seed": [str(number) for number in range(1, 49)],
    }
    return [["model=mini_s", "tuning=lora", *cell] for cell in shuffled(axes)[:size]]


GRIDS: dict[str, Callable[[int], list[list[str]]]] = {
    "shipped choices x seeds": shipped_choices,
    "every cell its own choices": own_choices,
    "plain values": plain_values,
}


def shuffled(axes: Choices) -> list[list[str]]:
    """Every combination, in an order that is mixed and always the same."""
    words = [[f"{key}={value}" for value in values] for key, values in axes.items()]
    cells = [list(cell) for cell in itertools.product(*words)]
    random.Random(0).shuffle(cells)
    return cells


def write_own_options(folder: Path) -> None:
    (folder / "conf/optim").mkdir(parents=True)
    for number, name in enumerate(OWN_OPTIM):
        text = f"defaults: [mini, _self_]\nweight_decay: {number / 1000}\n"
        (folder / f"conf/optim/{name}.yaml").write_text(text, encoding="utf-8")


def sweep_file(folder: Path, cells: Sequence[Sequence[str]]) -> Path:
    """A sweep of just these cells."""
    path = folder / "cells.yaml"
    grids = (", ".join(word.replace("=", ": ", 1) for word in cell) for cell in cells)
    lines = "".join(f"  - {{{grid}}}\n" for grid in grids)
    path.write_text(f"# Which cells?\ngrids:\n{lines}", encoding="utf-8")
    return path


# ---------------------------------------------------------------- measuring


def plan_cost(folder: Path, *, cells: Sequence[Sequence[str]]) -> Cost:
    """`plan` of a sweep file in a process of its own.

    Raises:
        RuntimeError: it did not end well.
    """
    words = ["plan", "-m", f"+sweep={sweep_file(folder, cells)}", "--config-dir", f"{folder}/conf"]
    begin = time.perf_counter()
    with (folder / "plan.txt").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "scalesweep", *words], stdout=out, cwd=folder
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: exit status {process.returncode}")
    return Cost(
        wall_s=time.perf_counter() - begin,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss / 1e3,  # Linux counts in kB
    )


def baseline_ms(folder: Path, cells: Sequence[Sequence[str]]) -> float:
    """CPU of Hydra's composing, milliseconds a cell."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf, open_dict

    from scalesweep.config.load import register_resolvers
    from scalesweep.config.paths import conf_dir

    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        begin = time.process_time()
        for cell in cells:
            config = compose("config", [*cell, f"hydra.searchpath=[file://{folder}/conf]"])
            with open_dict(config):
                config.pop("hydra", None)
            OmegaConf.to_container(config, resolve=True)
        return 1000 * (time.process_time() - begin) / len(cells)
