"""Steps per second of the trainer against a bare PyTorch loop and HF Trainer, in one run, in turn.

The baseline is as bare as it gets: the same model and loss, batches that were made beforehand, then
forward, backward, clip and AdamW; no data, no engine, no accounts. Ours is the whole loop of a
stage: samples and pictures read step by step, DeepSpeed, metrics written to disk. "stock forward"
is the loop that a user of transformers writes: the model's own forward with labels and a mask.
HF Trainer is transformers.Trainer around it, with the same samples in the same order, padded, the
same optimizer and schedule, and neither logging nor saving.
Each variant is a process of its own on one thread; they take turns, so that what slows the machine
slows them alike. Core seconds are counted, and the fastest rounds compared: neighbours on a shared
machine make a round slower, never faster.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.timing import Timing, ratio_text

BASELINE = "bare loop"
HF_TRAINER, OURS = "HF Trainer", "zero 0"
VARIANTS = (BASELINE, "stock forward", HF_TRAINER, OURS, "zero 2", "zero 3")
GOAL = 0.95
"""Of the bare loop's speed, for ours with ZeRO-0."""
CASES = {
    "mini_s full": ["model=mini_s", "tuning=full"],
    "mini_m full": ["model=mini_m", "tuning=full"],
    "mini_s lora": ["model=mini_s", "tuning=lora"],
}
ROUNDS, STEPS, WARM_UP = 15, 8, 5
"""Rounds are paired: every variant does so many steps in each."""


def main() -> None:
    """Print steps per second and ratios for every case."""
    for case, words in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store"
            _prepare(store, words)
            _print(case, _measure(store))


def _prepare(store: Path, words: list[str]) -> None:
    """Data and an aligned projector: what a tune stage starts from."""
    line = [sys.executable, "-m", "scalesweep", *words, f"store={store}", "study=bench",
            "tracking=none", "align.optim.max_steps=10",
            "datasets.mini_train.parameters.num_pictures=1000"]  # fmt: skip
    subprocess.run([*line, "until=align"], check=True, capture_output=True)
    # The plan of the tune stage, without running it.
    plan = subprocess.run(
        [line[0], "-m", "scalesweep", "plan", *line[3:], "until=tune", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    (store / "studies" / "bench" / "plan.json").write_text(plan.stdout, encoding="utf-8")


@dataclass
class _Worker:
    """One variant in its process; does so many steps when told, and says how long they took."""

    process: subprocess.Popen[str]

    def run(self, steps: int) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with status {self.process.wait()}")
        return float(line)


def _measure(store: Path) -> dict[str, Timing]:
    workers = {
        variant: _Worker(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.training_worker", str(store), variant],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        for variant in VARIANTS
    }
    try:
        for worker in workers.values():
            worker.run(WARM_UP)
        seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        for turn in range(ROUNDS):
            order = VARIANTS if turn % 2 == 0 else VARIANTS[::-1]
            for variant in order:
                seconds[variant].append(workers[variant].run(STEPS) / STEPS)
    finally:
        for worker in workers.values():
            worker.process.kill()
            worker.process.wait()
    return {variant: Timing(seconds=s) for variant, s in seconds.items()}


def _print(case: str, timings: dict[str, Timing]) -> None:
    print(f"{case}, one process, one thread, {ROUNDS} rounds of {STEPS} steps")
    print(f"  {'':<14} {'steps/s':>8}  speed against the {BASELINE}: fastest rounds, "
          "median of rounds (min to max)")  # fmt: skip
    fastest = min(timings[BASELINE].seconds)
    for variant, timing in timings.items():
        best = min(timing.seconds)
        print(f"  {variant:<14} {1 / best:>8.2f}  {fastest / best:.2f}   "
              f"{ratio_text(timing, timings[BASELINE])}")  # fmt: skip
    ours, trainer = min(timings[OURS].seconds), min(timings[HF_TRAINER].seconds)
    share = fastest / ours
    print(
        f"  ours ({OURS}): {share:.2f} of the {BASELINE} (goal >= {GOAL}: "
        f"{'reached' if share >= GOAL else 'MISSED'}), {trainer / ours:.2f} of {HF_TRAINER}"
    )
