"""Arithmetic of a step against torch's own counter, and against the paper's figures by hand.

The counter sees matrix products and convolutions, as the arithmetic does. It counts the whole
square of attention where the kernel computes all of it, which the plain ("eager") one does.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.models.flops import Work, flops_by_part, hardware_flops, mfu, model_flops
from scalesweep.models.parameters import num_language_model_params
from scalesweep.models.recompute import Recompute
from scalesweep.specs import LanguageModelSpec, LoraSpec, Method, TrainingSpec
from scalesweep.train.trainable import build_trainable
from tests.models.test_parameters import language_model, vision_tower
from tests.train.small_stages import LINEAR, LORA, PATHS, model_spec, tower_spec, training_spec
from tests.train.test_tasks import PICTURE, TEXT, batch, pixels

IMAGE = 4
PICTURE_WORK = Work.of([30], num_supervised=5, num_pictures=1)


def counted(spec: TrainingSpec, *, checkpointing: str = "none") -> int:
    """FLOPs that torch counts in forward and backward of one sample of 30 tokens, 16 of them a
    picture's, 5 of them learned."""
    made = build_trainable(
        spec,
        paths=PATHS,
        inputs={},
        tokenizer=miniature_tokenizer(),
        image_token_id=IMAGE,
        recompute=Recompute(checkpointing),
    )
    made.task.train()
    made.model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        made.task(*batch(PICTURE), pixels(1), 1).backward()
    return int(counter.get_total_flops())


def other_half(spec: TrainingSpec, work: Work, *, again: bool = False) -> int:
    """The half of the square of attention that the plain kernel computes and masks."""
    attention = flops_by_part(spec, work)["attention"]
    return attention.total + (attention.forward if again else 0)


@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
@pytest.mark.parametrize("method", [Method.full, Method.lora, Method.projector])
def test_hardware_flops_are_those_that_torch_counts(method: Method, checkpointing: str) -> None:
    spec = training_spec(method)

    flops = hardware_flops(spec, PICTURE_WORK, gradient_checkpointing=checkpointing)

    assert flops + other_half(spec, PICTURE_WORK, again=checkpointing == "full") == counted(
        spec, checkpointing=checkpointing
    )


def test_adapters_on_some_layers_cost_as_torch_counts() -> None:
    lora = LoraSpec(rank=2, alpha=4.0, dropout=0.0, targets=["q_proj", "v_proj"])
    spec = training_spec(Method.lora, lora=lora)

    flops = hardware_flops(spec, PICTURE_WORK, gradient_checkpointing="full")

    assert flops + other_half(spec, PICTURE_WORK, again=True) == counted(spec, checkpointing="full")


def test_grouped_queries_cost_as_torch_counts() -> None:
    grouped = dataclasses.replace(
        model_spec(), num_heads=4, num_kv_heads=2, weights="random", tokenizer="random"
    )
    spec = training_spec(Method.language, model=grouped)
    made = build_trainable(
        spec,
        paths=PATHS,
        inputs={},
        tokenizer=miniature_tokenizer(),
        image_token_id=-1,
    )
    made.model.set_attn_implementation("eager")
    ids, weights = batch(TEXT)
    work = Work.of([12], num_supervised=5, num_pictures=0)

    with FlopCounterMode(display=False) as counter:
        made.task(ids, weights, torch.zeros(0), 0).backward()

    # Nothing needs the gradient of what goes into the first block's keys and queries but the
    # embeddings, which learn.
    assert model_flops(spec, work) + other_half(spec, work) == counter.get_total_flops()


def test_a_learning_tower_costs_as_torch_counts() -> None:
    spec = training_spec(Method.tower)
    made = build_trainable(
        spec, paths=PATHS, inputs={}, tokenizer=None, image_token_id=-1,
    )  # fmt: skip
    made.model.set_attn_implementation("eager")
    labels = torch.zeros(2, 4, 3, dtype=torch.long)

    with FlopCounterMode(display=False) as counter:
        made.task(pixels(2), labels).backward()

    flops = model_flops(spec, Work.of([16, 16], num_supervised=0, num_pictures=2))
    # The heads are left out: 64 -> 21 or so, for 4 quarters of 2 pictures.
    assert flops == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_model_flops_leave_out_what_is_done_twice_or_for_nothing() -> None:
    spec = training_spec(Method.full)
    tower, model = tower_spec(), model_spec()

    model_only = model_flops(spec, PICTURE_WORK)
    extra = hardware_flops(spec, PICTURE_WORK, gradient_checkpointing="none") - model_only

    # The identity 32 -> 32 of 16 patches, forward and gradient; one of the tower's 4 blocks, whose
    # output nobody takes: 17 tokens, four matrices 64 x 64 and two 64 x 192, attention 17 x 17.
    h, f = tower.hidden_size, tower.intermediate_size
    block = 2 * 17 * (4 * h * h + 2 * h * f) + 4 * 17 * 17 * h
    assert extra == 4 * model.hidden_size**2 * 16 + block


