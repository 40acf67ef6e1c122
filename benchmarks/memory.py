"""Memory that the cost model predicts of a training step against bytes of tensors counted in one.

    python -m benchmarks memory

Counted are unique storages: parameters and their 4-bit parts, gradients, what the optimizer steps
and its moments, and every tensor that autograd saved for the backward pass. Under full
recomputation cosines and sines are held by the layers' closures, where no hook of autograd sees
them: they are counted where they are made. What selective recomputation keeps lies in a store of
its own and is not counted. The process's resident memory is only reported: it holds libraries and
what an allocator did not give back.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scalesweep.cost_model.stage_memory import training_memory
from scalesweep.cost_model.training_memory import MicroBatch
from scalesweep.records import Execution
from scalesweep.specs import (
    LanguageModelSpec,
    LoraSpec,
    Method,
    OptimSpec,
    Precision,
    TrainingSpec,
    VisionTowerSpec,
)

if TYPE_CHECKING:
    from torch import Tensor

LENGTHS, PADDED_LENGTH = (60, 48, 52, 57), 60
"""Tokens of a micro-batch's samples; padded ones are as long as the longest."""
SUPERVISED = 20
"""Last tokens of each sample."""
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IMAGE_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class Case:
    method: str
    gradient_checkpointing: str = "none"
    packed: bool = False
    precision: str = "fp32"
    zero_stage: int = 0

    def __str__(self) -> str:
        rows = "packed" if self.packed else "padded"
        return (
            f"{self.method}, {self.gradient_checkpointing}, {rows}, {self.precision}, "
            f"ZeRO-{self.zero_stage}"
        )


CASES = tuple(
    Case(method=method, gradient_checkpointing=how, packed=packed)
    for method in ("full", "lora", "qlora")
    for how in ("none", "full")
    for packed in (False, True)
) + tuple(
    Case(method=method, gradient_checkpointing=how, precision="bf16", zero_stage=zero)
    for method, how, zero in (
        ("full", "none", 0),
        ("lora", "none", 2),
        ("full", "none", 2),
    )
)


def main() -> None:
    for name, value in rows(measured(CASES)):
        print(f"{name:40s} {value}")


