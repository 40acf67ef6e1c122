"""Checkpoints from outside: what is understood of their files, and what they say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.errors import ConfigError, StageError
from scalesweep.models import external
from scalesweep.models.external import External, check_unchanged, describe, find
from scalesweep.models.published import load_external
from scalesweep.models.quantization import dequantized
from scalesweep.models.replica import Replica
from scalesweep.models.weights import language_model_values, vision_tower_values
from scalesweep.specs import GenerateSpec, Method, Precision
from tests.fakes.hub_cache import put
from tests.models.ranks import alone, together
from tests.models.test_export import CASES, answered, exported, llama_spec

VISION = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
          "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
          "model_type": "clip_vision_model"}  # fmt: skip
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 132,
        "max_position_embeddings": 128, "model_type": "llama", "bos_token_id": 1,
        "eos_token_id": 2}  # fmt: skip
VICUNA_CHAT = "{% for m in messages %}USER: <image>\n{{ m.text }} ASSISTANT:{% endfor %}"


def moved(model: Any) -> Any:
    """Weights large enough that answers differ."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    return model.eval()


def llava_folder(folder: Path, *, act: str = "gelu", chat: str = "", **changes: Any) -> Path:
    """As llava-hf's 1.5, tiny: the projector an MLP."""
    torch.manual_seed(1)
    config = LlavaConfig(
        vision_config=VISION,
        text_config={**TEXT, **changes},
        image_token_index=4,
        projector_hidden_act=act,
    )
    moved(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    return with_tokenizer(folder, chat=chat)


def llama_folder(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(2)
    moved(LlamaForCausalLM(LlamaConfig(**{**TEXT, **changes}))).save_pretrained(folder)
    return with_tokenizer(folder)


def with_tokenizer(folder: Path, *, chat: str = "") -> Path:
    miniature_tokenizer().save_pretrained(folder)
    if chat:
        (folder / "chat_template.jinja").write_text(chat, encoding="utf-8")
    return folder


def adapters(folder: Path, base: Path, architecture: Any, *, named: str | None = None) -> Path:
    """LoRA on all linear layers of the language model, moved away from zero."""
    torch.manual_seed(3)
    model = get_peft_model(
        architecture.from_pretrained(base),
        LoraConfig(r=3, lora_alpha=6, target_modules=r".*layers.*\.(q_proj|v_proj|down_proj)"),
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name and "vision" not in name:
                weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    file = folder / "adapter_config.json"
    values = json.loads(file.read_text("utf-8"))
    values["base_model_name_or_path"] = str(base) if named is None else named
    file.write_text(json.dumps(values), encoding="utf-8")
    return folder


def hub_snapshot(
    root: Path, repository: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder as `hf download` leaves it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(root))
    return put(root, repository, folder)


def changed(file: Path, **changes: Any) -> None:
    values = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**values, **changes}), encoding="utf-8")


def spec_of(found: External, **changes: Any) -> GenerateSpec:
    settings: dict[str, Any] = {
        "checkpoint": "external",
        "method": found.method,
        "model": found.model,
        "tower": found.tower,
        "blind": found.blind,
        "benchmarks": [],
        "num_beams": 1,
        "max_new_tokens": 8,
        "precision": Precision.fp32,
        "checkpoint_weights": found.identity,
    }
    return GenerateSpec(**{**settings, **changes})


def loaded(found: External, replica: Replica | None = None) -> tuple[Any, Any]:
    return load_external(
        spec=spec_of(found),
        checkpoint=found.folder,
        base=found.base,
        tokenizer=found.tokenizer,
        replica=replica,
    )


# ---------------------------------------------------------------- what is understood


