"""Whole small training stages: what learns, what is published, and what plain libraries load."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import CLIPVisionModel, LlamaForCausalLM, LlavaForConditionalGeneration

from scalesweep.data.miniature import generate
from scalesweep.models.build import assemble_llava, load_language_model, load_vision_tower
from scalesweep.models.quantization import quantize_language_model
from scalesweep.rundir import output_files, read_json
from scalesweep.specs import Method, Precision
from tests.train.small_stages import PATHS, Ended, Lab, SmallStage, model_spec, tower_spec

NUM_PARAMS = {
    Method.tower: 180_608,
    Method.language: 35_232,
    Method.projector: 65 * 32,
    Method.full: 35_232 + 65 * 32,
    # rank 4 x (4 attention layers of 32 + 32, 3 of 32 + 96) x 2 blocks, and the projector
    Method.lora: 4 * (4 * 64 + 3 * 128) * 2 + 65 * 32,
    Method.qlora: 4 * (4 * 64 + 3 * 128) * 2 + 65 * 32,
}
Stages = Callable[[Method], tuple[SmallStage, Ended]]


@pytest.fixture(scope="module")
def ended(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A stage of each method, run once, on an aligned projector where there is one."""
    made: dict[Method, tuple[SmallStage, Ended]] = {}

    def stage(method: Method) -> tuple[SmallStage, Ended]:
        if method not in made:
            tuned = method in (Method.full, Method.lora, Method.qlora)
            inputs = {"align": stage(Method.projector)[1].output} if tuned else {}
            root = tmp_path_factory.mktemp(str(method))
            small = lab.stage(root, method, inputs=inputs)
            made[method] = small, small.attempt(runner="tests.train.remembering")
        return made[method]

    return stage


def shipped(name: str) -> dict[str, torch.Tensor]:
    """Weights before training, as fp32."""
    state = load_file(Path(PATHS[name]) / "model.safetensors")
    return {key: value.float() for key, value in state.items()}


def published(run: Ended, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(run.output / name)


def plain_llava(*, quantised: bool = False) -> LlavaForConditionalGeneration:
    """The base that adapters belong to."""
    model = assemble_llava(
        load_language_model(model_spec(), Path(PATHS["language_model"]), dtype=torch.float32),
        load_vision_tower(tower_spec(), Path(PATHS["vision_tower"]), dtype=torch.float32),
        tower_spec(),
        image_token_id=4,
        seed=99,  # its projector is not the one that was trained
    )
    if quantised:
        quantize_language_model(model, compute_dtype=torch.float32)
    return model


@pytest.mark.parametrize("method", list(Method))
def test_every_method_learns_and_counts_what_learns(ended: Stages, method: Method) -> None:
    _, run = ended(method)
    losses = list(run.losses.values())

    assert list(run.losses) == list(range(1, 9))
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-3:]) < sum(losses[:3])
    assert run.summary["num_trainable_params"] == NUM_PARAMS[method]


@pytest.mark.parametrize("method", list(Method))
def test_a_stage_says_nothing_but_its_own_lines_and_leaves_nothing_behind(
    ended: Stages, method: Method
) -> None:
    _, run = ended(method)

    assert foreign_lines(run) == []
    known = {"execution.json", "log", "metrics.jsonl", "usage.json", "measured.json"}
    known |= {"work.json", "checkpoints", "output"}
    assert {path.name for path in run.attempt.path.iterdir()} - known == {"answers.pt"}
    names = sorted(path.name for path in run.attempt.checkpoints.iterdir())
    assert names == ["step-00000004", "step-00000006"]


def foreign_lines(run: Ended) -> list[str]:
    return [line for line in run.log.splitlines() if not re.search(r"INFO scalesweep\.", line)]


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_several_ranks_say_nothing_more(lab: Lab, tmp_path: Path, zero_stage: int) -> None:
    run = lab.stage(tmp_path, Method.lora, num_ranks=2, zero_stage=zero_stage).attempt()

    assert foreign_lines(run) == []


FILES = {
    Method.tower: {"config.json", "model.safetensors"},
    Method.language: {"config.json", "generation_config.json", "model.safetensors"},
    Method.projector: {"projector.safetensors"},
    Method.full: {"config.json", "generation_config.json", "model.safetensors"},
    Method.lora: {"adapter_config.json", "adapter_model.safetensors"},
    Method.qlora: {"adapter_config.json", "adapter_model.safetensors"},
}


