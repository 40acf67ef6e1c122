"""FLOPs of whole stages, against sums made by hand."""

from __future__ import annotations

import dataclasses

import pytest

from scalesweep.cost_model import table4
from scalesweep.cost_model.stage_work import answering_work, data_items, training_work
from scalesweep.cost_model.token_statistics import TokenStatistics
from scalesweep.models.parameters import linear_shapes, num_language_model_params
from scalesweep.records import Execution
from scalesweep.specs import BenchmarkSpec, DataSpec, GenerateSpec, Method, Precision

LLAVA_80K = TokenStatistics(
    num_samples=80_000,
    text_tokens=80_000 * 340,
    squared_text_tokens=80_000 * 340**2,
    pictures=80_000,
    pictured_text_tokens=80_000 * 340,
    supervised=80_000 * 240,
)
RUN = table4.PUBLISHED_RUNS[-1]
MODEL = RUN.spec.model
assert MODEL is not None


def test_an_epoch_is_as_much_work_as_table_4_counts_but_for_logits() -> None:
    work = training_work(RUN.spec, Execution(cluster="", gradient_checkpointing="full"), LLAVA_80K)

    assert work.units == 1250
    # There the output layer sees all 916 tokens and every product is made again; here the 240 that
    # have a loss, and what goes into a block's last product is kept.
    assert work.flops == pytest.approx(RUN.flops, rel=0.07)
    assert work.flops < RUN.flops


def test_the_samples_of_the_last_step_that_are_borrowed_are_work_too() -> None:
    spec = dataclasses.replace(RUN.spec, global_batch_size=512)
    how = Execution(cluster="")

    found = training_work(spec, how, LLAVA_80K)

    assert found.units == 157  # 156.25 steps of 512
    whole = training_work(RUN.spec, how, LLAVA_80K)
    assert found.flops / whole.flops == pytest.approx(157 * 512 / 80_000)


def answering(num_beams: int = 1, tower: bool = True) -> GenerateSpec:
    return GenerateSpec(
        checkpoint="tune",
        method=Method.full,
        model=MODEL,
        tower=table4.TOWER if tower else None,
        blind=False,
        benchmarks=[BenchmarkSpec(name="llava_bench", dataset="llava_bench", file="q.jsonl")],
        num_beams=num_beams,
        max_new_tokens=1024,
        precision=Precision.bf16,
    )


QUESTIONS = TokenStatistics(
    num_samples=60,
    text_tokens=60 * 60,
    squared_text_tokens=60 * 60**2,
    pictures=0,
    pictured_text_tokens=0,
    supervised=60 * 100,
)


def test_a_token_that_is_read_or_written_takes_two_flops_a_weight() -> None:
    work = answering_work(answering(tower=False), QUESTIONS)

    assert MODEL is not None
    blocks = MODEL.num_layers * sum(i * o for i, o in linear_shapes(MODEL).values())
    output = MODEL.hidden_size * MODEL.vocab_size
    assert blocks + 2 * output == pytest.approx(num_language_model_params(MODEL), rel=1e-4)
    tokens = 60 * (60 + 99)  # the last token of an answer is read by nobody
    # The prompt's attention: half a square; that of an answer's token: a row as long as what is
    # before it, 60 of the prompt and half of the answer.
    pairs = 60 * (60**2 / 2) + 60 * 99 * (60 + 50)
    attention = 4 * MODEL.hidden_size * MODEL.num_layers * pairs
    assert work.flops == pytest.approx(2 * blocks * tokens + 2 * output * 60 * 100 + attention)
    assert (work.units, work.decoded) == (60, 60 * 99)


def test_beams_multiply_what_is_written_and_not_what_is_read() -> None:
    one, five = (answering_work(answering(n, tower=False), QUESTIONS) for n in (1, 5))
    read = answering_work(
        answering(tower=False), dataclasses.replace(QUESTIONS, supervised=QUESTIONS.num_samples)
    )

    assert five.flops - read.flops == pytest.approx(5 * (one.flops - read.flops))


def test_pictures_of_questions_pass_the_tower_once() -> None:
    seeing = dataclasses.replace(QUESTIONS, pictures=60, pictured_text_tokens=60 * 60)

    more = answering_work(answering(), seeing).flops - answering_work(answering(), QUESTIONS).flops

    per_picture = more / 60
    assert MODEL is not None
    blocks = MODEL.num_layers * sum(i * o for i, o in linear_shapes(MODEL).values())
    assert per_picture > 2 * blocks * 576  # its 576 tokens through the language model, and more
    assert per_picture == pytest.approx(2 * blocks * 576, rel=0.1)


def test_a_generator_makes_what_its_parameters_count() -> None:
    made = DataSpec(
        dataset="mini",
        generator="pictures",
        parameters={"seed": 300, "num_pictures": 4000, "num_text": 1000, "turns": 4},
    )

    assert data_items(made) == 5000
    assert data_items(DataSpec(dataset="x", generator=None, parameters={"files": {}})) == 0
