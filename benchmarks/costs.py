"""How well hours are predicted, and what predicting costs a plan.

Table 4 of the paper, each row and each size left out of the fit of the one constant, beside simpler
models fitted in the same way; then the wall time of `plan` on the paper's grid beside the same plan
without predictions (cluster.device=null).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

from scalesweep.cost_model.table4 import (
    NUM_SAMPLES,
    PUBLISHED_RUNS,
    TEXT_TOKENS,
    TOWER,
    PublishedRun,
)
from scalesweep.models.parameters import num_language_model_params
from scalesweep.report.paper.predicted import predicted_table4
from scalesweep.specs import Method

REPEATS = 5
GRID = ("-m", "model=33b,65b", "tuning=lora,qlora,full", "cluster=azure_nd_a100_v4")
Size = Callable[[PublishedRun], float]


def main() -> None:
    print(predicted_table4("terminal"))
    print_models()
    print_plan_times()


def print_models() -> None:
    """Mean and worst error of models with one constant, rows and sizes left out."""
    print(
        f"{'model, one fitted constant':34}{'row out':>9}{'worst':>9}{'size out':>10}{'ratio':>8}"
    )
    declared = errors(MODELS[DECLARED], same_row)
    for name, size in MODELS.items():
        rows, sizes = errors(size, same_row), errors(size, same_size)
        mean = statistics.fmean(map(abs, rows))
        ratio = mean / statistics.fmean(map(abs, declared))
        print(
            f"{name:34}{mean:>9.2%}{max(map(abs, rows)):>9.1%}"
            f"{statistics.fmean(map(abs, sizes)):>10.2%}{ratio:>7.2f}x"
        )
    print(f"ratio: of mean errors with the row left out, to {DECLARED}\n")


def weights(run: PublishedRun) -> float:
    model = run.spec.model
    assert model is not None
    return float(num_language_model_params(model))


def tokens() -> float:
    return float(NUM_SAMPLES * (TEXT_TOKENS + TOWER.num_patches))


DECLARED = "declared: FLOPs by part"
MODELS: Mapping[str, Size] = {
    "6 FLOPs a weight and token": lambda run: 6 * weights(run) * tokens(),
    "6 frozen, 8 learning": lambda run: (
        (8 if run.spec.method is Method.full else 6) * weights(run) * tokens()
    ),
    DECLARED: lambda run: run.flops,
}


def same_row(run: PublishedRun, other: PublishedRun) -> bool:
    return run is other


def same_size(run: PublishedRun, other: PublishedRun) -> bool:
    return run.size == other.size


def errors(size: Size, is_alike: Callable[[PublishedRun, PublishedRun], bool]) -> list[float]:
    """Of node-hours = size / constant, the constant fitted to the rows that are not alike."""
    found = []
    for run in PUBLISHED_RUNS:
        others = [other for other in PUBLISHED_RUNS if not is_alike(run, other)]
        constant = statistics.fmean(size(other) / other.node_hours for other in others)
        found.append(size(run) / constant / run.node_hours - 1)
    return found


def print_plan_times() -> None:
    """Wall seconds of the command, one after the other in turns."""
    kinds = {"without predictions": ("cluster.device=null",), "with predictions": ()}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(REPEATS):
            for name, words in kinds.items():
                begin = time.perf_counter()
                subprocess.run(
                    [
                        sys.executable,
                        "-m",
                        "scalesweep",
                        "plan",
                        *GRID,
                        *words,
                        f"store={folder}/s",
                    ],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                times[name].append(time.perf_counter() - begin)
    base = statistics.median(times["without predictions"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(
            f"plan {' '.join(GRID)}, {name}: {median:.2f} s "
            f"({min(seconds):.2f}-{max(seconds):.2f}), {median / base:.2f}x"
        )
