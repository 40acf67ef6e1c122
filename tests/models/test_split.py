"""A model that is split over processes says, bit for bit, what it says in one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from scalesweep.data.images import normalise
from scalesweep.data.tokenize import TextEncoder
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.errors import StageError
from scalesweep.evaluate.generation import Prompt, generate_tokens
from scalesweep.evaluate.letters import EncodedLetters, LetterChooser
from scalesweep.models.loading import OnDevice, SafetensorsShard, load_weights
from scalesweep.models.published import load_checkpoint
from scalesweep.models.replica import Replica
from scalesweep.models.split import Split
from scalesweep.specs import GenerateSpec, Method, Precision
from tests.models.checkpoints import generate_spec, tuned
from tests.models.ranks import Ranks, alone, together
from tests.train.small_stages import PATHS

TEXTS = [
    "what color is the circle ?",
    "what is the digit on the white diamond plus 3 ?",
    "who owns the circle ?",
]


def prompts(*, pictures: bool) -> list[Prompt]:
    encoder = TextEncoder(miniature_tokenizer())
    return [
        Prompt(number=n, input_ids=encoder.prompt("mini", text, num_patches=16 if pictures else 0))
        for n, text in enumerate(TEXTS)
    ]


def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return normalise(
        torch.randint(0, 256, (len(TEXTS), 3, 32, 32), generator=generator, dtype=torch.uint8)
    )


@contextmanager
def reads() -> Iterator[set[str]]:
    """Names of the weights that are read from safetensors files meanwhile."""
    names: set[str] = set()
    read = SafetensorsShard.read

    def noted(self: SafetensorsShard, name: str) -> torch.Tensor:
        names.add(name)
        return read(self, name)

    SafetensorsShard.read = noted  # type: ignore[method-assign]
    try:
        yield names
    finally:
        SafetensorsShard.read = read  # type: ignore[method-assign]


def all_answers(replica: Replica, spec: GenerateSpec, checkpoint: Path | None) -> dict[str, Any]:
    """Tokens to every kind of question, logits of a left-padded batch, and what was read."""
    with reads() as names:
        model, tokenizer = load_checkpoint(
            spec=spec,
            checkpoint=checkpoint,
            language_model=Path(PATHS["language_model"]),
            vision_tower=Path(PATHS["vision_tower"]),
            tokenizer=Path(PATHS["tokenizer"]),
            replica=replica,
        )
    found: dict[str, Any] = {"read": names, "weights": weight_names(model)}
    for pictures in (False, True) if spec.tower else (False,):
        for num_beams in (1, 5):
            found[f"pictures {pictures}, beams {num_beams}"] = generate_tokens(
                model,
                tokenizer,
                prompts(pictures=pictures),
                pixels=pixels() if pictures else None,
                num_beams=num_beams,
                max_new_tokens=6,
            )
    ids = torch.arange(5, 25).reshape(2, 10)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    with torch.no_grad():
        found["logits"] = model(input_ids=ids, attention_mask=mask).logits
    return found


def weight_names(model: Any) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def assert_equal(split: Sequence[dict[str, Any]], whole: dict[str, Any]) -> None:
    for found in split:
        for key, expected in whole.items():
            if key == "logits":
                assert torch.equal(found[key], expected)
            elif key not in ("read", "weights"):
                assert found[key] == expected, key


@pytest.mark.parametrize(
    ("method", "precision"),
    [
        (None, Precision.fp32),
        (Method.full, Precision.fp32),
        (Method.lora, Precision.fp32),
        (Method.qlora, Precision.fp32),
        (Method.full, Precision.bf16),
    ],
)
def test_two_ranks_say_bit_for_bit_what_one_says(
    tmp_path: Path, method: Method | None, precision: Precision
) -> None:
    checkpoint = None if method is None else tmp_path / "checkpoint"
    if checkpoint is not None:
        assert method is not None
        tuned(method, checkpoint)
    spec = generate_spec(method, precision=precision)
    whole = alone(all_answers, spec, checkpoint)

    split = together(tmp_path / "ranks", all_answers, 2, spec, checkpoint)

    assert_equal(split, whole)
    said = whole["pictures False, beams 1"]
    assert len({tuple(tokens) for tokens in said}) > 1  # they differ between questions
    first, last = (found["weights"] for found in split)
    assert first | last == whole["weights"]
    assert not first & last
    assert any("layers.0." in name for name in first)
    assert any("layers.1." in name for name in last)
    # nothing of the other's was read, adapters included
    for found in split:
        assert found["read"]
    assert not split[0]["read"] & split[1]["read"]
    assert split[0]["read"] | split[1]["read"] >= whole["read"]


FIVE_LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 5,
               "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 132,
               "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip


def five_layers(folder: Path, *, tied: bool) -> Path:
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(**FIVE_LAYERS, tie_word_embeddings=tied))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8)  # so that answers differ
    model.save_pretrained(folder, max_shard_size="20KB")
    return folder


def five_layers_asked(replica: Replica, folder: Path, *runs: range) -> dict[str, Any]:
    with reads() as names:
        model = load_weights(
            LlamaForCausalLM,
            folder,
            dtype=torch.float32,
            placement=Split(OnDevice(replica.device), replica, runs),
        )
    generate = {
        f"beams {beams}": generate_tokens(
            model,
            miniature_tokenizer(),
            prompts(pictures=False),
            pixels=None,
            num_beams=beams,
            max_new_tokens=8,
        )
        for beams in (1, 4)
    }
    generate["letters"] = [letters(model, share_prefix=share) for share in (False, True)]
    with torch.no_grad():
        logits = model(input_ids=torch.arange(5, 25).reshape(2, 10)).logits
    return {**generate, "logits": logits, "read": names, "weights": weight_names(model)}


def letters(model: Any, *, share_prefix: bool) -> list[dict[str, float]]:
    """Log-probabilities of letters after prompts of unequal lengths that begin alike."""
    letter_ids = {"A": 7, "B": 8, "C": 9}
    prefix = tuple(range(20, 30))
    asked = [
        EncodedLetters(
            ids=np.array([*prefix, *rest], dtype=np.int32),
            num_prefix_tokens=len(prefix),
            letter_ids=letter_ids,
            num_shots=1,
        )
        for rest in ([40, 41, 42], [50, 51, 52, 53, 54], [60])
    ]
    chooser = LetterChooser(model, share_prefix=share_prefix)
    return [*chooser.choose(asked), *chooser.choose(asked[:2])]


@pytest.mark.parametrize("tied", [False, True])
def test_three_ranks_with_unequal_parts_say_what_one_says(tmp_path: Path, tied: bool) -> None:
    folder = five_layers(tmp_path / "model", tied=tied)
    whole = alone(five_layers_asked, folder, range(5))

    runs = (range(1), range(1, 4), range(4, 5))
    split = together(tmp_path / "ranks", five_layers_asked, 3, folder, *runs)

    assert_equal(split, whole)
    assert len({tuple(tokens) for tokens in whole["beams 1"]}) > 1
    layers = [
        {name.split(".")[2] for name in found["read"] if ".layers." in name} for found in split
    ]
    assert layers == [{"0"}, {"1", "2", "3"}, {"4"}]
    other = [{name for name in found["read"] if ".layers." not in name} for found in split]
    embedding = "model.embed_tokens.weight"
    assert other == [
        {embedding},
        set(),
        {"model.norm.weight", embedding if tied else "lm_head.weight"},
    ]


def test_a_rank_refuses_a_folder_that_lacks_its_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = five_layers(tmp_path, tied=False)
    replica = Replica(rank=1, size=2)
    placement = Split(OnDevice(replica.device), replica, (range(3), range(3, 5)))
    ours = "model.layers.4.mlp.up_proj.weight"
    names = SafetensorsShard.names

    def without(self: SafetensorsShard) -> list[str]:
        return [name for name in names(self) if name != ours]

    monkeypatch.setattr(SafetensorsShard, "names", without)

    with pytest.raises(StageError, match=f"1 weights of LlamaForCausalLM are missing, {ours}"):
        load_weights(LlamaForCausalLM, folder, dtype=torch.float32, placement=placement)


def dies_or_answers(replica: Replica, folder: Path, runs: Sequence[range]) -> None:
    """The last rank is killed when it is asked for the second time."""
    model = load_weights(
        LlamaForCausalLM,
        folder,
        dtype=torch.float32,
        placement=Split(OnDevice(replica.device), replica, runs),
    )
    for asked in range(2):
        if asked and replica.is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        model(input_ids=torch.arange(5, 15)[None])


def test_a_killed_rank_ends_the_others_within_seconds(tmp_path: Path) -> None:
    folder = five_layers(tmp_path / "model", tied=False)
    ranks = Ranks(tmp_path)

    ranks.start(dies_or_answers, 3, folder, (range(2), range(2, 4), range(4, 5)))
    ranks.wait(timeout_s=60)

    codes = [process.exitcode for process in ranks.processes]
    assert codes == [1, 1, -signal.SIGKILL]
    assert all("gloo" in ranks.said(rank) for rank in (0, 1))


def what_is_agreed(replica: Replica) -> dict[str, Any]:
    return {
        "one": replica.any(replica.rank == 1),
        "none": replica.any(False),
        "first": replica.of_first({"left": [replica.rank, 7]}),
        "shared": replica.share(torch.full((2, 3), replica.rank, dtype=torch.bfloat16).T, owner=1),
    }


def test_ranks_agree_on_flags_and_values(tmp_path: Path) -> None:
    for found in together(tmp_path, what_is_agreed, 2):
        assert found["one"]
        assert not found["none"]
        assert found["first"] == {"left": [0, 7]}
        assert torch.equal(found["shared"], torch.ones(3, 2, dtype=torch.bfloat16))


def test_adapters_on_the_output_layer_are_refused_when_split(tmp_path: Path) -> None:
    tuned(Method.lora, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    state = load_file(file)
    save_file({**state, "base_model.model.lm_head.lora_A.weight": torch.zeros(4, 32)}, file)
    replica = Replica(rank=0, size=2)

    with pytest.raises(StageError, match=r"lm_head.* merge them into the weights first"):
        load_checkpoint(
            spec=generate_spec(Method.lora),
            checkpoint=tmp_path,
            language_model=Path(PATHS["language_model"]),
            vision_tower=Path(PATHS["vision_tower"]),
            tokenizer=Path(PATHS["tokenizer"]),
            replica=replica,
        )