def paper_spec(name: str, method: Method, lora: LoraSpec | None = None) -> TrainingSpec:
    return training_spec(method, model=language_model(name), tower=vision_tower("336px"), lora=lora)


def test_13b_at_916_tokens_by_hand() -> None:
    # arXiv:2302.13971: 40 blocks, hidden 5120, MLP 13824; 340 text and 576 image tokens.
    lora = LoraSpec(rank=64, alpha=128, dropout=0.0, targets=LINEAR)
    work = Work.of([916], num_supervised=242, num_pictures=1)
    blocks = 40 * (4 * 5120**2 + 3 * 5120 * 13824)  # 12.687e9
    attention = 6 * 916**2 * 5120 * 40  # 4 S^2 h / 2 forward, twice that backward
    output = 5120 * 32000
    adapters = 40 * 64 * (4 * (5120 + 5120) + 3 * (5120 + 13824))  # 0.2503e9
    projector = 4 * 576 * 1024 * 5120
    # 23 of the 24 blocks of ViT-L: 577 tokens, 12 h^2 weights, attention 4 S^2 h; patches of 14 px.
    vit = 23 * (2 * 577 * 12 * 1024**2 + 4 * 577**2 * 1024) + 2 * 576 * 3 * 14**2 * 1024

    full = model_flops(paper_spec("13b", Method.full), work)
    tuned = model_flops(paper_spec("13b", Method.lora, lora), work)
    aligned = model_flops(paper_spec("13b", Method.projector), work)

    frozen = 4 * (blocks * 916 + output * 242) + attention + projector + vit
    assert aligned == frozen
    assert tuned == frozen + 6 * adapters * 916
    assert full == frozen + 2 * (blocks * 916 + output * 242)
    # 6 N and 4 N of the 13.0e9 weights, near enough
    assert full / (6 * 13.0e9 * 916) == pytest.approx(1.0, abs=0.03)
    assert aligned / (4 * 13.0e9 * 916) == pytest.approx(1.0, abs=0.04)
    assert full == pytest.approx(71.5e12, rel=0.01)


@pytest.mark.parametrize("name", ["7b", "13b", "33b", "65b", "70b"])
def test_long_text_with_a_loss_on_all_of_it_costs_palms_formula(name: str) -> None:
    # arXiv:2204.02311, appendix B: 6 N + 12 L H Q T per token, N without embeddings; the square of
    # attention counts whole there.
    model: LanguageModelSpec = language_model(name)
    spec = training_spec(Method.language, model=model)
    work = Work.of([2048], num_supervised=2048, num_pictures=0)
    embeddings = model.vocab_size * model.hidden_size
    norms = (2 * model.num_layers + 1) * model.hidden_size
    weights = num_language_model_params(model) - embeddings - norms

    flops = model_flops(spec, work) + other_half(spec, work)

    assert flops == 2048 * (6 * weights + 12 * model.num_layers * model.hidden_size * 2048)


def test_packed_sequences_attend_each_to_itself() -> None:
    spec = training_spec(Method.full)
    apart = [
        flops_by_part(spec, Work.of([n], num_supervised=3, num_pictures=0))["attention"].total
        for n in (10, 20, 30)
    ]

    together = flops_by_part(spec, Work.of([10, 20, 30], num_supervised=9, num_pictures=0))

    assert together["attention"].total == sum(apart)


def test_qlora_asks_for_what_lora_does() -> None:
    lora, qlora = (training_spec(m, lora=LORA) for m in (Method.lora, Method.qlora))

    assert model_flops(lora, PICTURE_WORK) == model_flops(qlora, PICTURE_WORK)


def test_mfu_is_the_share_of_all_devices_peaks() -> None:
    # 312e12 in 2 s on 4 devices of 312e12
    assert mfu(312e12, seconds=2.0, peak_flops=312e12, num_devices=4) == pytest.approx(0.125)
