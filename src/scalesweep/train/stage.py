"""A training stage (base, align or tune) from its spec to its published output."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import AutoTokenizer

from scalesweep.cost_model.token_cache import keep_statistics
from scalesweep.cost_model.token_statistics import training_data_key
from scalesweep.data.samples import TrainingSet, load_training_set
from scalesweep.data.stage import dataset_root
from scalesweep.data.tokenize import image_token_id
from scalesweep.errors import StageError
from scalesweep.models.attention import Kernel, chosen_kernel
from scalesweep.models.build import DTYPES
from scalesweep.models.recompute import Recompute
from scalesweep.models.used_device import used_device_name
from scalesweep.models.weights import weights_folder
from scalesweep.rundir import write_json
from scalesweep.specs import Method, TrainingSpec
from scalesweep.stages import StageContext
from scalesweep.train.batches import MicroBatch, StepMaker
from scalesweep.train.checkpoint import TrainState, seed_generators
from scalesweep.train.deepspeed import Engine, initialise_processes, own_part, weight_placement
from scalesweep.train.keeper import CheckpointKeeper
from scalesweep.train.leakage import refuse_leakage
from scalesweep.train.loop import Hooks, train
from scalesweep.train.optimizer import adamw
from scalesweep.train.prefetch import prefetched
from scalesweep.train.publish import publish
from scalesweep.train.tower_task import quarter_labels, tower_accuracy
from scalesweep.train.trainable import Trainable, build_trainable
from scalesweep.train.utilisation import peak_flops, utilisation
from scalesweep.train.work_done import WorkMeter

log = logging.getLogger(__name__)

STEPS_AHEAD = 2
"""Steps whose pictures are read while the device works."""
COMPILED_MULTIPLE = 128
"""Packs are filled up to a multiple of so many tokens for compiled kernels: fewer shapes."""


def run(context: StageContext) -> None:
    """Train, resume where an earlier attempt stopped, and write output/.

    Raises:
        StageError: weights, settings or the loss make it impossible to go on.
        DataError: training data are missing or broken.
        Interrupted: a stop was asked for; a checkpoint is written.
    """
    spec = TrainingSpec.from_identity(context.spec.identity)
    _refuse_impossible(spec, context)
    initialise_processes()
    _set_deterministic(context.execution.threads_per_rank)
    tokenizer = _tokenizer(spec, context)
    data = load_training_set(
        spec, roots=_roots(spec, context), tokenizer=tokenizer, cache=context.store.cache
    )
    if context.is_main:
        keep_statistics(context.store.cache, training_data_key(context.spec), data.token_sums())
    kernel = _kernel(spec, context)
    trainable = build_trainable(
        spec,
        paths=context.execution.paths,
        inputs=context.inputs,
        tokenizer=tokenizer,
        image_token_id=-1 if tokenizer is None else image_token_id(tokenizer),
        recompute=Recompute(context.execution.gradient_checkpointing),
        kernel=kernel,
        fuse=context.execution.compile and spec.model is not None,
        placement=weight_placement(context.execution.zero_stage, spec.precision),
    )
    num_trainable_params = trainable.num_trainable_params
    seed_generators(spec.seed, rank=context.rank)
    trainable.task.train()
    engine = Engine(
        trainable.task,
        adamw(trainable.parameters, spec.optim),
        zero_stage=context.execution.zero_stage,
        precision=spec.precision,
        max_grad_norm=spec.optim.max_grad_norm,
    )
    keeper = CheckpointKeeper(
        context=context, engine=engine, inputs=context.inputs_digest(), seed=spec.seed
    )
    if _is_packed(spec, context):
        assert spec.model is not None
        refuse_leakage(
            trainable.task,
            vocab_size=spec.model.vocab_size,
            picture_side=None if spec.tower is None else spec.tower.image_size,
        )
    meter = WorkMeter(context=context, device=used_device_name(engine.device))
    state = keeper.resume()
    num_steps = spec.optim.num_steps(
        num_samples=len(data), global_batch_size=spec.global_batch_size
    )
    loss = train(
        engine,
        prefetched(
            _steps(spec, data, tokenizer, context).steps(samples_seen=state.samples_seen),
            # A CPU that trains has no time for it beside.
            depth=STEPS_AHEAD if engine.device.type == "cuda" else 0,
        ),
        state,
        optim=spec.optim,
        num_steps=num_steps,
        world_size=context.world_size,
        hooks=Hooks(
            inputs=_task_inputs(spec, engine.device),
            log=lambda row: context.log_metrics({**row, **keeper.metrics()}),
            save=partial(_save, keeper, meter),
            save_due=keeper.due,
            finish=keeper.finish,
            stop_requested=keeper.stop_requested,
            peak_memory_bytes=_peak_memory_bytes,
            count=meter.add,
            utilisation=partial(
                utilisation,
                spec,
                num_devices=context.world_size,
                peak_flops=peak_flops(spec.precision, engine.device),
            ),
        ),
    )
    meter.write()
    _refuse_not_finite(trainable, context)
    started = time.perf_counter()
    publish(trainable, context.attempt.output, gathered=engine.gathered, is_main=context.is_main)
    held_out = _held_out(trainable, context, engine)
    if context.is_main:
        summary = {**_summary(spec, data, num_steps, num_trainable_params), **held_out}
        write_json(context.attempt.output / "training.json", summary)
        log.info("published in %.1f s, last loss %.4f", time.perf_counter() - started, loss)
    if context.world_size > 1:
        dist.barrier()


def _save(keeper: CheckpointKeeper, meter: WorkMeter, state: TrainState) -> None:
    """What was worked through is written down as often as its result is kept."""
    keeper.save(state)
    meter.write()


def _refuse_impossible(spec: TrainingSpec, context: StageContext) -> None:
    if spec.method is Method.qlora and context.execution.zero_stage == 3:
        raise StageError(
            "zero.stage=3: 4-bit weights of tuning=qlora are not sharded by ZeRO-3; take "
            "zero.stage=2 or tuning=lora"
        )


def _is_packed(spec: TrainingSpec, context: StageContext) -> bool:
    """A tower's pictures are all alike: there is nothing to pack."""
    return context.execution.micro_batch_tokens > 0 and spec.method is not Method.tower


