"""One variant of the training benchmark: python -m benchmarks.training_worker STORE VARIANT.

Reads numbers of steps from standard input, does them, and answers with the core seconds they took:
on one thread those of a quiet machine, whatever else runs.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
from transformers import AutoTokenizer

from benchmarks.hf_trainer import Pausing, train_in_rounds, trainer
from scalesweep.data.images import normalise
from scalesweep.data.samples import TrainingSet, load_training_set
from scalesweep.data.tokenize import image_token_id
from scalesweep.launch.workers import free_port
from scalesweep.plan.graph import Plan
from scalesweep.records import StageKind
from scalesweep.rundir import Store, read_json
from scalesweep.specs import Precision, TrainingSpec
from scalesweep.stages import StageContext
from scalesweep.train.batches import MicroBatch, StepMaker
from scalesweep.train.checkpoint import TrainState
from scalesweep.train.deepspeed import Engine, initialise_processes
from scalesweep.train.loop import Hooks, train
from scalesweep.train.optimizer import adamw, learning_rate
from scalesweep.train.trainable import Trainable, build_trainable
from scalesweep.train.utilisation import utilisation

NUM_STEPS = 150
"""Of the schedule; the same for all variants."""
READY_MADE = 60
"""Steps whose batches the bare loops have beforehand; they go round."""

Run = Callable[[int], None]


class Bench:
    """A tune stage of a prepared store, up to the point where training begins."""

    def __init__(self, store: Store, scratch: Path) -> None:
        plan = Plan.from_json(read_json(store.study("bench") / "plan.json"))
        stage = next(s for s in plan.stages if s.spec.kind is StageKind.tune)
        self.spec = TrainingSpec.from_identity(stage.spec.identity)
        self.execution = stage.execution
        self.scratch = scratch
        inputs = {role: store.stage(ref).output() for role, ref in stage.spec.inputs.items()}
        assert self.spec.model is not None
        assert self.spec.tower is not None
        self.tokenizer: Any = AutoTokenizer.from_pretrained(stage.execution.paths["tokenizer"])
        self.data: TrainingSet = load_training_set(
            self.spec,
            roots={s.dataset: inputs[f"data:{s.dataset}"] for s in self.spec.data},
            tokenizer=self.tokenizer,
            cache=store.cache,
        )
        self.trainable: Trainable = build_trainable(
            self.spec,
            paths=stage.execution.paths,
            inputs=inputs,
            tokenizer=self.tokenizer,
            image_token_id=image_token_id(self.tokenizer),
        )
        self.trainable.task.train()
        self.optimizer = adamw(self.trainable.parameters, self.spec.optim)
        self.maker = StepMaker(
            self.data,
            seed=self.spec.seed,
            global_batch_size=self.spec.global_batch_size,
            micro_batch_size=self.execution.micro_batch_size,
            rank=0,
            world_size=1,
            pad_token_id=int(self.tokenizer.pad_token_id or 0),
            picture_side=self.spec.tower.image_size,
        )


def inputs_of(batch: MicroBatch) -> tuple[Any, ...]:
    return batch.input_ids, batch.loss_weights, batch.pixels, batch.num_pictures


def bare_loop(bench: Bench) -> Run:
    """Forward, backward, clip, AdamW; batches are ready."""
    task = bench.trainable.task

    def loss(micro: MicroBatch, weight: float) -> Any:
        return task(*inputs_of(micro)) / weight

    return _plain(bench, loss)


def stock_forward(bench: Bench) -> Run:
    """The same loop with the model's own forward."""
    model = bench.trainable.model

    def loss(micro: MicroBatch, weight: float) -> Any:
        del weight
        labels = torch.where(micro.loss_weights > 0, micro.input_ids, -100)
        return model(
            input_ids=micro.input_ids,
            attention_mask=(micro.input_ids != 0).long(),
            pixel_values=normalise(micro.pixels),
            labels=labels,
            use_cache=False,
        ).loss

    return _plain(bench, loss)


