"""One model and method on one device, trained by our step and by LLaVA's recipe.

Run by benchmarks/gpu.py, a process for each job, so that memory is counted from nothing:
python -m benchmarks.gpu_recipes JOB.json RESULT.json

Weights are random and made on the device in their dtype; samples are drawn (length_statistics.py)
and the same for both, in the same order, with the same optimizer, at a constant learning rate.

The LLaVA recipe is transformers.Trainer (a loop that does the same where Trainer does not run) with
rows padded to the longest of a micro-batch, the model's own forward with labels, gradient
checkpointing, and pure bf16 with fp32 copies of what learns, as DeepSpeed has it. Its tower runs
without gradients, as LLaVA's does (transformers alone would recompute it and run backward through
it). Batches are made by four workers.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import math
import os
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, SequentialSampler
from transformers import CLIPVisionModel, LlamaForCausalLM, TrainerCallback

from benchmarks.drawn_set import IMAGE_TOKEN_ID, DrawnSet
from benchmarks.hf_trainer import IGNORED, Ended, InOrder, padded, train_in_rounds, trainer
from benchmarks.length_statistics import Samples, llava_80k, mixed, sharegpt
from benchmarks.plain_engine import PlainEngine, optimizer_of
from scalesweep.models.adapters import add_adapters
from scalesweep.models.attention import chosen_kernel, use_packed_attention
from scalesweep.models.build import DTYPES, assemble_llava, clip_config, llama_config
from scalesweep.models.devices import peak_bf16_flops
from scalesweep.models.flops import hardware_flops, mfu, model_flops
from scalesweep.models.output_layer import OutputLayer
from scalesweep.models.parameters import num_params, num_trainable_params
from scalesweep.models.recompute import Recompute, recompute_activations
from scalesweep.specs import Method, TrainingSpec
from scalesweep.train.batches import MicroBatch, Step, StepMaker
from scalesweep.train.checkpoint import TrainState
from scalesweep.train.loop import Hooks, train
from scalesweep.train.optimizer import adamw
from scalesweep.train.tasks import LlavaTask
from scalesweep.train.utilisation import utilisation

OURS, LLAVA = "ours", "LLaVA recipe"
WARM_UP = 2
COMPILED_MULTIPLE = 128
"""Packs are filled up to it where kernels are compiled, as a training stage does."""


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How a recipe runs; what does not apply keeps its default."""

    gradient_checkpointing: str = "full"
    """none | selective | full"""
    micro_batch_tokens: int = 0
    """Ours: tokens of a pack."""
    micro_batch_size: int = 0
    """LLaVA's recipe: rows of a padded micro-batch."""
    attention: str = "auto"
    """flash_attn | varlen | sdpa | auto: the fastest that runs"""
    compile: bool = False
    deterministic: bool = True
    """Ours: as a training stage runs. LLaVA's recipe: never."""
    deepspeed: bool = False
    """Ours: on DeepSpeed's engine, ZeRO-0, instead of a plain one."""

    def __str__(self) -> str:
        words = [f"recompute {self.gradient_checkpointing}"]
        if self.micro_batch_tokens:
            words.append(f"{self.micro_batch_tokens} tokens")
        if self.micro_batch_size:
            words.append(f"{self.micro_batch_size} rows")
        if self.attention != "auto":
            words.append(self.attention)
        if self.compile:
            words.append("compiled")
        if not self.deterministic:
            words.append("not deterministic")
        if self.deepspeed:
            words.append("DeepSpeed")
        return ", ".join(words)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One recipe on one model and method."""

    spec: TrainingSpec
    recipe: str
    device: str
    modes: Sequence[Mode]
    """Tried in turn; modes that need more memory than one that did not fit are left out."""
    best_of: Sequence[Mode] = ()
    """What to change about the best of the modes: attention, compile, deterministic, deepspeed."""
    samples_per_step: int = 16
    steps: int = 5
    mix: bool = False
    """With ShareGPT."""
    shrink: int = 1
    """Text is 1 / shrink as long: the self-check."""
    seed: int = 1
    deadline: float = math.inf
    """No mode begins after it (time.time())."""

    def to_json(self) -> dict[str, Any]:
        deadline = None if math.isinf(self.deadline) else self.deadline
        return {**asdict(self), "spec": self.spec.to_identity(), "deadline": deadline}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        modes = {name: [Mode(**mode) for mode in data[name]] for name in ("modes", "best_of")}
        return cls(
            **{
                **data,
                **modes,
                "spec": TrainingSpec.from_identity(data["spec"]),
                "deadline": data["deadline"] or math.inf,
            }
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one mode gave."""

    mode: Mode
    fits: bool
    error: str = ""
    """Why it did not run, other than for memory."""
    engine: str = ""
    """plain | DeepSpeed | HF Trainer | loop"""
    kernel: str = ""
    """Of attention."""
    seconds: list[float] = field(default_factory=list)
    """Of each timed step."""
    samples_per_second: float = math.nan
    """Median of the steps."""
    spread: tuple[float, float] = (math.nan, math.nan)
    """Slowest and fastest step, in samples per second."""
    tokens_per_second: float = math.nan
    """Without padding."""
    model_tflops_per_second: float = math.nan
    mfu: float | None = None
    """None where the device's peak is not known."""
    hfu: float | None = None
    peak_allocated_gib: float = 0.0
    peak_reserved_gib: float = 0.0
    losses: list[float] = field(default_factory=list)
    """Of every step, warm-up included."""

    def to_json(self) -> dict[str, Any]:
        """NaN, which JSON has not, as null."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


def run(job: Job) -> Iterator[Measured]:
    """Measure every mode, on one model."""
    if least_memory_bytes(job.spec) > _memory_bytes(job.device):
        yield Measured(mode=job.modes[0], fits=False)
        return
    bench = _Bench(job)
    found: list[Measured] = []
    for mode in job.modes:
        if not any(_needs_no_less(mode, other.mode) for other in found if not other.fits):
            if time.time() > job.deadline:
                return
            found.append(bench.measure(mode))
            yield found[-1]
    fitting = [one for one in found if one.fits and not one.error]
    best = max(fitting, key=lambda one: one.samples_per_second, default=None)
    for change in job.best_of if best else ():
        if time.time() > job.deadline:
            return
        yield bench.measure(_changed(best.mode, change))


def least_memory_bytes(spec: TrainingSpec) -> int:
    """What no mode can do without: weights in 16 bits; of what learns gradients, and copies and two
    moments in fp32. A 4-bit base is made of one in 16 bits here."""
    return 2 * num_params(spec.model, spec.tower) + 14 * num_trainable_params(spec)


def _memory_bytes(device: str) -> float:
    if torch.device(device).type != "cuda":
        return math.inf
    return float(torch.cuda.get_device_properties(device).total_memory)


def _needs_no_less(mode: Mode, other: Mode) -> bool:
    """Whether a mode takes at least the memory of another."""
    order = ["full", "selective", "none"]
    return (
        order.index(mode.gradient_checkpointing) >= order.index(other.gradient_checkpointing)
        and mode.micro_batch_tokens >= other.micro_batch_tokens
        and mode.micro_batch_size >= other.micro_batch_size
    )


def _changed(mode: Mode, change: Mode) -> Mode:
    """A mode with another's attention, compile, deterministic and deepspeed."""
    return replace(
        mode,
        attention=change.attention,
        compile=change.compile,
        deterministic=change.deterministic,
        deepspeed=change.deepspeed,
    )


