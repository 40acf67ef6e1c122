"""A checkpoint that is larger than what a process may take, and the memory that loading it takes.

python -m tests.models.big_checkpoint MODE FOLDER
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
VALUES = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 2,
          "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 512}  # fmt: skip
NUM_BYTES = 4 * (2 * (4 * 2048 * 2048 + 3 * 2048 * 5632 + 2 * 2048) + 2048 + 2 * 512 * 2048)


def write(folder: Path, **changes: int) -> Path:
    """A LLaMA in fp32, one shard a layer; no more than a shard is ever in memory."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**{**VALUES, **changes})
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {n: p.shape for n, p in LlamaForCausalLM(config).named_parameters()}
    numbers = torch.randn(4099, generator=torch.Generator().manual_seed(1)) / 40
    where: dict[str, str] = {}
    for layer in [f"layers.{i}." for i in range(config.num_hidden_layers)] + [""]:
        names = [n for n in shapes if n not in where and layer in n]
        file = f"model-{len(set(where.values())):05d}.safetensors"
        state = {}
        for i, name in enumerate(names):
            size = shapes[name].numel()
            tiled = numbers.roll(i).repeat(math.ceil(size / len(numbers)))[:size]
            state[name] = tiled.view(shapes[name])
            where[name] = file
        save_file(state, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


@dataclass
class Growth:
    """Of a process's own (anonymous) memory, mapped files not counted."""

    peak_bytes: int = 0


@contextmanager
def watched(every_s: float = 0.001) -> Iterator[Growth]:
    """Largest growth while in here; looked at in a thread, and once more at the end."""
    growth, before, ended = Growth(), anonymous_bytes(), threading.Event()

    def look() -> None:
        growth.peak_bytes = max(growth.peak_bytes, anonymous_bytes() - before)

    def keep_looking() -> None:
        while not ended.wait(every_s):
            look()

    thread = threading.Thread(target=keep_looking)
    thread.start()
    try:
        yield growth
    finally:
        ended.set()
        thread.join()
        look()


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon in /proc/self/status")


def loaded_alone(mode: str, folder: Path) -> int:
    """Growth in bytes of a process that loads a folder in one of MODES."""
    (growth,) = loaded(mode, folder, num_ranks=1)
    return growth


def loaded(mode: str, folder: Path, *, num_ranks: int, timeout_s: float = 120) -> list[int]:
    """Growth in bytes of each of some ranks that load a folder together."""
    from scalesweep.launch.workers import free_port

    shared = {
        "WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.models.big_checkpoint", mode, str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    until = time.monotonic() + timeout_s
    try:
        said = [p.communicate(timeout=max(1, until - time.monotonic())) for p in processes]
    finally:
        for process in processes:
            process.kill()
    assert {p.returncode for p in processes} == {0}, "\n".join(err[-3000:] for _, err in said)
    return [int(out.splitlines()[-1]) for out, _ in said]


def main(words: Sequence[str]) -> None:
    mode, folder = words[0], Path(words[1])
    print(MODES[mode](folder))


def whole(folder: Path) -> int:
    import torch
    from transformers import LlamaForCausalLM

    from scalesweep.models.loading import load_weights

    with watched() as growth:
        load_weights(LlamaForCausalLM, folder, dtype=torch.float32)
    return growth.peak_bytes


def from_a_state_dict(folder: Path) -> int:
    import torch
    from safetensors.torch import load_file
    from transformers import LlamaForCausalLM

    from scalesweep.models.loading import load_weights

    with watched() as growth:
        files = sorted(folder.glob("*.safetensors"))
        state = {k: v.clone() for file in files for k, v in load_file(file).items()}
        load_weights(LlamaForCausalLM, folder, dtype=torch.float32).load_state_dict(state)
    return growth.peak_bytes


def four_bit(folder: Path) -> int:
    import torch
    from transformers import LlamaForCausalLM

    from scalesweep.models.loading import ON_CPU, load_weights
    from scalesweep.models.quantization import FourBit, nf4_weight

    nf4_weight(torch.ones(64, 64))  # what the library takes once
    placement = FourBit(ON_CPU.device, torch.float32)
    with watched() as growth:
        load_weights(LlamaForCausalLM, folder, dtype=torch.float32, placement=placement)
    return growth.peak_bytes


def four_bit_of_a_whole_one(folder: Path) -> int:
    import torch
    from transformers import LlamaForCausalLM

    from scalesweep.models.loading import load_weights
    from scalesweep.models.quantization import nf4_weight

    nf4_weight(torch.ones(64, 64))
    with watched() as growth:
        model = load_weights(LlamaForCausalLM, folder, dtype=torch.float32)
        for module in model.model.modules():
            if type(module) is torch.nn.Linear:
                module.weight = nf4_weight(module.weight.data)
    return growth.peak_bytes


def sharded(folder: Path) -> int:
    """Each weight must then be split, and, made whole again, be that of the files."""
    import deepspeed
    import torch
    from transformers import LlamaForCausalLM

    from scalesweep.models.loading import load_weights, shards
    from scalesweep.specs import Precision
    from scalesweep.train.deepspeed import initialise_processes, weight_placement

    initialise_processes()
    placement = weight_placement(3, Precision.fp32)
    torch.distributed.broadcast(torch.zeros(1), src=0)  # what the library takes once
    with watched() as growth:
        model = load_weights(LlamaForCausalLM, folder, dtype=torch.float32, placement=placement)
    parameters = dict(model.named_parameters())
    assert sum(p.numel() for p in parameters.values()) == 0
    for shard in shards(folder):
        for name in shard.names():
            with deepspeed.zero.GatheredParameters([parameters[name]]):
                assert torch.equal(parameters[name], shard.read(name)), name
    return growth.peak_bytes


def second_half(folder: Path) -> int:
    """As the second of two ranks loads its part; without a word to the first."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from scalesweep.models.loading import ON_CPU, load_weights
    from scalesweep.models.replica import Replica
    from scalesweep.models.split import Split

    layers = LlamaConfig.from_pretrained(folder).num_hidden_layers
    runs = (range(layers // 2), range(layers // 2, layers))
    placement = Split(ON_CPU, Replica(rank=1, size=2), runs)
    with watched() as growth:
        load_weights(LlamaForCausalLM, folder, dtype=torch.float32, placement=placement)
    return growth.peak_bytes


def split_after_a_whole_load(folder: Path) -> int:
    import deepspeed
    import torch
    from transformers import LlamaForCausalLM

    from scalesweep.models.loading import load_weights
    from scalesweep.specs import Precision
    from scalesweep.train.deepspeed import engine_config, initialise_processes

    initialise_processes()
    torch.distributed.broadcast(torch.zeros(1), src=0)
    config = engine_config(3, Precision.fp32, 1.0, num_trained_params=1)
    with watched() as growth:
        model = load_weights(LlamaForCausalLM, folder, dtype=torch.float32)
        deepspeed.zero.Init(module=model, config_dict_or_path=config, dtype=torch.float32)
    return growth.peak_bytes


MODES: dict[str, Callable[[Path], int]] = {
    "whole": whole,
    "whole, from a state dict": from_a_state_dict,
    "4-bit": four_bit,
    "4-bit of a whole one": four_bit_of_a_whole_one,
    "second half": second_half,
    "sharded": sharded,
    "sharded after a whole load": split_after_a_whole_load,
}


if __name__ == "__main__":
    main(sys.argv[1:])