def test_a_llava_is_described_by_its_config(tmp_path: Path) -> None:
    folder = llava_folder(tmp_path / "llava", chat=VICUNA_CHAT)

    found = describe(folder, cache=tmp_path / "cache")

    config = LlavaConfig.from_pretrained(folder)
    model, tower = found.model, found.tower
    assert tower is not None
    for key, value in language_model_values(model).items():
        part = config if key == "tie_word_embeddings" else config.text_config
        assert getattr(part, key) == value, key
    for key, value in vision_tower_values(tower).items():
        assert getattr(config.vision_config, key) == value, key
    assert (model.max_position_embeddings, tower.feature_layer) == (128, -2)
    assert (model.template, found.method, found.base) == ("vicuna_v1", Method.full, None)
    assert found.precision is Precision.fp32  # as the weights are stored
    assert found.identity == model.weights == model.tokenizer == tower.weights


# The whole config.json of llava-hf/llava-1.5-7b-hf, but for names of classes and versions.
LLAVA_1_5 = {
    "ignore_index": -100,
    "image_token_index": 32000,
    "model_type": "llava",
    "pad_token_id": 32001,
    "projector_hidden_act": "gelu",
    "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "rms_norm_eps": 1e-05,
        "torch_dtype": "float16",
        "vocab_size": 32064,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
        "vocab_size": 32000,
    },
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}


@pytest.mark.parametrize("left_out", [(), ("vision_config",), ("vision_feature_layer",)])
def test_what_llava_hf_leaves_out_is_what_transformers_takes(
    tmp_path: Path, left_out: tuple[str, ...]
) -> None:
    values = {key: value for key, value in LLAVA_1_5.items() if key not in left_out}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with_tokenizer(tmp_path)

    found = describe(tmp_path, cache=tmp_path / "cache", template="vicuna_v1")

    config = LlavaConfig.from_pretrained(tmp_path)
    assert found.tower is not None
    for key, value in language_model_values(found.model).items():
        part = config if key == "tie_word_embeddings" else config.text_config
        assert getattr(part, key) == value, key
    for key, value in vision_tower_values(found.tower).items():
        assert getattr(config.vision_config, key) == value, key
    assert found.model.num_layers == 32
    assert found.tower.num_patches == 576
    assert found.precision is Precision.bf16
    assert config.vision_feature_layer == found.tower.feature_layer == -2


def test_a_language_model_is_one_without_a_tower(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "llama")

    found = describe(folder, cache=tmp_path / "cache", template="vicuna_v1")
    in_4_bit = describe(folder, cache=tmp_path / "cache", template="vicuna_v1", in_4_bit=True)

    assert (found.tower, found.method) == (None, None)
    assert in_4_bit.method is Method.qlora
    assert found.identity == in_4_bit.identity


@pytest.mark.parametrize("named", [None, "beside", "hub"])
def test_adapters_find_their_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    base = llava_folder(tmp_path / "base", chat=VICUNA_CHAT)
    names = {None: None, "beside": "../base", "hub": "some/llava"}
    folder = adapters(
        tmp_path / "adapters", base, LlavaForConditionalGeneration, named=names[named]
    )
    if named == "hub":
        base = hub_snapshot(tmp_path / "hub", "some/llava", base, monkeypatch)

    found = describe(folder, cache=tmp_path / "cache")

    assert found.base is not None
    assert found.base.resolve() == base.resolve()
    assert (found.method, found.adapter_rank) == (Method.lora, 3)
    assert found.tokenizer == found.base  # the adapters have none
    assert found.identity != found.model.weights
    if named == "hub":
        assert found.model.weights.startswith("hub:some/llava@")


def test_a_named_base_wins(tmp_path: Path) -> None:
    base = llama_folder(tmp_path / "base")
    folder = adapters(tmp_path / "adapters", base, LlamaForCausalLM, named="gone/away")

    found = describe(folder, cache=tmp_path / "cache", base=str(base), template="mini")

    assert found.base == base
    assert found.tower is None


