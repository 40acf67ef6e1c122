"""Exported directories give plain transformers and peft the logits that we have ourselves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, LlavaConfig, set_seed

from scalesweep.data.images import normalise, read_pixels
from scalesweep.data.tokenize import TextEncoder
from scalesweep.errors import StageError
from scalesweep.evaluate.generation import Prompt, generate_tokens
from scalesweep.models.build import llama_config
from scalesweep.models.embeddings import picture_features, text_embeddings, with_pictures
from scalesweep.models.export import Export, export
from scalesweep.models.published import load_checkpoint
from scalesweep.models.stock import stock_vocabulary
from scalesweep.specs import LanguageModelSpec, Method
from tests.data.official_files import llama_like_tokenizer
from tests.models.checkpoints import generate_spec, tuned
from tests.train.small_stages import PATHS, model_spec, training_spec

ROOT = Path(__file__).parents[2]
ANSWERS = {"num_beams": 1, "max_new_tokens": 8}
SHARD_BYTES = 200_000
"""Five or six files for the smallest miniature."""


def llama_spec(*, tied: bool = False) -> LanguageModelSpec:
    """A language model whose tokenizer has no <image>."""
    return model_spec(
        vocab_size=len(llama_like_tokenizer()),
        template="vicuna_v1",
        weights="hub:owner/model@main",
        tokenizer="hub:owner/model@main",
        tie_word_embeddings=tied,
    )


def llama_folder(folder: Path, *, legacy: bool, tied: bool) -> dict[str, str]:
    """Paths of a model with such a tokenizer, from nothing."""
    tokenizer = llama_like_tokenizer(legacy=legacy)
    tokenizer.save_pretrained(folder)
    set_seed(1)
    config = llama_config(llama_spec(tied=tied), tokenizer=tokenizer)
    LlamaForCausalLM(config).save_pretrained(folder)
    return {**PATHS, "language_model": str(folder), "tokenizer": str(folder)}


@dataclass(frozen=True, kw_only=True)
class Case:
    method: Method
    form: str
    llama: str = ""
    """ "" for the miniature; else how the tokenizer without <image> and its model are made."""
    tolerance: float = 1e-5


CASES = {
    "full": Case(method=Method.full, form="full"),
    "lora": Case(method=Method.lora, form="adapter"),
    "qlora": Case(method=Method.qlora, form="adapter"),
    "lora_merged": Case(method=Method.lora, form="merged", tolerance=1e-4),
    "qlora_merged": Case(method=Method.qlora, form="merged", tolerance=1e-4),
    "llama_full": Case(method=Method.full, form="full", llama="legacy"),
    "llama_lora": Case(method=Method.lora, form="adapter", llama="first"),
    "llama_qlora": Case(method=Method.qlora, form="adapter", llama="legacy"),
    "llama_tied_full": Case(method=Method.full, form="full", llama="tied"),
    "llama_tied_lora": Case(method=Method.lora, form="merged", llama="tied", tolerance=1e-4),
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What we say to the same questions, and what plain libraries say."""

    ours: list[dict[str, Any]]
    plain: list[dict[str, Any]]
    folder: Path
    vocabulary: int


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Pair]:
    """Every case exported, and all of them loaded in one fresh process."""
    root = tmp_path_factory.mktemp("export")
    noise = np.random.default_rng(3).integers(0, 256, (70, 44, 4), dtype=np.uint8)
    Image.fromarray(noise, mode="RGBA").save(root / "picture.png")
    ours, tasks = {}, {}
    for name, case in CASES.items():
        questions = [
            {"text": text, "image": str(root / "picture.png") if picture else None}
            for text in (["Who are you ?"] if case.llama else ["what color is the red circle"])
            for picture in (True, False)
        ]
        ours[name] = exported(root / name, case, questions)
        folder = str(root / name / "exported")
        tasks[name] = {
            "folder": folder,
            "adapter": case.form == "adapter",
            "questions": questions,
        }
    plain = in_fresh_process(root, tasks)
    return {
        name: Pair(
            ours=ours[name],
            plain=plain[name],
            folder=root / name / "exported",
            vocabulary=llama_spec().vocab_size if case.llama else model_spec().vocab_size,
        )
        for name, case in CASES.items()
    }