def hf_trainer(bench: Bench) -> None:
    """transformers.Trainer; answers as main() does."""
    begin = 0.0

    def ask() -> int:
        nonlocal begin
        if begin:
            print(time.process_time() - begin, flush=True)
        line = sys.stdin.readline()
        begin = time.process_time()
        return int(line or 0)

    train_in_rounds(
        trainer(
            bench.trainable.model,
            bench.data,
            optim=bench.spec.optim,
            num_steps=10 * NUM_STEPS,
            micro_batch_size=bench.execution.micro_batch_size,
            gradient_accumulation_steps=-(
                -bench.spec.global_batch_size // bench.execution.micro_batch_size
            ),
            pad_token_id=int(bench.tokenizer.pad_token_id or 0),
            seed=bench.spec.seed,
            scratch=bench.scratch / "trainer",
            callbacks=[Pausing(ask)],
            use_cpu=True,
        )
    )


def _plain(bench: Bench, loss: Callable[[MicroBatch, float], Any]) -> Run:
    made = list(itertools.islice(bench.maker.steps(samples_seen=0), READY_MADE))
    steps = itertools.cycle(made)
    done = itertools.count()

    def run(count: int) -> None:
        for step in itertools.islice(steps, count):
            lr = learning_rate(bench.spec.optim, step=next(done) % NUM_STEPS, num_steps=NUM_STEPS)
            for group in bench.optimizer.param_groups:
                group["lr"] = lr
            for micro in step.micro_batches:
                loss(micro, step.loss_weight).backward()
            torch.nn.utils.clip_grad_norm_(
                bench.trainable.parameters, bench.spec.optim.max_grad_norm
            )
            bench.optimizer.step()
            bench.optimizer.zero_grad()

    return run


def our_loop(bench: Bench, zero_stage: int, context: StageContext) -> Run:
    """The loop of a stage, on DeepSpeed."""
    port = free_port()
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port))  # fmt: skip
    initialise_processes()
    engine = Engine(
        bench.trainable.task,
        bench.optimizer,
        zero_stage=zero_stage,
        precision=Precision.fp32,
        max_grad_norm=bench.spec.optim.max_grad_norm,
    )
    hooks = Hooks(
        inputs=inputs_of,
        log=context.log_metrics,
        save=lambda _: None,
        save_due=lambda _: False,
        finish=lambda: None,
        stop_requested=lambda: False,
        peak_memory_bytes=lambda: 0,
        utilisation=partial(utilisation, bench.spec, num_devices=1, peak_flops=None),
    )
    steps: Iterator[Any] = bench.maker.steps(samples_seen=0)

    def run(count: int) -> None:
        train(engine, steps, TrainState(), optim=bench.spec.optim, num_steps=count, world_size=1,
              hooks=hooks)  # fmt: skip

    return run


def main() -> None:
    store, variant = Store(Path(sys.argv[1])), sys.argv[2]
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    scratch = store.root / "bench" / variant.replace(" ", "_")
    scratch.mkdir(parents=True)
    bench = Bench(store, scratch)
    if variant in ("stock forward", "HF Trainer"):
        bench.trainable.model.set_attn_implementation("sdpa")  # as a user of transformers has it
    if variant == "HF Trainer":
        hf_trainer(bench)
        return
    if variant == "bare loop":
        run = bare_loop(bench)
    elif variant == "stock forward":
        run = stock_forward(bench)
    else:
        run = our_loop(bench, int(variant[-1]), _context(store, bench))
    for line in sys.stdin:
        begin = time.process_time()
        run(int(line))
        print(time.process_time() - begin, flush=True)


def _context(store: Store, bench: Bench) -> StageContext:
    """Enough of a stage's surroundings to write metrics as it does."""
    from scalesweep.records import StageSpec
    from scalesweep.rundir import AttemptDir, StageDir

    return StageContext(
        store=store,
        stage=StageDir(bench.scratch),
        attempt=AttemptDir(bench.scratch),
        spec=StageSpec(kind=StageKind.tune, label="bench", recipe_version=1, identity={}),
        execution=bench.execution,
        inputs={},
    )


if __name__ == "__main__":
    main()
