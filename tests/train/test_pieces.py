"""Pieces of parameters come back whole from the files of any number of ranks."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from scalesweep.errors import StoreError
from scalesweep.train.pieces import (
    MOMENTS,
    Piece,
    SavedPieces,
    contents,
    rank_file,
    write_tensors,
)

KINDS = ("weight", *MOMENTS)


def values(numel: int) -> dict[str, Tensor]:
    """A parameter and its moments: all numbers differ."""
    return {kind: torch.arange(numel) + 1000.0 * i for i, kind in enumerate(KINDS)}


def save(folder: Path, numel: int, cuts: list[int], *, steps: int = 3) -> SavedPieces:
    """A parameter cut at given places, each part written by a rank of its own."""
    whole = values(numel)
    ends = [0, *sorted(cuts), numel]
    for rank, (begin, end) in enumerate(itertools.pairwise(ends)):
        piece = Piece(
            name="p",
            start=begin,
            numel=numel,
            weight=whole["weight"][begin:end],
            moments={kind: whole[kind][begin:end] for kind in MOMENTS},
            steps=steps,
        )
        random = torch.full((rank + 3,), rank, dtype=torch.uint8)
        write_tensors(folder / rank_file(rank), *contents([piece], random))
    return SavedPieces(folder=folder, world_size=len(ends) - 1)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), numel=st.integers(1, 40))
def test_any_part_is_read_from_whatever_files_hold_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, numel: int
) -> None:
    cuts = data.draw(st.lists(st.integers(0, numel), max_size=5))
    start = data.draw(st.integers(0, numel))
    length = data.draw(st.integers(0, numel - start))
    saved = save(tmp_path_factory.mktemp("pieces"), numel, cuts)

    for kind, whole in values(numel).items():
        part = saved.read(kind, "p", start=start, length=length, numel=numel)
        assert part.tolist() == whole[start : start + length].tolist()


def test_each_rank_finds_its_own_generators_and_the_steps(tmp_path: Path) -> None:
    saved = save(tmp_path, 8, [3], steps=17)

    assert saved.random(1).tolist() == [1, 1, 1, 1]
    assert saved.names == {"p"}
    assert saved.steps("p") == 17


def test_a_parameter_of_another_size_is_refused(tmp_path: Path) -> None:
    saved = save(tmp_path, 8, [])

    with pytest.raises(StoreError, match="p has 8 elements and 9 in this model"):
        saved.read("weight", "p", start=0, length=1, numel=9)


def test_a_part_that_no_rank_wrote_is_missed(tmp_path: Path) -> None:
    save(tmp_path, 8, [3, 5])
    saved = SavedPieces(folder=tmp_path, world_size=2)  # without the last rank's

    with pytest.raises(StoreError, match="2 elements of exp_avg of p are missing"):
        saved.read("exp_avg", "p", start=4, length=3, numel=8)


def test_a_file_is_plain_safetensors_and_its_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    tensors = {
        "odd": torch.tensor([1, 2, 3], dtype=torch.uint8),
        "weight:p": torch.arange(5.0),
        "empty": torch.zeros(0),
        "view": torch.arange(10.0)[3:7],
    }

    file = write_tensors(tmp_path / "x.safetensors", tensors, {"pieces": json.dumps({"ü": 1})})

    loaded = load_file(tmp_path / "x.safetensors")
    assert {name: value.tolist() for name, value in loaded.items()} == {
        name: value.tolist() for name, value in tensors.items()
    }
    content = (tmp_path / "x.safetensors").read_bytes()
    assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_file_larger_than_a_chunk_is_written_whole(tmp_path: Path) -> None:
    big = torch.arange(5_000_000, dtype=torch.float32)  # 20 MB

    write_tensors(tmp_path / "x.safetensors", {"big": big}, {})

    assert torch.equal(load_file(tmp_path / "x.safetensors")["big"], big)
