"""A whole model is published in parts: never more of it on a device at once than one part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import LlavaForConditionalGeneration

from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.models import saving
from scalesweep.specs import Method
from scalesweep.train import publish as publishing
from scalesweep.train.publish import file_names, publish, whole_weights
from scalesweep.train.trainable import Trainable, build_trainable
from tests.train.small_stages import PATHS, training_spec


def trainable(method: Method) -> Trainable:
    return build_trainable(
        training_spec(method),
        paths=PATHS,
        inputs={},
        tokenizer=miniature_tokenizer(),
        image_token_id=4,
    )


class Gathering:
    """Counts what is whole at a time."""

    def __init__(self) -> None:
        self.largest = 0
        self.seen: list[nn.Parameter] = []

    @contextmanager
    def __call__(self, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
        self.seen += parameters
        size = sum(p.numel() * p.element_size() for p in parameters)
        self.largest = max(self.largest, size)
        yield


@pytest.mark.parametrize("method", [Method.full, Method.language], ids=str)
def test_names_and_weights_are_those_that_transformers_writes(
    method: Method, tmp_path: Path
) -> None:
    made = trainable(method)
    made.model.save_pretrained(tmp_path / "stock")

    publish(made, tmp_path / "ours", gathered=Gathering(), is_main=True)

    ours, stock = (load_file(tmp_path / f / "model.safetensors") for f in ("ours", "stock"))
    assert set(ours) == set(stock)
    assert all(torch.equal(ours[name], value) for name, value in stock.items())
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"]


def test_parts_are_gathered_one_after_the_other_and_written_in_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, gathering = trainable(Method.full), Gathering()
    monkeypatch.setattr(publishing, "GATHERED_BYTES", 100_000)
    monkeypatch.setattr(publishing, "SHARD_BYTES", 300_000)

    publish(made, tmp_path, gathered=gathering, is_main=True)

    assert gathering.largest <= 100_000
    assert len(gathering.seen) == len(list(made.model.parameters()))
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    assert not (tmp_path / "model.safetensors").exists()
    again, report = LlavaForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, value in made.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_other_ranks_gather_the_same_parts_and_write_nothing(tmp_path: Path) -> None:
    made = trainable(Method.full)
    main, other = Gathering(), Gathering()
    publish(made, tmp_path / "main", gathered=main, is_main=True)

    publish(made, tmp_path / "other", gathered=other, is_main=False)

    assert [id(p) for p in other.seen] == [id(p) for p in main.seen]
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("method", [Method.lora, Method.qlora, Method.projector], ids=str)
def test_of_adapters_and_projectors_only_what_learned_is_gathered(
    method: Method, tmp_path: Path
) -> None:
    made, gathering = trainable(method), Gathering()

    publish(made, tmp_path, gathered=gathering, is_main=True)

    assert {id(p) for p in gathering.seen} == {id(p) for p in made.parameters}


def test_tied_weights_come_once() -> None:
    tied = nn.Module()
    tied.one = nn.Linear(2, 2, bias=False)
    tied.other = nn.Linear(2, 2, bias=False)
    tied.other.weight = tied.one.weight

    assert [name for name, _ in whole_weights(tied, gathered=Gathering())] == ["one.weight"]


def test_every_weight_has_one_name_in_files() -> None:
    names = file_names(trainable(Method.full).model)

    assert len(set(names.values())) == len(names)
    assert saving.SHARD_BYTES > publishing.GATHERED_BYTES