@pytest.mark.parametrize("method", list(Method))
def test_weights_are_published_as_safetensors_alone(ended: Stages, method: Method) -> None:
    files = set(output_files(ended(method)[1].output)) - {"training.json"}

    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    with_tokenizer = method in (Method.language, Method.full)
    assert files == FILES[method] | (tokenizer if with_tokenizer else set())


def test_stage_1_trains_the_projector_and_publishes_it_alone(ended: Stages) -> None:
    state = published(ended(Method.projector)[1], "projector.safetensors")

    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "linear_1.weight": (32, 64),
        "linear_1.bias": (32,),
    }
    assert bool(state["linear_1.bias"].all())  # it started at zero


def test_tuning_starts_from_the_aligned_projector(lab: Lab, ended: Stages, tmp_path: Path) -> None:
    aligned, run = ended(Method.projector)[1].output, ended(Method.full)[1]

    fresh = lab.stage(tmp_path, Method.full).attempt()

    assert aligned.is_dir()
    assert run.losses[1] < fresh.losses[1]


def test_full_tuning_leaves_the_tower_and_the_identity_as_they_were(ended: Stages) -> None:
    state = published(ended(Method.full)[1])

    frozen = {n: v for n, v in state.items() if "vision_tower" in n}
    before = {name.removeprefix("vision_model."): v for name, v in shipped("vision_tower").items()}
    after = {re.sub(r"^.*vision_tower\.(vision_model\.)?", "", n): v for n, v in frozen.items()}
    assert set(after) == set(before)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    second = {n.rpartition(".")[2]: v for n, v in state.items() if "linear_2" in n}
    assert torch.equal(second["weight"], torch.eye(32))
    assert not second["bias"].any()


def test_full_tuning_moves_every_weight_of_the_language_model(ended: Stages) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(ended(Method.full)[1].output)
    before = LlamaForCausalLM.from_pretrained(PATHS["language_model"], dtype=torch.float32)

    moved = model.model.language_model.state_dict()
    assert all(not torch.equal(moved[n], v) for n, v in before.model.state_dict().items())
    assert not torch.equal(model.lm_head.weight, before.lm_head.weight)


def test_adapters_hold_neither_the_base_nor_this_machines_paths(ended: Stages) -> None:
    for method in (Method.lora, Method.qlora):
        output = ended(method)[1].output
        names = set(load_file(output / "adapter_model.safetensors"))
        assert all("lora_" in name or "linear_1" in name for name in names)
        assert len(names) == 2 * 7 * 2 + 2  # blocks x targets x (A, B), and the projector
        config = read_json(output / "adapter_config.json")
        assert config["base_model_name_or_path"] is None
        assert "/" not in str(config.values()).replace("\\", "")


def answers_equal(run: Ended, model: Any) -> None:
    """The reloaded model says what the trained one said."""
    remembered = torch.load(run.attempt.path / "answers.pt")
    with torch.no_grad():
        outputs = model.eval()(**remembered["inputs"])
    torch.testing.assert_close(outputs[0], remembered["outputs"], rtol=0, atol=1e-5)


def test_a_fully_tuned_checkpoint_answers_the_same_in_plain_transformers(ended: Stages) -> None:
    run = ended(Method.full)[1]

    model, report = LlavaForConditionalGeneration.from_pretrained(
        run.output, output_loading_info=True
    )

    assert not any(report.values())
    answers_equal(run, model)


def test_a_language_model_answers_the_same_in_plain_transformers(ended: Stages) -> None:
    run = ended(Method.language)[1]

    model, report = LlamaForCausalLM.from_pretrained(run.output, output_loading_info=True)

    assert not any(report.values())
    answers_equal(run, model)


@pytest.mark.parametrize("method", [Method.lora, Method.qlora])
def test_adapters_answer_the_same_in_plain_peft(ended: Stages, method: Method) -> None:
    run = ended(method)[1]

    model = PeftModel.from_pretrained(plain_llava(quantised=method is Method.qlora), run.output)

    answers_equal(run, model)


def test_a_tower_loads_in_plain_transformers_under_the_same_names_as_the_shipped(
    ended: Stages,
) -> None:
    run = ended(Method.tower)[1]

    _, report = CLIPVisionModel.from_pretrained(run.output, output_loading_info=True)

    assert not any(report.values())
    assert set(published(run)) == set(shipped("vision_tower"))


@pytest.mark.parametrize("method", [Method.full, Method.language, Method.tower])
def test_a_second_generation_has_the_same_names(
    ended: Stages, method: Method, tmp_path: Path
) -> None:
    classes: dict[Method, Any] = {
        Method.full: LlavaForConditionalGeneration,
        Method.language: LlamaForCausalLM,
        Method.tower: CLIPVisionModel,
    }
    run = ended(method)[1]

    classes[method].from_pretrained(run.output).save_pretrained(tmp_path)

    first, second = published(run), load_file(tmp_path / "model.safetensors")
    assert set(second) == set(first)
    assert all(torch.equal(value, first[name]) for name, value in second.items())


