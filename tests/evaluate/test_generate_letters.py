"""Questions that are answered by the likeliest letter, through the whole stage."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, set_seed

from scalesweep.cost_model.token_cache import kept_statistics
from scalesweep.cost_model.token_statistics import questions_key
from scalesweep.evaluate.benchmarks.registry import benchmark
from scalesweep.evaluate.generate_stage import run
from scalesweep.evaluate.judge_stage import read_answers
from scalesweep.models.build import llama_config
from scalesweep.rundir import read_json
from scalesweep.specs import BenchmarkSpec, LanguageModelSpec
from scalesweep.stages import StageContext
from tests.data.official_files import llama_like_tokenizer
from tests.evaluate.official import SAMPLES
from tests.evaluate.small_stages import SmallStage, generate_stage, rows
from tests.train.small_stages import PATHS, model_spec

MMLU = BenchmarkSpec(name="mmlu", dataset="test", file="test", options={"shots": 2})
TOKENIZER = llama_like_tokenizer(extra=["▁Answer:", "▁A", "▁B", "▁C", "▁D"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model from nothing, with LLaMA's kind of tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    TOKENIZER.save_pretrained(folder)
    set_seed(1)
    LlamaForCausalLM(llama_config(spec(), tokenizer=TOKENIZER)).save_pretrained(folder)
    return folder


def spec() -> LanguageModelSpec:
    return model_spec(
        vocab_size=len(TOKENIZER),
        max_position_embeddings=2048,
        template="vicuna_v1",
        weights="hub:owner/model@main",
        tokenizer="hub:owner/model@main",
    )


def answered(folder: Path, place: Path, *, ranks: int, batch_size: int) -> StageContext:
    stage: SmallStage = generate_stage(
        place, None, {"data:test": SAMPLES / "mmlu"}, benchmarks=[MMLU], model=spec()
    )
    stage.micro_batch_size = batch_size
    context = stage.context(world_size=ranks)
    paths = {**PATHS, "language_model": str(folder), "tokenizer": str(folder)}
    context = replace(context, execution=replace(context.execution, paths=paths))
    for rank in reversed(range(ranks)):
        run(replace(context, rank=rank))
    return context


def published(context: StageContext) -> Path:
    return context.attempt.output / "answers" / "mmlu.jsonl"


def test_the_likeliest_letter_is_the_answer(folder: Path, tmp_path: Path) -> None:
    context = answered(folder, tmp_path, ranks=1, batch_size=4)

    said = rows(published(context))
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    questions = benchmark("mmlu", SAMPLES / "mmlu", MMLU.file, MMLU.options).questions
    assert [row["question_id"] for row in said] == [q.question_id for q in questions]
    letter_ids = TOKENIZER.convert_tokens_to_ids(["▁A", "▁B", "▁C", "▁D"])
    for row, question in zip(said, questions, strict=True):
        assert question.letters is not None
        asked = question.letters
        text = asked.header + "".join(asked.shots[: row["shots"]]) + asked.question
        ids = torch.tensor([TOKENIZER(text)["input_ids"]])
        with torch.no_grad():
            expected = model(ids).logits[0, -1].log_softmax(-1)[letter_ids].tolist()
        assert list(row["log_probs"].values()) == pytest.approx(expected, abs=1e-4)
        assert row["text"] == "ABCD"[expected.index(max(expected))]
        assert row["num_tokens"] == 0
        assert math.isclose(max(row["log_probs"].values()), row["log_probs"][row["text"]])
    times = read_json(context.attempt.path / "generation.json")["benchmarks"]["mmlu"]
    assert (times["answers"], times["tokens"], times["tokens_per_second"]) == (len(said), 0, None)
    assert times["seconds"] > 0
    kept = kept_statistics(context.store.cache, questions_key(context.spec))
    assert kept is not None  # one look for each: no other benchmark's tokens stand for it
    assert (kept.num_samples, kept.supervised) == (len(said), len(said))


def test_several_ranks_and_other_batches_choose_the_same(folder: Path, tmp_path: Path) -> None:
    one = answered(folder, tmp_path / "1", ranks=1, batch_size=4)
    three = answered(folder, tmp_path / "3", ranks=3, batch_size=2)

    assert read_answers(published(one)) == read_answers(published(three))
    assert len(list(three.attempt.path.glob("answered-*.jsonl"))) == 3
