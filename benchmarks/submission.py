"""What it costs to submit a big grid to Slurm, against Hydra's own launcher for Slurm.

A real cluster is started on this machine. Jobs are held, so that nothing runs beside what is
measured. Ours composes, checks and plans all cells, claims their stages on disk and submits them;
then its command returns. The baseline is the same grid over the same conf/ in an application that
does nothing, with hydra/launcher=submitit_slurm and Hydra's basic sweeper: one job a cell, one
pickle for each. Its command would stay until its jobs have ended; it is measured until all of them
are in the queue, and then killed.

    python -m benchmarks submission            the baseline on 20 and 100 cells
    python -m benchmarks.submission --full     and on 1,000 (minutes)
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sweeps import Cost
from scalesweep.config.paths import conf_dir
from tests.slurm.cluster import SlurmCluster, missing_programs

LAUNCHER = "hydra-submitit-launcher==1.2.0"
ROUNDS = 3
"""In turn; the one with the least CPU counts, since a noisy neighbour only slows."""
PATIENCE_S = 1800
APP = """\
import hydra
from scalesweep.config.load import register_resolvers

@hydra.main(version_base="1.3", config_path={conf!r}, config_name="config")
def main(config):
    pass

register_resolvers()
main()
"""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is submitted, and by what."""

    num_cells: int
    by: str = "ours"
    last_stage: str = "tune"
    num_rounds: int = ROUNDS

    @property
    def is_baseline(self) -> bool:
        return self.by != "ours"

    def words(self, store: Path) -> list[str]:
        """The command line of both. Every cell is another rank, so none shares its tune stage."""
        return [
            "-m",
            "model=mini_xs",
            "tuning=lora",
            f"lora.rank=range(1,{self.num_cells + 1})",
            f"until={self.last_stage}",
            "cluster=slurm_local",
            "tracking=none",
            f"store={store}",
        ]


BASELINE = Grid(num_cells=100, by="hydra-submitit-launcher")
"""Its cost a cell is what ratios are taken to; it grows evenly with cells."""
BASELINES = (Grid(num_cells=20, by=BASELINE.by), BASELINE)
FULL = Grid(num_cells=1_000, by=BASELINE.by, num_rounds=1)
OURS = tuple(
    Grid(num_cells=cells, last_stage=last) for last in ("tune", "judge") for cells in (100, 1_000)
)


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """One measured submission."""

    cost: Cost
    num_jobs: int
    """Elements of job arrays that were in the queue."""


def main(*, full: bool = False) -> None:
    """Print the table. full: the baseline on 1,000 cells too."""
    if missing := missing_programs(accounting=False):
        print(f"left out: {', '.join(missing)} not installed (make setup-slurm)")
        return
    with tempfile.TemporaryDirectory(prefix="scalesweep-bench-") as name:
        folder = Path(name)
        grids = (*BASELINES, *([FULL] if full else []), *OURS)
        if not install_launcher(folder / "launcher"):
            print(f"without the baseline: {LAUNCHER} could not be installed")
            grids = OURS
        cluster = SlurmCluster(folder=folder / "cluster", accounting=False)
        cluster.start(watched_pid=os.getpid())
        try:
            print_table(measured(grids, folder, cluster))
        finally:
            cluster.wipe()