@pytest.mark.parametrize("method", [Method.tower, Method.language])
def test_a_base_is_made_again_bit_for_bit(
    lab: Lab, ended: Stages, method: Method, tmp_path: Path
) -> None:
    again = lab.stage(tmp_path, method).attempt()

    assert again.losses == ended(method)[1].losses
    assert again.hashes == ended(method)[1].hashes


def test_weights_are_published_in_the_dtype_asked_for_and_load_in_that_of_training(
    lab: Lab, tmp_path: Path
) -> None:
    run = lab.stage(tmp_path, Method.language, export_dtype="float16").attempt()

    assert {value.dtype for value in published(run).values()} == {torch.float16}
    assert LlamaForCausalLM.from_pretrained(run.output).dtype == torch.float32


@pytest.mark.parametrize("zero_stage", [0, 2])
def test_bf16_keeps_the_angles_of_positions_in_fp32_and_reloads_the_same(
    lab: Lab, tmp_path: Path, zero_stage: int
) -> None:
    stage = lab.stage(
        tmp_path,
        Method.full,
        zero_stage=zero_stage,
        precision=Precision.bf16,
        export_dtype="bfloat16",
    )

    run = stage.attempt(runner="tests.train.remembering")

    model = LlavaForConditionalGeneration.from_pretrained(run.output)
    assert model.dtype == torch.bfloat16
    answers_equal(run, model)
    # rounded to bf16, position 2000 would be off by whole turns
    buffers = torch.load(run.attempt.path / "answers.pt")["buffers"]
    assert {dtype for name, dtype in buffers.items() if "inv_freq" in name} == {torch.float32}


def test_recomputing_activations_changes_no_number(lab: Lab, ended: Stages, tmp_path: Path) -> None:
    inputs = ended(Method.lora)[0].inputs

    run = lab.stage(tmp_path, Method.lora, inputs=inputs, gradient_checkpointing="full").attempt()

    assert run.losses == ended(Method.lora)[1].losses
    assert run.hashes == ended(Method.lora)[1].hashes


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_a_tower_is_scored_on_pictures_it_never_saw(
    lab: Lab, tmp_path: Path, zero_stage: int
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    generate("tower_pictures", {"seed": 1, "num_pictures": 16}, data, tick=lambda _: None)
    pictures = replace(lab, data=data)

    stage = pictures.stage(tmp_path, Method.tower, num_ranks=2, zero_stage=zero_stage)

    run = stage.attempt(runner="tests.train.sharded")

    accuracy = run.summary["held_out_accuracy"]
    assert set(accuracy) == {"shape", "color", "digit"}
    assert all(0 <= share <= 1 for share in accuracy.values())


def test_qlora_under_zero_3_is_refused_by_name(lab: Lab, tmp_path: Path) -> None:
    run = lab.stage(tmp_path, Method.qlora, zero_stage=3).attempt()

    assert run.codes == [1]
    error = read_json(run.attempt.path / "error-000.json")
    assert error["message"].startswith("zero.stage=3: 4-bit weights of tuning=qlora")


def test_weights_that_overflow_in_the_last_step_are_not_published(lab: Lab, tmp_path: Path) -> None:
    spec = lab.stage(tmp_path, Method.full).spec
    beyond = replace(spec.optim, lr=1e300, warmup_steps=0, max_steps=1)

    run = lab.stage(tmp_path, Method.full, optim=beyond).attempt()

    assert run.codes == [1]
    assert "is not finite after the last step" in run.log
    assert not run.attempt.output.exists()


def test_a_checkpoint_made_from_another_projector_is_not_resumed(
    lab: Lab, ended: Stages, tmp_path: Path
) -> None:
    align = tmp_path / "align"
    align.mkdir()
    original = ended(Method.projector)[1].output / "projector.safetensors"
    (align / original.name).write_bytes(original.read_bytes())
    stage = lab.stage(tmp_path, Method.full, inputs={"align": align})
    stage.attempt(asked_to_stop=5)
    other = lab.stage(tmp_path / "other", Method.projector, seed=4).attempt().output
    (align / original.name).write_bytes((other / original.name).read_bytes())

    again = stage.attempt()

    assert "it was made from other inputs" in again.log
    assert list(again.losses) == list(range(1, 9))