def measured(cases: Iterable[Case]) -> list[dict[str, Any]]:
    """Each case's {"case", "predicted", "counted", "rss"}, of a process of their own."""
    words = [sys.executable, "-m", "benchmarks.memory"]
    text = json.dumps([dataclasses.asdict(case) for case in cases])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, input=text, stdout=subprocess.PIPE, text=True, env=env, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows(found: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """A case's name, and predicted over counted of each part and of the sum."""
    for one in found:
        parts = [
            f"{name} {one['predicted'][name] / counted:.3f}"
            for name, counted in one["counted"].items()
        ]
        whole = sum(one["predicted"].values()) / sum(one["counted"].values())
        yield (
            str(Case(**one["case"])),
            f"{', '.join(parts)}; all {whole:.3f} of "
            f"{sum(one['counted'].values()) / 1e6:.2f} MB (resident {one['rss'] / 1e6:.0f} MB)",
        )


def training_spec(case: Case) -> TrainingSpec:
    """A miniature with unlike widths, so that no term stands for another."""
    return TrainingSpec(
        method=Method(case.method),
        model=LanguageModelSpec(
            name="mini", hidden_size=96, intermediate_size=256, num_layers=4, num_heads=4,
            num_kv_heads=4, vocab_size=132, max_position_embeddings=256, template="mini",
            weights="random", tokenizer="miniature",
        ),
        tower=VisionTowerSpec(
            name="clip_32px", hidden_size=64, intermediate_size=192, num_layers=4, num_heads=4,
            patch_size=8, image_size=32, feature_layer=-2, weights="miniature",
        ),
        blind=False,
        data=[],
        on_broken_item="stop",
        template="mini",
        prompt_loss_weight=0.0,
        optim=OptimSpec(
            lr=1e-3, schedule="constant", warmup_steps=0, warmup_ratio=None, weight_decay=0.0,
            betas=[0.9, 0.999], eps=1e-8, max_grad_norm=1.0, epochs=None, max_steps=10,
        ),
        global_batch_size=4,
        max_seq_len=64,
        precision=Precision(case.precision),
        seed=1,
        lora=None
        if case.method == "full"
        else LoraSpec(rank=8, alpha=16.0, dropout=0.05, targets=LINEAR),
    )  # fmt: skip


def count(case: Case) -> dict[str, Any]:
    """Predicted and counted bytes of one step in this process."""
    import torch

    from scalesweep.config.paths import miniature_path
    from scalesweep.data.tokenizer import miniature_tokenizer
    from scalesweep.models.recompute import Recompute
    from scalesweep.train.deepspeed import Engine
    from scalesweep.train.optimizer import adamw
    from scalesweep.train.trainable import build_trainable

    spec = training_spec(case)
    execution = Execution(
        cluster="local",
        device="cpu",
        zero_stage=case.zero_stage,
        gradient_checkpointing=case.gradient_checkpointing,
    )
    made = build_trainable(
        spec,
        paths={
            "tokenizer": miniature_path("tokenizer"),
            "vision_tower": miniature_path("tower_32px"),
        },
        inputs={},
        tokenizer=miniature_tokenizer(),
        image_token_id=IMAGE_TOKEN,
        recompute=Recompute(case.gradient_checkpointing),
    )
    if spec.precision is Precision.bf16:
        made.task.to(torch.bfloat16)
    engine = Engine(
        made.task,
        adamw(made.parameters, spec.optim),
        zero_stage=case.zero_stage,
        precision=spec.precision,
        max_grad_norm=1.0,
    )
    engine.task.train()
    weights = _storages(_weights(engine.task))
    batch = _batch(case.packed)
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # so that no address is used twice
        return tensor

    alive: list[Tensor] = []
    held: list[Tensor] = []
    for module in engine.task.modules():
        if type(module).__name__ == "LlamaRotaryEmbedding":
            module.register_forward_hook(lambda *args: held.extend(args[2]))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = engine.loss_sum(*batch)
    rotary = _storages(held)
    activations = sum(size for place, size in saved.items() if place not in weights)
    activations += sum(size for place, size in rotary.items() if place not in saved)
    alive.clear()
    held.clear()
    engine.backward(loss / 100, last=True)
    gradients = _storages(_gradients(engine))
    engine.step(1e-3)
    optimizer = _storages(_optimizer(engine))
    tokens = sum(LENGTHS) if case.packed else len(LENGTHS) * PADDED_LENGTH
    parts = training_memory(
        spec,
        execution,
        batch=MicroBatch(
            num_tokens=tokens,
            num_supervised=SUPERVISED * len(LENGTHS),
            num_pictures=2,
            num_rows=1 if case.packed else len(LENGTHS),
        ),
    ).parts
    engine.destroy()
    return {
        "case": dataclasses.asdict(case),
        "predicted": {
            "weights": parts["weights"],
            "gradients": parts["gradients"],
            "optimizer": parts["optimizer"],
            "activations": parts["activations"] + parts["output layer"],
        },
        "counted": {
            "weights": sum(weights.values()),
            "gradients": sum(gradients.values()),
            "optimizer": sum(v for k, v in optimizer.items() if k not in weights),
            "activations": activations,
        },
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _batch(packed: bool) -> tuple[Any, ...]:
    """Two of four samples have a picture."""
    import torch

    generator = torch.Generator().manual_seed(5)
    ids, weights = [], []
    for number, length in enumerate(LENGTHS):
        row = torch.randint(5, 132, (length,), generator=generator)
        if number < 2:
            row[1:17] = IMAGE_TOKEN
        weight = torch.zeros(length)
        weight[-SUPERVISED:] = 1.0
        ids.append(row)
        weights.append(weight)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    if packed:
        return torch.cat(ids)[None], torch.cat(weights)[None], pixels, 2, LENGTHS
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(ids, batch_first=True), pad(weights, batch_first=True), pixels, 2


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    found = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    return found


def _weights(task: Any) -> Iterator[Tensor]:
    """Parameters, and scales and codes of 4-bit ones."""
    for parameter in task.parameters():
        yield parameter.data
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield from (state.absmax, state.code, state.offset, state.state2.absmax)
            yield state.state2.code


def _gradients(engine: Any) -> Iterator[Tensor]:
    wrapper = engine._engine.optimizer
    for parameter in engine.task.parameters():
        if parameter.grad is not None:
            yield parameter.grad
    for kept in getattr(wrapper, "averaged_gradients", {}).values():
        yield from kept or ()


def _optimizer(engine: Any) -> Iterator[Tensor]:
    """What is stepped and its moments; step counts of four bytes are left out."""
    for master, state in engine._states.items():
        yield master.data
        yield from (value for value in state.values() if value.numel() > 1)


def _serve() -> None:
    import torch

    from scalesweep.launch.workers import free_port
    from scalesweep.train.deepspeed import initialise_processes

    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(free_port()))  # fmt: skip
    torch.set_num_threads(1)
    initialise_processes()
    print(json.dumps([count(Case(**one)) for one in json.load(sys.stdin)]))


if __name__ == "__main__":
    _serve()