def install_launcher(target: Path) -> bool:
    """Into a folder of its own: Hydra and submitit are those of the project."""
    words = ["--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(target)]
    ended = subprocess.run(
        [sys.executable, "-m", "pip", "install", *words, LAUNCHER],
        capture_output=True,
        check=False,
    )
    return ended.returncode == 0


def measured(
    grids: Sequence[Grid], folder: Path, cluster: SlurmCluster
) -> dict[Grid, list[Submitted]]:
    """All rounds of every grid, the grids in turn."""
    found: dict[Grid, list[Submitted]] = {grid: [] for grid in grids}
    for number in range(ROUNDS):
        for grid in grids:
            if number < grid.num_rounds:
                submit = by_hydra if grid.is_baseline else by_us
                found[grid].append(submit(grid, folder, cluster))
                clear(folder, cluster)
    return found


def print_table(found: Mapping[Grid, Sequence[Submitted]]) -> None:
    """The round with the least CPU of every grid."""
    best = {grid: min(rounds, key=lambda r: r.cost.cpu_s) for grid, rounds in found.items()}
    base_ms = None
    if BASELINE in best:
        base_ms = 1000 * best[BASELINE].cost.cpu_s / BASELINE.num_cells
    print(f"{'':<32} {'cells':>6} {'jobs':>6} {'wall s':>7} {'CPU s':>7} {'CPU ms a cell':>14} "
          f"{'peak MB':>8}  times less than {BASELINE.by}")  # fmt: skip
    for grid, this in best.items():
        cost, each = this.cost, 1000 * this.cost.cpu_s / grid.num_cells
        name = grid.by if grid.is_baseline else f"{grid.by}, until={grid.last_stage}"
        ratio = f"{base_ms / each:.1f}" if base_ms else ""
        print(f"{name:<32} {grid.num_cells:>6} {this.num_jobs:>6} {cost.wall_s:>7.1f} "
              f"{cost.cpu_s:>7.2f} {each:>14.2f} {cost.peak_mb:>8.0f}  {ratio}")  # fmt: skip
    for grid, rounds in found.items():
        spread = ", ".join(f"{r.cost.wall_s:.1f}/{r.cost.cpu_s:.1f}" for r in rounds)
        print(f"wall/CPU s of all rounds, {grid.by} until={grid.last_stage} "
              f"{grid.num_cells}: {spread}")  # fmt: skip


# ---------------------------------------------------------------- measuring


def by_us(grid: Grid, folder: Path, cluster: SlurmCluster) -> Submitted:
    """The command, which returns when all is in the queue.

    Raises:
        RuntimeError: it did not end well, or submitted fewer jobs than cells.
    """
    words = ["-m", "scalesweep", *grid.words(folder / "store"), "cluster.sbatch=[--hold]"]
    begin = time.perf_counter()
    process = started(words, folder, cluster.env())
    cost, status = ended(process, begin=begin)
    num_jobs = len(cluster.squeue())
    if status or num_jobs < grid.num_cells:
        raise RuntimeError(f"exit status {status}, {num_jobs} jobs: {said(folder)}")
    return Submitted(cost=cost, num_jobs=num_jobs)


def by_hydra(grid: Grid, folder: Path, cluster: SlurmCluster) -> Submitted:
    """The command until all is in the queue.

    Raises:
        RuntimeError: it ended, or got nowhere.
    """
    app = folder / "app.py"
    app.write_text(APP.format(conf=str(conf_dir())), encoding="utf-8")
    words = [
        str(app),
        *grid.words(folder / "store"),
        "hydra/sweeper=basic",
        "hydra/launcher=submitit_slurm",
        "+hydra.launcher.additional_parameters.hold=true",
    ]
    begin = time.perf_counter()
    env = cluster.env(PYTHONPATH=str(folder / "launcher"))
    process = started(words, folder, env)
    try:
        while (num_jobs := len(cluster.squeue())) < grid.num_cells:
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                raise RuntimeError(f"the baseline ended: {said(folder)}")
            if time.perf_counter() - begin > PATIENCE_S:
                raise RuntimeError(f"the baseline has {num_jobs} jobs in the queue, no more")
            time.sleep(0.2)
    finally:
        wall_s = time.perf_counter() - begin
        os.kill(process.pid, signal.SIGKILL)
        cost, _ = ended(process, begin=begin)
    return Submitted(
        cost=Cost(wall_s=wall_s, cpu_s=cost.cpu_s, peak_mb=cost.peak_mb), num_jobs=num_jobs
    )


def started(words: Sequence[str], folder: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "said.txt").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT
        )


def ended(process: subprocess.Popen[bytes], *, begin: float) -> tuple[Cost, int]:
    """Wait for a command: its cost with that of the programs it ran, and its exit status."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cost = Cost(
        wall_s=time.perf_counter() - begin,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss / 1e3,  # Linux counts in kB
    )
    return cost, process.returncode


def said(folder: Path) -> str:
    return (folder / "said.txt").read_text(encoding="utf-8", errors="replace")[-2000:]


def clear(folder: Path, cluster: SlurmCluster) -> None:
    """Empty the queue and the store, which no round shall find."""
    cluster.run("scancel", "--quiet", "--user", cluster.run("id", "-un").strip())
    cluster.wait_for_empty_queue()
    shutil.rmtree(folder / "store", ignore_errors=True)


if __name__ == "__main__":
    main(full="--full" in sys.argv[1:])
