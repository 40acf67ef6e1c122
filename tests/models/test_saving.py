"""What is written is what safetensors reads, and takes the memory of one tensor."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scalesweep.errors import StageError
from scalesweep.models.loading import shards
from scalesweep.models.saving import write_shards

STATE = {
    "a": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b": torch.tensor([1, 2, 3], dtype=torch.uint8),  # 3 bytes: what follows would be misaligned
    "c": torch.full((2, 2), 0.5, dtype=torch.bfloat16),
    "d": torch.tensor([7.0], dtype=torch.float32),
    "e": torch.zeros((0, 4), dtype=torch.float16),
    "f": torch.tensor(3.5),
}


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in wanted.items()
    )


def test_safetensors_reads_what_was_written_in_any_dtype_and_length(tmp_path: Path) -> None:
    num_bytes = write_shards(STATE.items(), tmp_path, num_tensors=len(STATE))

    assert num_bytes == 48 + 3 + 8 + 4 + 0 + 4
    assert same(load_file(tmp_path / "model.safetensors"), STATE)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_shards_keep_to_their_size_and_the_index_finds_every_tensor(tmp_path: Path) -> None:
    state = {f"w{i}": torch.full((10,), float(i)) for i in range(7)}  # 40 bytes each

    write_shards(state.items(), tmp_path, num_tensors=7, shard_bytes=100)

    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == [f"model-0000{i}-of-00004.safetensors" for i in (1, 2, 3, 4)]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text("utf-8"))
    assert index["metadata"] == {"total_size": 280}
    found = {name: shard.read(name) for shard in shards(tmp_path) for name in shard.names()}
    assert same(found, state)
    assert not list(tmp_path.glob("*.part"))


def test_a_tensor_larger_than_a_shard_gets_one_of_its_own(tmp_path: Path) -> None:
    state = {"small": torch.zeros(2), "large": torch.zeros(100), "last": torch.zeros(2)}

    write_shards(state.items(), tmp_path, num_tensors=3, shard_bytes=64)

    assert len(list(tmp_path.glob("model-*.safetensors"))) == 3


def test_what_fails_half_way_leaves_no_open_file(tmp_path: Path) -> None:
    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        yield "a", STATE["a"]
        raise StageError("cut")

    with pytest.raises(StageError, match="cut"):
        write_shards(tensors(), tmp_path, num_tensors=2)
    assert not (tmp_path / "model.safetensors").exists()


PASS_ON = """
import sys
from pathlib import Path
import torch
from scalesweep.models.loading import shards
from scalesweep.models.saving import write_shards
def anonymous_mib():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
before, most = anonymous_mib(), 0.0
def passed():
    global most
    for shard in shards(folder):
        for name in shard.names():
            tensor = shard.read(name).to(torch.float32)
            most = max(most, anonymous_mib() - before)
            yield name, tensor
write_shards(passed(), out, num_tensors=32, shard_bytes=1 << 40)
print(most)
"""


def test_memory_is_bounded_by_one_tensor_not_by_the_model(tmp_path: Path) -> None:
    # 32 tensors of 4 MiB in bf16, 8 MiB each in fp32: the whole is 256 MiB.
    state = {f"w{i}": torch.ones(1024, 2048, dtype=torch.bfloat16) for i in range(32)}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "out").mkdir()

    ended = subprocess.run(
        [sys.executable, "-c", PASS_ON, tmp_path, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert float(ended.stdout) < 100  # what torch takes to start computing is among it
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 256 << 20