def in_fresh_process(root: Path, tasks: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What plain libraries say of exported directories, where scalesweep cannot be imported."""
    (root / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-I", "tests/models/plain.py", root / "tasks.json", root / "results.pt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, list[dict[str, Any]]] = torch.load(root / "results.pt", weights_only=False)
    return found


def exported(root: Path, case: Case, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Export a checkpoint; what our own code says."""
    model, paths = model_spec(), PATHS
    if case.llama:
        model = llama_spec(tied=case.llama == "tied")
        paths = llama_folder(
            root / "model", legacy=case.llama != "first", tied=case.llama == "tied"
        )
    changes = {"model": model, "template": model.template}
    tuned(case.method, root / "checkpoint", paths=paths, **changes)
    export(asked(root, case.form, case.method, paths=paths, **changes))
    loaded, tokenizer = load_checkpoint(
        spec=generate_spec(case.method, model=model),
        checkpoint=root / "checkpoint",
        language_model=Path(paths["language_model"]),
        vision_tower=Path(paths["vision_tower"]),
        tokenizer=Path(paths["tokenizer"]),
    )
    return [answered(loaded, tokenizer, model.template, question) for question in questions]


def asked(
    root: Path,
    form: str,
    method: Method,
    *,
    paths: Mapping[str, str] = PATHS,
    dtype: str | None = None,
    inputs: Mapping[str, Path] | None = None,
    shard_bytes: int = SHARD_BYTES,
    **changes: Any,
) -> Export:
    return Export(
        folder=root / "exported",
        form=form,
        with_base=True,
        spec=training_spec(method, **changes),
        checkpoint=root / "checkpoint",
        inputs=inputs or {},
        paths=paths,
        dtype=dtype,
        answers=ANSWERS,
        shard_bytes=shard_bytes,
    )


@torch.no_grad()
def answered(
    model: Any,
    tokenizer: Any,
    template: str,
    question: Mapping[str, Any],
    *,
    num_beams: Sequence[int] = (1, 4),
) -> dict[str, Any]:
    """Prompt, pixels, logits and answers by the code that trains and scores."""
    image = question["image"]
    ids = TextEncoder(tokenizer).prompt(template, question["text"], num_patches=16 if image else 0)
    pixels = None
    if image:
        pixels = normalise(torch.from_numpy(read_pixels(Path(image), 32))[None])
    llava = model.get_base_model() if hasattr(model, "peft_config") else model
    hidden, is_image = text_embeddings(llava, torch.from_numpy(ids.astype(np.int64))[None])
    if pixels is not None:
        hidden = with_pictures(hidden, is_image, picture_features(llava, pixels))
    answers = {
        beams: tokenizer.decode(tokens, skip_special_tokens=True).strip()
        for beams in num_beams
        for tokens in generate_tokens(
            model,
            tokenizer,
            [Prompt(number=0, input_ids=ids)],
            pixels=pixels,
            num_beams=beams,
            max_new_tokens=8,
        )
    }
    return {
        "input_ids": ids,
        "pixel_values": pixels,
        "logits": llava(inputs_embeds=hidden, use_cache=False).logits,
        "answers": answers,
        "decode": lambda ids: tokenizer.decode(ids, skip_special_tokens=True).strip(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_logits_are_ours_with_a_picture_and_without(name: str, pairs: Mapping[str, Pair]) -> None:
    pair = pairs[name]

    for ours, plain in zip(pair.ours, pair.plain, strict=True):
        known = plain["logits"][..., : pair.vocabulary]
        torch.testing.assert_close(known, ours["logits"], rtol=0, atol=CASES[name].tolerance)
        assert known.std() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ids_and_pixels_are_ours_to_the_last_bit(name: str, pairs: Mapping[str, Pair]) -> None:
    for ours, plain in zip(pairs[name].ours, pairs[name].plain, strict=True):
        np.testing.assert_array_equal(plain["input_ids"][0].numpy(), ours["input_ids"])
        assert (ours["pixel_values"] is None) == ("pixel_values" not in plain)
        if ours["pixel_values"] is not None:
            assert torch.equal(plain["pixel_values"], ours["pixel_values"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_answers_are_ours_greedy_and_by_beams(name: str, pairs: Mapping[str, Pair]) -> None:
    for ours, plain in zip(pairs[name].ours, pairs[name].plain, strict=True):
        said = {beams: ours["decode"](ids) for beams, ids in plain["answers"].items()}

        assert said == ours["answers"]


@pytest.mark.slow
def test_adapters_are_peft_on_a_base_and_the_rest_is_not(pairs: Mapping[str, Pair]) -> None:
    types = {name: pair.plain[0]["type"] for name, pair in pairs.items()}

    for name, case in CASES.items():
        wanted = "PeftModel" if case.form == "adapter" else "LlavaForConditionalGeneration"
        assert types[name] == wanted


@pytest.mark.slow
def test_large_weights_are_sharded(pairs: Mapping[str, Pair]) -> None:
    shards = sorted(pairs["full"].folder.glob("model-*-of-*.safetensors"))

    assert len(shards) >= 5
    assert all(file.stat().st_size < SHARD_BYTES + 100_000 for file in shards)


@pytest.mark.slow
def test_a_vocabulary_grows_only_where_the_image_token_lies_beyond_it(
    pairs: Mapping[str, Pair],
) -> None:
    mini = LlavaConfig.from_pretrained(pairs["full"].folder)
    llama = LlavaConfig.from_pretrained(pairs["llama_full"].folder)

    assert (mini.text_config.vocab_size, mini.image_token_id) == (132, 4)
    length = llama_spec().vocab_size
    assert llama.image_token_id == length
    assert llama.text_config.vocab_size == (length // 64 + 1) * 64


@pytest.mark.slow
def test_no_file_names_a_place_of_this_machine(pairs: Mapping[str, Pair]) -> None:
    for pair in pairs.values():
        for file in pair.folder.rglob("*"):
            content = b"" if file.is_dir() else file.read_bytes()
            for place in (str(pair.folder.parent), str(Path.home()), str(ROOT)):
                assert place.encode() not in content, f"{file} names {place}"


def test_a_vocabulary_grows_to_a_multiple_of_64() -> None:
    assert stock_vocabulary(132, image_token_id=4) == 132
    assert stock_vocabulary(32000, image_token_id=31999) == 32000
    assert stock_vocabulary(32000, image_token_id=32000) == 32064
    assert stock_vocabulary(32064, image_token_id=32064) == 32128


def test_weights_are_written_in_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    tuned(Method.full, tmp_path / "checkpoint")

    facts = export(asked(tmp_path, "full", Method.full, dtype="bfloat16", shard_bytes=1 << 30))

    found = load_file(tmp_path / "exported" / "model.safetensors")
    was = load_file(tmp_path / "checkpoint" / "model.safetensors")
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert torch.equal(found[name], was[name].bfloat16())
    assert facts["dtype"] == "bfloat16"
    assert LlavaConfig.from_pretrained(tmp_path / "exported").dtype == torch.bfloat16


def test_the_base_of_adapters_has_the_aligned_projector(tmp_path: Path) -> None:
    tuned(Method.lora, tmp_path / "checkpoint")
    aligned = {"linear_1.weight": torch.randn(32, 64), "linear_1.bias": torch.randn(32)}
    (tmp_path / "align").mkdir()
    save_file(aligned, tmp_path / "align" / "projector.safetensors")

    export(
        asked(
            tmp_path,
            "adapter",
            Method.lora,
            inputs={"align": tmp_path / "align"},
            shard_bytes=1 << 30,
        )
    )

    base = load_file(tmp_path / "exported" / "base" / "model.safetensors")
    assert torch.equal(base["multi_modal_projector.linear_1.weight"], aligned["linear_1.weight"])
    assert torch.equal(base["multi_modal_projector.linear_1.bias"], aligned["linear_1.bias"])
    assert torch.equal(base["multi_modal_projector.linear_2.weight"], torch.eye(32))


def test_a_blind_models_processor_makes_zeros(tmp_path: Path) -> None:
    from transformers import AutoProcessor

    tuned(Method.full, tmp_path / "checkpoint", blind=True)
    export(asked(tmp_path, "full", Method.full, blind=True))

    processor = AutoProcessor.from_pretrained(tmp_path / "exported")
    pixels = processor.image_processor(Image.new("RGB", (40, 50), (9, 200, 30)))["pixel_values"]

    assert not np.asarray(pixels).any()


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    tuned(Method.full, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / "model.safetensors"
    state = load_file(file)
    del state["language_model.model.norm.weight"]
    save_file(state, file)

    with pytest.raises(StageError, match=r"1 weights of the model are missing, model\.language"):
        export(asked(tmp_path, "full", Method.full))


def test_a_base_that_is_not_on_this_machine_is_refused(tmp_path: Path) -> None:
    tuned(Method.lora, tmp_path / "checkpoint")
    gone = {**PATHS, "language_model": str(tmp_path / "gone")}

    with pytest.raises(StageError, match=r"language_model: .*gone is no folder; set model\.path"):
        export(asked(tmp_path, "adapter", Method.lora, paths=gone))


def test_adapters_of_another_model_are_refused(tmp_path: Path) -> None:
    tuned(Method.lora, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / "adapter_model.safetensors"
    state = load_file(file)
    state = {name.replace("layers.1", "layers.7"): value for name, value in state.items()}
    save_file(state, file)

    with pytest.raises(StageError, match=r"adapters of no weight of the model: .*layers\.7"):
        export(asked(tmp_path, "merged", Method.lora))


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned(Method.full, tmp_path / "checkpoint")
    usage = replace_free(1 << 20)
    monkeypatch.setattr("scalesweep.models.export.shutil.disk_usage", usage)

    with pytest.raises(StageError, match=r"the disk has 0\.0 GiB free"):
        export(asked(tmp_path, "full", Method.full))
    assert not list((tmp_path / "exported").iterdir())


def replace_free(free: int) -> Any:
    import shutil

    real = shutil.disk_usage
    return lambda path: real(path)._replace(free=free)