def _kernel(spec: TrainingSpec, context: StageContext) -> Kernel:
    """Raises StageError where the asked kernel does not run."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return chosen_kernel(context.execution.attention, device, DTYPES[spec.precision])


def _set_deterministic(threads: int) -> None:
    """The same bits on the same machine type; sums in another order give other last digits.

    On a GPU attention's backward pass adds in whatever order its blocks end (of the kernels only
    flash-attn's has another way), so that there runs are alike to the last digits only.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Comes with it, and fills every buffer with NaN before it is used.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _tokenizer(spec: TrainingSpec, context: StageContext) -> Any:
    if spec.model is None:
        return None
    folder = weights_folder(
        "tokenizer", spec.model.tokenizer, paths=context.execution.paths, inputs=context.inputs
    )
    return AutoTokenizer.from_pretrained(folder)


def _roots(spec: TrainingSpec, context: StageContext) -> dict[str, Path]:
    return {source.dataset: dataset_root(context, source.dataset) for source in spec.data}


def _steps(
    spec: TrainingSpec, data: TrainingSet, tokenizer: Any, context: StageContext
) -> StepMaker:
    return StepMaker(
        data,
        seed=spec.seed,
        global_batch_size=spec.global_batch_size,
        micro_batch_size=context.execution.micro_batch_size,
        rank=context.rank,
        world_size=context.world_size,
        pad_token_id=0 if tokenizer is None else int(tokenizer.pad_token_id or 0),
        picture_side=None if spec.tower is None else spec.tower.image_size,
        micro_batch_tokens=context.execution.micro_batch_tokens if _is_packed(spec, context) else 0,
        pad_to_multiple=COMPILED_MULTIPLE if context.execution.compile else 1,
    )


def _task_inputs(spec: TrainingSpec, device: torch.device) -> Any:
    def tower(batch: MicroBatch) -> tuple[Any, ...]:
        return batch.pixels.to(device), quarter_labels(batch.texts).to(device)

    def language(batch: MicroBatch) -> tuple[Any, ...]:
        return (
            batch.input_ids.to(device),
            batch.loss_weights.to(device),
            batch.pixels.to(device),
            batch.num_pictures,
            batch.lengths,
        )

    return tower if spec.method is Method.tower else language


def _peak_memory_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _summary(
    spec: TrainingSpec, data: TrainingSet, num_steps: int, num_trainable_params: int
) -> dict[str, Any]:
    return {
        "steps": num_steps,
        "num_samples": len(data),
        "num_skipped": len(data.skipped),
        "skipped": data.skipped[:100],
        **_long_items(spec=spec, data=data),
        "num_trainable_params": num_trainable_params,
    }


def _long_items(*, spec: TrainingSpec, data: TrainingSet) -> Mapping[str, Any]:
    """What was done about long conversations, where a file says that something is to be done."""
    if all(source.on_long_item == "stop" for source in spec.data):
        return {}
    return {"long_items": data.long_items.to_json()}


def _refuse_not_finite(trainable: Trainable, context: StageContext) -> None:
    """The last step may overflow with a finite loss, which is taken before it.

    Each rank looks at what it holds, and all end if one must: under ZeRO-3 none has it all.
    """
    wrong = [
        name
        for name, parameter in trainable.task.named_parameters()
        if parameter.requires_grad and not bool(own_part(parameter).isfinite().all())
    ]
    found: list[Any] = [wrong]
    if context.world_size > 1:
        found = [None] * context.world_size
        dist.all_gather_object(found, wrong)
    if names := sorted({name for names in found for name in names}):
        raise StageError(
            f"{names[0]} is not finite after the last step; lower the learning rate "
            f"(it was at most {trainable.spec.optim.lr:g})"
        )


def _held_out(trainable: Trainable, context: StageContext, engine: Engine) -> Mapping[str, Any]:
    """A tower's accuracy on pictures it never saw, where its data set has some. Of all ranks."""
    spec = trainable.spec
    if spec.method is not Method.tower:
        return {}
    root = dataset_root(context, spec.data[0].dataset)
    if not (root / "held_out.json").exists():
        return {}
    source = replace(spec.data[0], file="held_out.json", image_folder="held_out_images")
    held = load_training_set(
        replace(spec, data=[source]),
        roots={source.dataset: root},
        tokenizer=None,
        cache=context.store.cache,
    )
    pixels = torch.from_numpy(held.pixels(range(len(held)))).to(engine.device)
    labels = quarter_labels([held[i].text for i in range(len(held))]).to(engine.device)
    trainable.task.eval()
    with engine.gathered(list(trainable.task.parameters())):
        accuracy = tower_accuracy(trainable.task, pixels, labels)  # type: ignore[arg-type]
    return {"held_out_accuracy": accuracy}