FAULTS: Mapping[str, tuple[Any, str]] = {
    "empty": (lambda f: [p.unlink() for p in f.iterdir()], r"is no model: it has neither config"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), r"config\.json cannot be rea"),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        r"is not whole: model\.safetensors is missing.*fetch it again",
    ),
    "cut weights": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-10]
        ),
        r"is cut: it has",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer"),
    "another model": (
        lambda f: changed(f / "config.json", model_type="qwen2_vl"),
        r"model_type=qwen2_vl; only llava and llama",
    ),
    "another language model": (
        lambda f: changed(f / "config.json", text_config={"model_type": "mistral"}),
        r"is of type mistral; only llama",
    ),
    "another tower": (
        lambda f: changed(f / "config.json", vision_config={"model_type": "siglip_vision_model"}),
        r"siglip_vision_model; only CLIP's",
    ),
    "several layers": (
        lambda f: changed(f / "config.json", vision_feature_layer=[-2, -5]),
        r"only one layer without its class token",
    ),
    "LLaVA's own layout": (
        lambda f: (f / "config.json").write_text(
            json.dumps({"model_type": "llava", "mm_vision_tower": "openai/clip", "hidden_size": 8})
        ),
        r"layout of LLaVA's own code; take a converted one",
    ),
    "8-bit": (
        lambda f: changed(
            f / "config.json",
            quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True},
        ),
        r"quantised in a form that is not read here \(load_in_4bit=None.*load_4bit=true",
    ),
    "no shape": (
        lambda f: changed(f / "config.json", text_config=None),
        r"text_config=None in its config\.json: must be an object",
    ),
    "a shape in words": (
        lambda f: changed(f / "config.json", text_config="x"),
        r"text_config='x' in its config\.json: must be an object",
    ),
    "a width in words": (
        lambda f: changed(f / "config.json", text_config={**TEXT, "hidden_size": "abc"}),
        r"hidden_size='abc' in its config\.json: must be a whole number above 0",
    ),
    "no heads": (
        lambda f: changed(f / "config.json", text_config={**TEXT, "num_attention_heads": 0}),
        r"num_attention_heads=0 in its config\.json: must be a whole number above 0",
    ),
    "a list of towers": (
        lambda f: changed(f / "config.json", vision_config=[1]),
        r"vision_config=\[1\] in its config\.json: must be an object",
    ),
    "a word for bits": (
        lambda f: changed(f / "config.json", quantization_config="x"),
        r"quantization_config='x' in its config\.json: must be an object",
    ),
    "a word for pictures": (
        lambda f: (f / "processor_config.json").write_text('{"image_processor": "do_pad"}'),
        r"image_processor='do_pad' in its processor_config\.json: must be an object",
    ),
    "other pictures": (
        lambda f: (f / "preprocessor_config.json").write_text(
            json.dumps({"do_pad": True, "image_mean": [0.5, 0.5, 0.5]})
        ),
        r"prepared otherwise.*do_pad=True, image_mean=\[0\.5, 0\.5, 0\.5\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_asked_is_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    folder = llava_folder(tmp_path / "llava", chat=VICUNA_CHAT)
    spoil(folder)

    with pytest.raises(ConfigError, match=message) as raised:
        describe(folder, cache=tmp_path / "cache")

    assert len(str(raised.value).splitlines()) == 1


ADAPTER_FAULTS = {
    "r": ("x", r"r='x' in its adapter_config\.json: must be a whole number above 0"),
    "base_model_name_or_path": (5, r"base_model_name_or_path=5 in its .*: must be a text"),
}


@pytest.mark.parametrize("key", ADAPTER_FAULTS)
def test_adapters_that_say_nonsense_are_refused_in_one_line(tmp_path: Path, key: str) -> None:
    value, message = ADAPTER_FAULTS[key]
    base = llama_folder(tmp_path / "base")
    folder = adapters(tmp_path / "adapters", base, LlamaForCausalLM)
    changed(folder / "adapter_config.json", **{key: value})

    with pytest.raises(ConfigError, match=message) as raised:
        describe(folder, cache=tmp_path / "cache", template="mini")

    assert len(str(raised.value).splitlines()) == 1


def test_pictures_of_adapters_are_prepared_as_they_say_or_else_as_their_base(
    tmp_path: Path,
) -> None:
    base = llava_folder(tmp_path / "base", chat=VICUNA_CHAT)
    folder = with_tokenizer(
        adapters(tmp_path / "adapters", base, LlavaForConditionalGeneration), chat=VICUNA_CHAT
    )
    otherwise = json.dumps({"do_center_crop": False})
    (base / "preprocessor_config.json").write_text(otherwise, encoding="utf-8")

    with pytest.raises(ConfigError, match=r"base: .* prepared otherwise .*do_center_crop=False"):
        describe(folder, cache=tmp_path / "cache")
    own = folder / "preprocessor_config.json"
    own.write_text(json.dumps({"do_center_crop": True}), encoding="utf-8")
    assert describe(folder, cache=tmp_path / "cache").tokenizer == folder
    own.write_text(otherwise, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"adapters: .* prepared otherwise"):
        describe(folder, cache=tmp_path / "cache")


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("part", ["whole", "language model"])
@pytest.mark.parametrize(
    ("stored", "computed"), [("float32", Precision.fp32), ("float16", Precision.bf16)]
)
def test_weights_are_computed_as_they_are_stored_wherever_that_is_said(
    tmp_path: Path, key: str, part: str, stored: str, computed: Precision
) -> None:
    folder = llava_folder(tmp_path / "llava", chat=VICUNA_CHAT)
    values = json.loads((folder / "config.json").read_text("utf-8"))
    for silent in (values, values["text_config"]):
        silent.pop("dtype", None)
        silent.pop("torch_dtype", None)
    (values if part == "whole" else values["text_config"])[key] = stored
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")

    found = describe(folder, cache=tmp_path / "cache")

    assert (found.precision, found.stored_dtype) == (computed, stored)


def test_a_folder_that_does_not_say_how_it_is_spoken_to_is_refused(tmp_path: Path) -> None:
    folder = llava_folder(tmp_path / "llava")

    with pytest.raises(ConfigError, match=r"choose template= one of mini, vicuna_v1, llama_2"):
        describe(folder, cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match=r"template=alpaca: choose one of mini, vicuna_v1"):
        describe(folder, cache=tmp_path / "cache", template="alpaca")


def test_adapters_without_their_base_are_refused(tmp_path: Path) -> None:
    base = llama_folder(tmp_path / "base")
    folder = adapters(tmp_path / "adapters", base, LlamaForCausalLM, named="some/llama")

    with pytest.raises(ConfigError, match=r"base some/llama is not here; `hf download some/llama"):
        describe(folder, cache=tmp_path / "cache", template="mini")
    changed(folder / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(ConfigError, match=r"names no base; say which with base_model=DIR"):
        describe(folder, cache=tmp_path / "cache", template="mini")
    with pytest.raises(ConfigError, match=r"base_model=.*: .* has no adapter_config\.json"):
        describe(base, cache=tmp_path / "cache", template="mini", base=str(base))
    changed(folder / "adapter_config.json", peft_type="IA3")
    with pytest.raises(ConfigError, match=r"adapters of type IA3; only LORA"):
        describe(folder, cache=tmp_path / "cache", template="mini", base=str(base))
    changed(folder / "adapter_config.json", peft_type="LORA")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"adapter_model\.safetensors is missing"):
        describe(folder, cache=tmp_path / "cache", template="mini", base=str(base))


def test_a_word_names_a_folder_or_a_repository_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = llama_folder(tmp_path / "llama")
    cached = hub_snapshot(tmp_path / "hub", "some/llama", folder, monkeypatch)

    assert find(str(folder)) == folder
    assert find("some/llama").resolve() == cached.resolve()
    with pytest.raises(ConfigError, match=r"other/llama: no such folder; `hf download other/llama"):
        find("other/llama")
    with pytest.raises(ConfigError, match=r"config\.json: is a file; name the folder"):
        find(str(folder / "config.json"))


# ---------------------------------------------------------------- identity


def test_the_identity_is_of_the_bytes_that_are_read(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one = llama_folder(tmp_path / "one")
    two = Path(shutil.copytree(one, tmp_path / "two"))
    (two / "README.md").write_text("another card", encoding="utf-8")
    (two / "optimizer.pt").write_bytes(b"left over")

    assert external.declared(one, cache) == external.declared(two, cache)
    changed(two / "config.json", rope_theta=5e5)
    assert external.declared(one, cache) != external.declared(two, cache)


def test_what_was_hashed_is_not_read_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = llama_folder(tmp_path / "llama"), tmp_path / "cache"
    identity = external.declared(folder, cache)
    hashed: list[str] = []
    original = external.sha256_of

    def noted(path: Path) -> str:
        hashed.append(path.name)
        return original(path)

    monkeypatch.setattr(external, "sha256_of", noted)
    monkeypatch.setattr(external, "LONG_BYTES", 10_000)
    told: list[str] = []

    assert external.declared(folder, cache, told.append) == identity
    assert hashed == told == []
    state = load_file(folder / "model.safetensors")
    save_file({k: v + 1 for k, v in state.items()}, folder / "model.safetensors")
    with pytest.raises(StageError, match="is not what was planned"):
        check_unchanged(identity, folder, cache)
    assert hashed == ["model.safetensors"]
    hashed.clear()
    external.declared(folder, tmp_path / "other cache", told.append)
    assert len(hashed) > 1
    assert len(told) == 1
    assert "are hashed once" in told[0]


def test_a_hub_commit_is_its_own_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = llama_folder(tmp_path / "llama")
    cached = hub_snapshot(tmp_path / "hub", "some/llama", folder, monkeypatch)

    found = describe(find("some/llama"), cache=tmp_path / "cache", template="mini")

    assert found.identity == f"hub:some/llama@{cached.name}"


# ---------------------------------------------------------------- what it says


IDS = torch.arange(5, 25).reshape(2, 10)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS).logits  # type: ignore[no-any-return]


@torch.no_grad()
def picture_logits(model: Any) -> torch.Tensor:
    ids = torch.cat([torch.full((2, 16), 4), IDS], dim=1)
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(2, 3, 32, 32, generator=generator)
    return model(input_ids=ids, pixel_values=pixels).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("act", ["gelu", "linear"])
def test_a_llava_of_others_gives_the_logits_of_transformers(tmp_path: Path, act: str) -> None:
    folder = llava_folder(tmp_path / "llava", act=act, chat=VICUNA_CHAT)

    ours, _ = loaded(describe(folder, cache=tmp_path / "cache"))

    theirs = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    assert torch.equal(logits(ours), logits(theirs))
    assert torch.equal(picture_logits(ours), picture_logits(theirs))


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_of_others_gives_the_logits_of_transformers(
    tmp_path: Path, tied: bool
) -> None:
    folder = llama_folder(tmp_path / "llama", tie_word_embeddings=tied)

    ours, _ = loaded(describe(folder, cache=tmp_path / "cache", template="mini"))

    assert torch.equal(logits(ours), logits(LlamaForCausalLM.from_pretrained(folder).eval()))


@pytest.mark.parametrize("architecture", [LlamaForCausalLM, LlavaForConditionalGeneration])
def test_adapters_of_others_give_the_logits_of_peft(tmp_path: Path, architecture: Any) -> None:
    make = llama_folder if architecture is LlamaForCausalLM else llava_folder
    base = make(tmp_path / "base")
    folder = adapters(tmp_path / "adapters", base, architecture)

    ours, _ = loaded(describe(folder, cache=tmp_path / "cache", template="mini"))

    plain = architecture.from_pretrained(base).eval()
    before = logits(plain)
    theirs = PeftModel.from_pretrained(plain, folder).eval()
    assert torch.equal(logits(ours), logits(theirs))
    assert (logits(ours) - before).abs().max() > 0.1


def test_4_bit_is_what_bitsandbytes_makes_of_the_same_weights(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "llama")
    whole, _ = loaded(describe(folder, cache=tmp_path / "cache", template="mini"))

    found = describe(folder, cache=tmp_path / "cache", template="mini", in_4_bit=True)
    ours, _ = loaded(found)
    for name, weight in whole.named_parameters():
        if name.endswith("_proj.weight"):
            weight.data = dequantized(weight.data)
    torch.testing.assert_close(logits(ours), logits(whole), rtol=0, atol=1e-4)


EXPORTS = ("full", "lora", "qlora", "qlora_merged", "llama_full", "llama_qlora")


@pytest.mark.parametrize("name", EXPORTS)
def test_what_export_wrote_says_what_the_checkpoint_says(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    noise = np.random.default_rng(3).integers(0, 256, (70, 44, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    text = "Who are you ?" if case.llama else "what color is the red circle"
    questions = [{"text": text, "image": image} for image in (str(tmp_path / "picture.png"), None)]
    ours = exported(tmp_path, case, questions)
    template = llama_spec().template if case.llama else "mini"

    found = describe(tmp_path / "exported", cache=tmp_path / "cache", template=template)
    model, tokenizer = loaded(found)

    for mine, question in zip(ours, questions, strict=True):
        again = answered(model, tokenizer, template, question)
        np.testing.assert_array_equal(again["input_ids"], mine["input_ids"])
        known = again["logits"][..., : mine["logits"].shape[-1]]
        torch.testing.assert_close(known, mine["logits"], rtol=0, atol=case.tolerance)
        assert again["answers"] == mine["answers"]
    expected = {"qlora": Method.qlora, "lora": Method.lora}.get(name.removeprefix("llama_"))
    assert found.method is (expected or Method.full)


def external_asked(replica: Replica, found: External) -> dict[str, Any]:
    model, _ = loaded(found, replica)
    seen = picture_logits(model) if found.tower is not None else None
    return {"logits": logits(model), "pictures": seen}


@pytest.mark.parametrize("kind", ["llava", "adapters", "4-bit adapters", "llama"])
def test_two_ranks_give_the_logits_of_one(tmp_path: Path, kind: str) -> None:
    if kind == "4-bit adapters":
        exported(tmp_path, CASES["qlora"], [])
        folder = tmp_path / "exported"
    elif kind == "llama":
        folder = llama_folder(tmp_path / "llama")
    else:
        folder = llava_folder(tmp_path / "llava")
        if kind == "adapters":
            folder = adapters(tmp_path / "adapters", folder, LlavaForConditionalGeneration)
    found = describe(folder, cache=tmp_path / "cache", template="mini")
    whole = alone(external_asked, found)

    for split in together(tmp_path / "ranks", external_asked, 2, found):
        assert torch.equal(split["logits"], whole["logits"])
        assert found.tower is None or torch.equal(split["pictures"], whole["pictures"])


def test_a_tokenizer_that_marks_pictures_otherwise_is_refused(tmp_path: Path) -> None:
    folder = llava_folder(tmp_path / "llava")
    changed(folder / "config.json", image_token_index=7, image_token_id=7)

    with pytest.raises(StageError, match="gives pictures the token 4, but the model looks for 7"):
        loaded(describe(folder, cache=tmp_path / "cache", template="mini"))


def test_a_4_bit_file_without_all_parts_of_a_weight_is_refused(tmp_path: Path) -> None:
    exported(tmp_path, CASES["qlora"], [])
    base = tmp_path / "exported" / "base"
    index = json.loads((base / "model.safetensors.index.json").read_text("utf-8"))["weight_map"]
    part = next(name for name in index if name.endswith("nested_absmax"))
    state = load_file(base / index[part])
    del state[part]
    save_file(state, base / index[part])

    with pytest.raises(StageError, match="5 of 6 parts of a 4-bit weight"):
        loaded(describe(tmp_path / "exported", cache=tmp_path / "cache", template="mini"))
