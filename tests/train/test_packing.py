"""Packing changes no number: loss and gradients are those of every sample alone, unpadded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scalesweep.data.samples import TrainingSet, load_training_set
from scalesweep.data.templates import TEMPLATES
from scalesweep.data.tokenize import image_token_id
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.models.recompute import Recompute
from scalesweep.specs import DataSourceSpec, Method, TrainingSpec
from scalesweep.train.batches import MicroBatch, StepMaker
from scalesweep.train.trainable import Trainable, build_trainable
from tests.data.official_files import item, llama_like_tokenizer, write_items, write_picture
from tests.train.small_stages import LORA, PATHS, model_spec, training_spec

CAPTIONED = ("plain", "mini_caption")
"""Templates of one picture and one caption."""
WORDS = {
    "mini": ("color of circle ?", "red", "digit of square ?", "4"),
    "mini_caption": ("", "red circle 4 top left", "", "blue cross 7"),
}
TOLERANCE = 2e-6
"""Relative, of sums in fp32 in another order."""


def make_data(root: Path, template: str) -> None:
    """Five samples of unlike lengths, two of them without a picture (captions all have one)."""
    ask, say, ask_more, say_more = WORDS.get(
        template, ("Who are you ?", "I am Vicuna .", "The cup ?", "The cup is white and red .")
    )
    for number in range(3):
        write_picture(root / "images" / f"{number}.png", color=(80 * number, 30, 60))
    if template in CAPTIONED:
        said = [("<image>", say), ("<image>", say_more), ("<image>", say)]
        pictures: list[str | None] = ["0.png", "1.png", "2.png"]
    else:
        pictures = ["0.png", None, "1.png", None, "2.png"]
        said = [
            (f"<image>\n{ask}", say),
            (ask, say_more),
            (f"<image>\n{ask}", say, ask_more, say_more, ask, say),
            (ask_more, say_more, ask, say, ask_more, say),
            (f"<image>\n{ask_more}", say_more),
        ]
    items = [
        item(*turns, image=picture, item_id=str(number))
        for number, (turns, picture) in enumerate(zip(said, pictures, strict=True))
    ]
    write_items(root / "all.json", items)


def spec_of(template: str, method: Method, *, vocab_size: int) -> TrainingSpec:
    return training_spec(
        method,
        model=model_spec(vocab_size=vocab_size, weights="random", max_position_embeddings=1024),
        data=[DataSourceSpec(dataset="d", file="all.json", image_folder="images")],
        template=template,
        max_seq_len=1024,
        lora=replace(LORA, dropout=0.0) if method in (Method.lora, Method.qlora) else None,
    )


def tokenizer_of(template: str) -> Any:
    if template.startswith("mini"):
        return miniature_tokenizer()
    tokenizer = llama_like_tokenizer()
    if template == "chatml":
        words = {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]}
        tokenizer.add_special_tokens(words)
    return tokenizer


class Both:
    """One step of all samples, packed and one by one, on the same model."""

    def __init__(self, root: Path, template: str, method: Method, **built: Any) -> None:
        make_data(root, template)
        tokenizer = tokenizer_of(template)
        self.spec = spec_of(template, method, vocab_size=len(tokenizer))
        self.data: TrainingSet = load_training_set(
            self.spec, roots={"d": root}, tokenizer=tokenizer, cache=root / "cache"
        )
        self.make: Callable[[], Trainable] = lambda: build_trainable(
            self.spec,
            paths=PATHS,
            inputs={},
            tokenizer=tokenizer,
            image_token_id=image_token_id(tokenizer),
            **built,
        )

    def micro_batches(self, **changes: Any) -> list[MicroBatch]:
        settings: dict[str, Any] = {"micro_batch_size": 1, "micro_batch_tokens": 0, **changes}
        maker = StepMaker(
            self.data, seed=1, global_batch_size=len(self.data), rank=0, world_size=1,
            pad_token_id=0, picture_side=32, **settings,
        )  # fmt: skip
        return list(maker.step(range(len(self.data))).micro_batches)


def learned(made: Trainable, batches: list[MicroBatch]) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of losses and gradients of some micro-batches."""
    made.task.train()
    total = torch.zeros(())
    for batch in batches:
        loss = made.task(
            batch.input_ids, batch.loss_weights, batch.pixels, batch.num_pictures, batch.lengths
        )
        loss.backward()
        total += loss.detach()
    return total, {n: p.grad for n, p in made.task.named_parameters() if p.grad is not None}


def assert_equal(found: tuple[Tensor, Any], expected: tuple[Tensor, Any]) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=TOLERANCE, atol=0)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).abs().max() <= 5 * TOLERANCE * gradient.abs().max(), name


@pytest.mark.parametrize("template", TEMPLATES)
def test_packed_samples_learn_what_each_learns_alone(template: str, tmp_path: Path) -> None:
    method = Method.projector if template in CAPTIONED else Method.full
    both = Both(tmp_path, template, method)
    (pack,) = both.micro_batches(micro_batch_tokens=4096)
    alone = both.micro_batches()
    assert pack.lengths is not None
    assert len(pack.lengths) == len(both.data) == len(alone)
    assert len(set(pack.lengths)) > 1
    assert pack.input_ids.shape == (1, sum(pack.lengths)) == (1, pack.num_tokens)

    found, expected = (learned(both.make(), batches) for batches in ([pack], alone))

    assert expected[0] > 1.0
    assert_equal(found, expected)


@pytest.mark.parametrize("method", [Method.lora, Method.qlora, Method.projector], ids=str)
def test_every_method_learns_the_same_from_packs(method: Method, tmp_path: Path) -> None:
    both = Both(tmp_path, "vicuna_v1", method)
    packs = both.micro_batches(micro_batch_tokens=int(both.data.lengths.max()) + 60)
    assert len(packs) > 1

    assert_equal(learned(both.make(), packs), learned(both.make(), both.micro_batches()))


@pytest.mark.parametrize("recompute", [Recompute.full, Recompute.selective], ids=str)
@pytest.mark.parametrize("method", [Method.full, Method.qlora], ids=str)
def test_activations_computed_again_change_nothing(
    recompute: Recompute, method: Method, tmp_path: Path
) -> None:
    kept = Both(tmp_path / "kept", "mini", method)
    again = Both(tmp_path / "again", "mini", method, recompute=recompute)
    batches = kept.micro_batches(micro_batch_tokens=4096)

    found, expected = (learned(both.make(), batches) for both in (again, kept))

    assert torch.equal(found[0], expected[0])
    assert all(torch.equal(found[1][name], value) for name, value in expected[1].items())


def test_samples_padded_in_rows_learn_the_same_too(tmp_path: Path) -> None:
    both = Both(tmp_path, "llama_2", Method.full)
    (rows,) = both.micro_batches(micro_batch_size=5)
    assert rows.lengths is None

    assert_equal(learned(both.make(), [rows]), learned(both.make(), both.micro_batches()))


def test_a_fill_up_to_a_multiple_is_a_sample_of_its_own(tmp_path: Path) -> None:
    both = Both(tmp_path, "vicuna_v1", Method.full)
    (pack,) = both.micro_batches(micro_batch_tokens=4096)
    (filled,) = both.micro_batches(micro_batch_tokens=4096, pad_to_multiple=128)
    assert filled.lengths is not None
    assert pack.lengths is not None
    assert filled.lengths[:-1] == pack.lengths
    assert sum(filled.lengths) % 128 == 0

    assert_equal(learned(both.make(), [filled]), learned(both.make(), [pack]))
