"""A model whose tokenizer knows no <image> and no <pad> is trained, published and asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM, set_seed

from scalesweep.evaluate.generate_stage import run
from scalesweep.launch.workers import Workers
from scalesweep.models.build import llama_config
from scalesweep.specs import BenchmarkSpec, DataSourceSpec, LanguageModelSpec, Method
from tests.data.official_files import item, llama_like_tokenizer, write_items, write_picture
from tests.evaluate.small_stages import SmallStage, answers, generate_stage
from tests.fakes.fork_server import end_fork_server
from tests.train.small_stages import PATHS, Ended, Lab, model_spec, optim_spec

QUESTION, ANSWER = "Who are you ?", "I am Vicuna ."
NUM_PICTURES = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model from nothing with its tokenizer, and pictures to learn one answer from."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = llama_like_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    set_seed(1)
    config = llama_config(vicuna_like(), tokenizer=tokenizer)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    for number in range(NUM_PICTURES):
        write_picture(folder / "data" / "images" / f"{number}.png")
    said = [
        item(f"<image>\n{QUESTION}", ANSWER, image=f"{number}.png", item_id=str(number))
        for number in range(NUM_PICTURES)
    ]
    write_items(folder / "data" / "instruct.json", said)
    question = (
        f'{{"question_id": 0, "image": "0.png", "text": "{QUESTION}", "answer": "{ANSWER}", '
        '"category": "who"}\n'
    )
    (folder / "data" / "vqa.jsonl").write_text(question, encoding="utf-8")
    return folder


def vicuna_like() -> LanguageModelSpec:
    return model_spec(
        vocab_size=len(llama_like_tokenizer()),
        max_position_embeddings=512,
        template="vicuna_v1",
        weights="hub:owner/model@main",
        tokenizer="hub:owner/model@main",
    )


def paths(root: Path) -> dict[str, str]:
    model = str(root / "model")
    return {**PATHS, "language_model": model, "tokenizer": model}


def trained(root: Path, place: Path, method: Method) -> Ended:
    end_fork_server()
    stage = Lab(workers=Workers(), data=root / "data").stage(
        place,
        method,
        model=vicuna_like(),
        template="vicuna_v1",
        data=[DataSourceSpec(dataset="train", file="instruct.json", image_folder="images")],
        global_batch_size=4,
        max_seq_len=512,
        optim=optim_spec(lr=1e-2, schedule="constant", max_steps=40),
    )
    stage.execution = replace(stage.execution, paths=paths(root))
    return stage.attempt()


@pytest.mark.parametrize("method", [Method.full, Method.lora, Method.qlora])
def test_it_says_what_it_learned(root: Path, tmp_path: Path, method: Method) -> None:
    checkpoint = trained(root, tmp_path / "train", method).output
    stage: SmallStage = generate_stage(
        tmp_path / "generate",
        method,
        {"checkpoint": checkpoint, "data:test": root / "data"},
        model=vicuna_like(),
        benchmarks=[BenchmarkSpec(name="mini_vqa", dataset="test", file="vqa.jsonl")],
        max_new_tokens=40,
    )
    context = stage.context()
    context = replace(context, execution=replace(context.execution, paths=paths(root)))

    run(context)

    (said,) = answers(context)["mini_vqa"]
    assert said.replace("▁", "") == ANSWER  # the tests' tokenizer has no decoder
