"""What saving costs a step: in the foreground, in the background, not at all; in turn, in one run.

The whole loop trains a language model with random weights on random tokens, on one thread, and
saves twice in a round. Wall time is measured, for writing waits for the disk: neighbours on a
shared machine disturb it. A round ends when everything is durable, so the background is charged for
what it has not written by then.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.timing import Timing, ratio_text

CASES = {
    "miniature": {"hidden_size": 64, "num_layers": 4, "vocab_size": 1000},
    "100 M parameters": {"hidden_size": 768, "num_layers": 12, "vocab_size": 16_000},
}
ZERO_STAGES = (0, 2)
NONE, FOREGROUND, BACKGROUND = "no saves", "foreground", "background"
STEPS, SAVED = 10, (2, 6)
"""Of a round, and the steps of it after which it saves."""
WARM_UP = 3
ROUNDS = {"miniature": 9, "100 M parameters": 2}
TOKENS = 64


def main() -> None:
    """Print seconds a step for every case, and the seconds that a save held the loop up."""
    for case, zero_stage in itertools.product(CASES, ZERO_STAGES):
        words = [sys.executable, "-m", "benchmarks.checkpoints", case, str(zero_stage)]
        subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def measure(case: str, zero_stage: int) -> None:
    """One case in this process."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from scalesweep.launch.workers import free_port
    from scalesweep.models.flops import Work
    from scalesweep.models.output_layer import OutputLayer
    from scalesweep.records import Execution, StageKind, StageSpec
    from scalesweep.rundir import Store
    from scalesweep.specs import OptimSpec, Precision
    from scalesweep.stages import StageContext
    from scalesweep.tracking import metric_names as names
    from scalesweep.train.batches import MicroBatch, Step
    from scalesweep.train.checkpoint import TrainState
    from scalesweep.train.deepspeed import Engine, initialise_processes
    from scalesweep.train.keeper import CheckpointKeeper
    from scalesweep.train.loop import Hooks, train
    from scalesweep.train.optimizer import adamw
    from scalesweep.train.tasks import LanguageTask

    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(free_port()))  # fmt: skip
    torch.set_num_threads(1)
    initialise_processes()
    size = CASES[case]
    config = LlamaConfig(
        hidden_size=size["hidden_size"],
        intermediate_size=8 * size["hidden_size"] // 3,
        num_hidden_layers=size["num_layers"],
        num_attention_heads=max(1, size["hidden_size"] // 64),
        vocab_size=size["vocab_size"],
    )
    model: Any = LlamaForCausalLM(config)
    model.lm_head = OutputLayer.of(model.lm_head)
    task = LanguageTask(model)
    optim = OptimSpec(lr=1e-5, schedule="constant", warmup_steps=0, warmup_ratio=None,
                      weight_decay=0.0, betas=[0.9, 0.999], eps=1e-8, max_grad_norm=1.0,
                      epochs=None, max_steps=10**6)  # fmt: skip
    engine = Engine(
        task,
        adamw(task.parameters(), optim),
        zero_stage=zero_stage,
        precision=Precision.fp32,
        max_grad_norm=1.0,
    )
    ids = torch.randint(0, size["vocab_size"], (1, TOKENS))
    batch = MicroBatch(
        input_ids=ids,
        lengths=None,
        loss_weights=torch.ones(1, TOKENS),
        pixels=torch.zeros(0),
        num_pictures=0,
        texts=[],
        num_tokens=TOKENS,
    )
    step = Step(
        micro_batches=[batch],
        loss_weight=TOKENS - 1,
        num_tokens=TOKENS,
        num_computed_tokens=TOKENS,
        num_samples=1,
        work=Work.of([TOKENS], num_supervised=TOKENS - 1, num_pictures=0),
    )
    steps: Iterator[Step] = itertools.repeat(step)
    held_up: dict[str, list[float]] = {FOREGROUND: [], BACKGROUND: []}

    with tempfile.TemporaryDirectory() as folder:
        spec = StageSpec(kind=StageKind.tune, label="bench", recipe_version=1, identity={})
        stage = Store(Path(folder)).stage(spec.ref)
        stage.attempt(1).path.mkdir(parents=True)
        context = StageContext(
            store=Store(Path(folder)),
            stage=stage,
            attempt=stage.attempt(1),
            spec=spec,
            execution=Execution(cluster="local"),
            inputs={},
        )
        keeper = CheckpointKeeper(context=context, engine=engine, inputs="", seed=0)

        def run(variant: str, begin: int, count: int) -> float:
            """Seconds of a round."""
            keeper.in_background = variant == BACKGROUND

            def log(row: object) -> None:
                del row
                found = keeper.metrics()
                if variant != NONE and names.CHECKPOINT_SAVE_SECONDS in found:
                    held_up[variant].append(found[names.CHECKPOINT_SAVE_SECONDS])

            hooks = Hooks(
                inputs=lambda b: (b.input_ids, b.loss_weights, b.pixels, b.num_pictures),
                log=log,
                save=keeper.save,
                save_due=lambda s: variant != NONE and (s.step - begin) in SAVED,
                finish=keeper.finish,
                stop_requested=lambda: False,
                peak_memory_bytes=lambda: 0,
                utilisation=lambda *_: {},
            )
            began = time.perf_counter()
            train(engine, steps, TrainState(step=begin), optim=optim, num_steps=begin + count,
                  world_size=1, hooks=hooks)  # fmt: skip
            return time.perf_counter() - began

        variants = (NONE, FOREGROUND, BACKGROUND)
        done = 0
        for variant in (FOREGROUND, BACKGROUND):  # memory of copies, first calls: not counted
            run(variant, done, WARM_UP)
            done += WARM_UP
        for times in held_up.values():
            times.clear()
        seconds: dict[str, list[float]] = {variant: [] for variant in variants}
        for turn in range(ROUNDS[case]):
            for variant in variants if turn % 2 == 0 else variants[::-1]:
                seconds[variant].append(run(variant, done, STEPS) / STEPS)
                done += STEPS
        written = sum(f.stat().st_size for f in stage.path.rglob("*.safetensors")) / 2

    timings = {variant: Timing(seconds=s) for variant, s in seconds.items()}
    print(f"{case}, ZeRO-{zero_stage}, one process, {written / 2**20:.1f} MiB a checkpoint, "
          f"{len(SAVED)} saves in {STEPS} steps, {ROUNDS[case]} rounds")  # fmt: skip
    for variant, timing in timings.items():
        line = (f"  {variant:<11} {timing.median:8.4f} s a step, times {NONE}: "
                f"{ratio_text(timings[NONE], timing)}")  # fmt: skip
        if variant != NONE:
            line += f"; a save holds up for {Timing(seconds=held_up[variant]).median:.4f} s"
        print(line, flush=True)


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]))