class _Clock:
    """Marks between steps: CUDA events on a GPU, the wall clock elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[Any] = []

    def mark(self) -> None:
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Between each mark and the next."""
        if self._cuda:
            torch.cuda.synchronize()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [a.elapsed_time(b) / 1e3 if self._cuda else b - a for a, b in pairs]


class _Bench:
    """The model of a job, and its samples."""

    def __init__(self, job: Job) -> None:
        self.job, self.spec = job, job.spec
        self.device = torch.device(job.device)
        self.dtype = DTYPES[job.spec.precision]
        assert job.spec.model is not None
        assert job.spec.tower is not None
        self.data: Any = DrawnSet(
            _samples(job),
            vocab_size=job.spec.model.vocab_size,
            num_patches=job.spec.tower.num_patches,
            picture_side=job.spec.tower.image_size,
            seed=job.seed,
        )
        self.works = [step.work for step in self._steps(Mode())[WARM_UP:]]
        """Of the timed steps"""
        torch.manual_seed(job.seed)
        self.model = _model(job.spec, self.device, self.dtype)
        self.llava = (
            self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        )
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        if job.recipe == OURS:
            use_packed_attention(self.llava.model.language_model)
            self.llava.lm_head = OutputLayer.of(self.llava.lm_head)
        else:
            # As LLaVA's own code does; the class would recompute it and run backward through it.
            tower = self.llava.model.vision_tower
            tower.forward = torch.no_grad()(tower.forward)
        self.start = [p.detach().to("cpu", copy=True) for p in self.parameters]

    def measure(self, mode: Mode) -> Measured:
        """Steps of one mode from the same weights; "does not fit" is a result too."""
        with torch.no_grad():
            for parameter, start in zip(self.parameters, self.start, strict=True):
                parameter.copy_(start)
        torch.manual_seed(self.job.seed)  # dropout
        _forget(self.device, reset=True)
        try:
            measure = self._ours if self.job.recipe == OURS else self._llava
            found = measure(mode)
        except torch.OutOfMemoryError:
            found = Measured(mode=mode, fits=False)
        except Exception as error:  # the other modes of an hour on a rented GPU must go on
            traceback.print_exc()
            found = Measured(mode=mode, fits=True, error=f"{type(error).__name__}: {error}")
        for parameter in self.parameters:
            parameter.grad = None
        _forget(self.device)
        return found

    def _ours(self, mode: Mode) -> Measured:
        """The loop of a training stage."""
        kernel = chosen_kernel(mode.attention, self.device, self.dtype)
        language_model = self.llava.model.language_model
        for layer in language_model.layers:
            layer.gradient_checkpointing = False
        recompute_activations(language_model, Recompute(mode.gradient_checkpointing))
        task = LlavaTask(self.model, blind=False, kernel=kernel).train()
        steps = self._steps(mode)
        clock, losses = _Clock(self.device), list[float]()

        def log(row: Any) -> None:
            losses.append(float(row["loss"]))
            clock.mark()

        hooks = Hooks(
            inputs=self._inputs,
            log=log,
            save=lambda _: None,
            save_due=lambda _: False,
            finish=lambda: None,
            stop_requested=lambda: False,
            peak_memory_bytes=lambda: 0,
            utilisation=partial(utilisation, self.spec, num_devices=1, peak_flops=None),
        )
        engine = self._deepspeed(task) if mode.deepspeed else self._plain(task)
        with _deterministic(mode.deterministic), _fused(language_model, mode.compile):
            train(
                engine,
                iter(steps),
                TrainState(),
                optim=self.spec.optim,
                num_steps=len(steps),
                world_size=1,
                hooks=hooks,
            )
        # The first mark is the end of the first step.
        return self._measured(mode, clock.seconds()[WARM_UP - 1 :], losses, engine.name, kernel)

    def _plain(self, task: torch.nn.Module) -> Any:
        return PlainEngine(
            task,
            optimizer_of(self.parameters, self.spec.optim),
            max_grad_norm=self.spec.optim.max_grad_norm,
        )

    def _deepspeed(self, task: torch.nn.Module) -> Any:
        from scalesweep.launch.workers import free_port
        from scalesweep.train.deepspeed import Engine, initialise_processes

        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
                          MASTER_PORT=str(free_port()))  # fmt: skip
        initialise_processes()
        engine: Any = Engine(
            task,
            adamw(self.parameters, self.spec.optim),
            zero_stage=0,
            precision=self.spec.precision,
            max_grad_norm=self.spec.optim.max_grad_norm,
        )
        engine.name = "DeepSpeed"
        return engine

    def _steps(self, mode: Mode) -> list[Step]:
        """Made beforehand: a stage makes them beside the device's work."""
        assert self.spec.tower is not None
        maker = StepMaker(
            self.data,
            seed=self.job.seed,
            global_batch_size=self.job.samples_per_step,
            micro_batch_size=1,
            micro_batch_tokens=mode.micro_batch_tokens,
            pad_to_multiple=COMPILED_MULTIPLE if mode.compile else 1,
            rank=0,
            world_size=1,
            pad_token_id=0,
            picture_side=self.spec.tower.image_size,
        )
        endless = maker.steps(samples_seen=0)
        return [next(endless) for _ in range(WARM_UP + self.job.steps)]

    def _inputs(self, batch: MicroBatch) -> tuple[Any, ...]:
        return (
            batch.input_ids.to(self.device),
            batch.loss_weights.to(self.device),
            batch.pixels.to(self.device),
            batch.num_pictures,
            batch.lengths,
        )

    def _llava(self, mode: Mode) -> Measured:
        """LLaVA's recipe: padded rows, the class's own forward."""
        kernel = "sdpa"
        if self.device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None:
            kernel = "flash_attention_2"
        self.llava.set_attn_implementation(kernel)
        clock, losses = _Clock(self.device), list[float]()
        engine = "HF Trainer" if importlib.util.find_spec("accelerate") is not None else "loop"
        run = self._hf_trainer if engine == "HF Trainer" else self._loop
        run(mode, clock, losses)
        return self._measured(mode, clock.seconds()[WARM_UP:], losses, engine, kernel)

    def _hf_trainer(self, mode: Mode, clock: _Clock, losses: list[float]) -> None:
        found = list[torch.Tensor]()
        steps = WARM_UP + self.job.steps
        passes = -(-self.job.samples_per_step // mode.micro_batch_size)
        with tempfile.TemporaryDirectory() as scratch:
            made = trainer(
                self.model,
                self.data,
                optim=self.spec.optim,
                num_steps=steps + 1,
                micro_batch_size=mode.micro_batch_size,
                gradient_accumulation_steps=passes,
                pad_token_id=0,
                seed=self.job.seed,
                scratch=Path(scratch),
                callbacks=[_Marks(clock, steps)],
                optimizer=optimizer_of(self.parameters, self.spec.optim),
                dtype=self.dtype,
                on_loss=found.append,
                use_cpu=self.device.type == "cpu",
                gradient_checkpointing=mode.gradient_checkpointing == "full",
                gradient_checkpointing_kwargs={"use_reentrant": False},
                dataloader_num_workers=4 if self.device.type == "cuda" else 0,
            )
            train_in_rounds(made)
        for step in range(steps):
            losses.append(sum(float(loss) for loss in found[step * passes : (step + 1) * passes]))

    def _loop(self, mode: Mode, clock: _Clock, losses: list[float]) -> None:
        """The same without Trainer (accelerate is missing)."""
        if mode.gradient_checkpointing == "full":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.model.gradient_checkpointing_enable({"use_reentrant": False})
        engine = PlainEngine(
            self.model.train(),
            optimizer_of(self.parameters, self.spec.optim),
            max_grad_norm=self.spec.optim.max_grad_norm,
        )
        data = InOrder(self.data, seed=self.job.seed)
        loader = iter(
            DataLoader(
                data,
                batch_size=mode.micro_batch_size,
                sampler=SequentialSampler(data),
                collate_fn=partial(padded, pad_token_id=0, dtype=self.dtype),
                num_workers=4 if self.device.type == "cuda" else 0,
            )
        )
        passes = -(-self.job.samples_per_step // mode.micro_batch_size)
        for _ in range(WARM_UP + self.job.steps):
            batches = [next(loader) for _ in range(passes)]
            clock.mark()
            count = sum(int((b["labels"][:, 1:] != IGNORED).sum()) for b in batches)
            total = 0.0
            for batch in batches:
                there = {name: value.to(self.device) for name, value in batch.items()}
                loss = self.model(**there, use_cache=False, num_items_in_batch=count).loss
                engine.backward(loss, last=True)
                total += float(loss.detach())
            engine.step(self.spec.optim.lr)
            losses.append(total)
        clock.mark()

    def _measured(
        self, mode: Mode, seconds: list[float], losses: list[float], engine: str, kernel: str
    ) -> Measured:
        size, works = self.job.samples_per_step, self.works
        assert len(seconds) == len(works), (len(seconds), len(works))
        speeds = [size / s for s in seconds]
        flops = sum(model_flops(self.spec, work) for work in works)
        computed = sum(
            hardware_flops(self.spec, w, gradient_checkpointing=mode.gradient_checkpointing)
            for w in works
        )
        on_gpu = self.device.type == "cuda"
        peak = peak_bf16_flops(torch.cuda.get_device_name(self.device)) if on_gpu else None
        share = partial(mfu, seconds=sum(seconds), peak_flops=peak or math.nan, num_devices=1)
        return Measured(
            mode=mode,
            fits=True,
            engine=engine,
            kernel=str(kernel),
            seconds=seconds,
            samples_per_second=statistics.median(speeds),
            spread=(min(speeds), max(speeds)),
            tokens_per_second=sum(w.num_tokens for w in works) / sum(seconds),
            model_tflops_per_second=flops / sum(seconds) / 1e12,
            mfu=share(flops) if peak else None,
            hfu=share(computed) if peak else None,
            peak_allocated_gib=torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0,
            peak_reserved_gib=torch.cuda.max_memory_reserved() / 2**30 if on_gpu else 0.0,
            losses=losses,
        )


class _Marks(TrainerCallback):
    """Marks the beginning of every step, when its batches are there; ends after so many."""

    def __init__(self, clock: _Clock, steps: int) -> None:
        self._clock, self._steps = clock, steps

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._clock.mark()
        if self._steps == 0:
            raise Ended
        self._steps -= 1


class _NoTokens:
    """llama_config asks a tokenizer for these."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2


def _model(spec: TrainingSpec, device: torch.device, dtype: torch.dtype) -> Any:
    """A LLaVA of random weights on the device, with exactly what the method trains learning."""
    assert spec.model is not None
    assert spec.tower is not None
    with _made_on(device, dtype):
        language_model = LlamaForCausalLM(llama_config(spec.model, tokenizer=_NoTokens()))
        tower = CLIPVisionModel(clip_config(spec.tower))
    model: Any = assemble_llava(
        language_model, tower, spec.tower, image_token_id=IMAGE_TOKEN_ID, seed=spec.seed
    ).to(device)
    model.requires_grad_(False)
    if spec.method is Method.full:
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)
        model.model.multi_modal_projector.linear_1.requires_grad_(True)
    else:
        assert spec.lora is not None
        if spec.method is Method.qlora:
            from scalesweep.models.quantization import quantize_language_model

            quantize_language_model(model, compute_dtype=dtype)
        model = add_adapters(model, spec.lora)
    learning = [p for p in model.parameters() if p.requires_grad]
    for parameter in learning:  # peft makes adapters fp32
        parameter.data = parameter.data.to(device, dtype)
    assert sum(p.numel() for p in learning) == num_trainable_params(spec)
    return model


@contextlib.contextmanager
def _made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def _samples(job: Job) -> Samples:
    assert job.spec.tower is not None
    count = (WARM_UP + job.steps + 1) * job.samples_per_step
    patches = job.spec.tower.num_patches
    samples = llava_80k(count, seed=job.seed, num_patches=patches)
    if job.mix:
        text = sharegpt(count, seed=job.seed)
        both = mixed(samples, text, seed=job.seed)
        samples = Samples(
            lengths=both.lengths[:count],
            supervised=both.supervised[:count],
            has_image=both.has_image[:count],
        )
    if job.shrink == 1:
        return samples
    image = np.where(samples.has_image, patches, 0)
    text_tokens = np.maximum((samples.lengths - image) // job.shrink, 4)
    return Samples(
        lengths=image + text_tokens,
        supervised=np.clip(samples.supervised // job.shrink, 1, text_tokens - 2),
        has_image=samples.has_image,
    )


@contextlib.contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """As a training stage sets it; some kernels have a slower deterministic form."""
    before = torch.are_deterministic_algorithms_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(wanted, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=True)


@contextlib.contextmanager
def _fused(language_model: Any, wanted: bool) -> Iterator[None]:
    """Compiled element-wise parts, taken away afterwards."""
    if not wanted:
        yield
        return
    from transformers.models.llama import modeling_llama

    from scalesweep.models.elementwise import fuse_elementwise

    rotation = modeling_llama.apply_rotary_pos_emb
    fuse_elementwise(language_model)
    try:
        yield
    finally:
        modeling_llama.apply_rotary_pos_emb = rotation
        for module in language_model.modules():
            if type(module).__name__ in ("LlamaRMSNorm", "LlamaMLP"):
                module.__dict__.pop("forward", None)


def _forget(device: torch.device, *, reset: bool = False) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        if reset:
            torch.cuda.reset_peak_memory_stats()


def main(job_file: str, result_file: str) -> None:
    """Do a job; the result is written anew after every mode, so that a death loses one."""
    job = Job.from_json(json.loads(Path(job_file).read_text(encoding="utf-8")))
    found = []
    for measured in run(job):
        found.append(measured.to_json())
        Path(result_file).write_text(json.dumps(found), encoding="utf-8")
        print(f"  {job.recipe}, {measured.mode}: "
              f"{measured.error or _speed(measured)}", flush=True)  # fmt: skip


def _speed(measured: Measured) -> str:
    return f"{measured.samples_per_second:.2f} samples/s" if measured.fits else "does not fit"


if __name__ == "__main__":
    main(*sys.argv[1:])
