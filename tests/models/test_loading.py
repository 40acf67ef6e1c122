"""Weights read tensor by tensor are those that transformers itself loads, or are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from scalesweep.errors import StageError
from scalesweep.models.build import assemble_llava
from scalesweep.models.loading import load_weights
from tests.models import big_checkpoint
from tests.models.big_checkpoint import MIB, loaded_alone
from tests.train.small_stages import tower_spec

VISION = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
          "num_attention_heads": 4, "image_size": 32, "patch_size": 8}  # fmt: skip
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 50}  # fmt: skip


def llama(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**{**TEXT, **changes}))


def clip() -> CLIPModel:
    torch.manual_seed(1)
    return CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT))


def llava(**changes: Any) -> LlavaForConditionalGeneration:
    torch.manual_seed(1)
    config = LlavaConfig(
        vision_config={**VISION, "model_type": "clip_vision_model"},
        text_config={**TEXT, **changes, "model_type": "llama"},
    )
    return LlavaForConditionalGeneration(config)


def in_shards(model: Any, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="20KB")


def in_one_file(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)


def in_pickled_shards(model: Any, folder: Path) -> None:
    """As transformers wrote before safetensors."""
    in_shards(model, folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text("utf-8"))
    for file in folder.glob("*.safetensors"):
        torch.save(load_file(file), folder / f"{file.stem}.bin")
        file.unlink()
    (folder / "model.safetensors.index.json").unlink()
    index["weight_map"] = {
        k: v.replace(".safetensors", ".bin") for k, v in index["weight_map"].items()
    }
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")


MODELS: dict[str, tuple[Callable[[], Any], Any]] = {
    "llama": (llama, LlamaForCausalLM),
    "grouped queries": (lambda: llama(num_key_value_heads=2), LlamaForCausalLM),
    "tied embeddings": (lambda: llama(tie_word_embeddings=True), LlamaForCausalLM),
    "other rope and norm": (
        lambda: llama(
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "linear", "rope_theta": 5e4, "factor": 2.0},
        ),
        LlamaForCausalLM,
    ),
    "a base model's names": (lambda: llama().model, LlamaForCausalLM),
    "a tower": (lambda: CLIPVisionModel(CLIPConfig(vision_config=VISION).vision_config),
                CLIPVisionModel),
    "a tower in a whole CLIP": (clip, CLIPVisionModel),
    "llava": (llava, LlavaForConditionalGeneration),
    "llava with tied embeddings": (
        lambda: llava(tie_word_embeddings=True), LlavaForConditionalGeneration
    ),
}  # fmt: skip


@pytest.mark.parametrize("save", [in_shards, in_one_file, in_pickled_shards])
@pytest.mark.parametrize("name", [name for name in MODELS if "base" not in name])
def test_every_tensor_is_the_one_that_transformers_loads(
    tmp_path: Path, name: str, save: Callable[[Any, Path], None]
) -> None:
    make, architecture = MODELS[name]
    save(make(), tmp_path)

    ours = load_weights(architecture, tmp_path, dtype=torch.float32)

    equal(ours, architecture.from_pretrained(tmp_path, dtype=torch.float32))


def equal(ours: Any, theirs: Any) -> None:
    """Weights, buffers that no file holds, what is tied, configs and mode."""
    assert list(ours.state_dict()) == list(theirs.state_dict())
    pairs = [
        *zip(ours.named_parameters(), theirs.named_parameters(), strict=True),
        *zip(ours.named_buffers(), theirs.named_buffers(), strict=True),
    ]
    for (name, value), (other, expected) in pairs:
        assert name == other
        assert value.dtype == expected.dtype, name
        assert value.requires_grad == expected.requires_grad, name
        assert torch.equal(value, expected), name
    without = {"_name_or_path", "transformers_version"}
    configs = [{k: v for k, v in m.config.to_dict().items() if k not in without}
               for m in (ours, theirs)]  # fmt: skip
    assert configs[0] == configs[1]
    assert ours.training == theirs.training
    assert getattr(ours, "generation_config", None) == getattr(theirs, "generation_config", None)


def test_bf16_is_what_transformers_makes_of_fp32(tmp_path: Path) -> None:
    in_shards(llama(), tmp_path)

    ours = load_weights(LlamaForCausalLM, tmp_path, dtype=torch.bfloat16)

    equal(ours, LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16))


def test_names_without_the_prefix_of_the_whole_model_are_found(tmp_path: Path) -> None:
    """Checkpoints of a LlamaModel; transformers finds them too, but for the head."""
    model = llama(tie_word_embeddings=True)
    model.model.save_pretrained(tmp_path)

    ours = load_weights(LlamaForCausalLM, tmp_path, dtype=torch.float32)

    for name, value in model.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_the_old_saved_frequencies_and_positions_are_not_needed(tmp_path: Path) -> None:
    """Checkpoints of early versions hold what is computed today."""
    for model, extra in (
        (llama(), {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
        (clip(), {"vision_model.embeddings.position_ids": torch.arange(17)[None]}),
    ):
        folder = tmp_path / type(model).__name__
        in_one_file(model, folder)
        state = {**load_file(folder / "model.safetensors"), **extra}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        architecture = LlamaForCausalLM if "Llama" in folder.name else CLIPVisionModel

        ours = load_weights(architecture, folder, dtype=torch.float32)

        equal(ours, architecture.from_pretrained(folder, dtype=torch.float32))


def test_tied_embeddings_stay_one_weight_in_llava(tmp_path: Path) -> None:
    in_shards(llama(tie_word_embeddings=True), tmp_path / "llama")
    in_one_file(clip(), tmp_path / "clip")
    model = load_weights(LlamaForCausalLM, tmp_path / "llama", dtype=torch.float32)
    tower = load_weights(CLIPVisionModel, tmp_path / "clip", dtype=torch.float32)

    made = assemble_llava(model, tower, tower_spec(), image_token_id=4, seed=0)
    made.save_pretrained(tmp_path / "llava")
    again = load_weights(LlavaForConditionalGeneration, tmp_path / "llava", dtype=torch.float32)

    for one in (made, again):
        assert one.lm_head.weight is one.model.language_model.embed_tokens.weight
    equal(again, made.eval())


def test_two_different_weights_that_should_be_one_are_refused(tmp_path: Path) -> None:
    in_one_file(llama(), tmp_path)  # lm_head is its own
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))

    with pytest.raises(StageError, match=r"different weights for .*lm_head\.weight"):
        load_weights(LlamaForCausalLM, tmp_path, dtype=torch.float32)


def test_random_numbers_are_those_drawn_without_loading(tmp_path: Path) -> None:
    """First weights of adapters depend on the seed alone."""
    in_one_file(clip(), tmp_path)
    torch.manual_seed(7)
    expected = torch.randn(3)
    torch.manual_seed(7)

    load_weights(CLIPVisionModel, tmp_path, dtype=torch.float32)

    assert torch.equal(torch.randn(3), expected)


def test_training_leaves_the_files_as_they_are(tmp_path: Path) -> None:
    in_one_file(llama(), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    model = load_weights(LlamaForCausalLM, tmp_path, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)

    assert (tmp_path / "model.safetensors").read_bytes() == before


def spoilt(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Weights of a small LLaMA, changed."""
    in_one_file(llama(), folder)
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_layer_too_many_is_another_architecture(tmp_path: Path) -> None:
    spoilt(tmp_path, lambda s: s.update({"model.layers.2.mlp.up_proj.weight": torch.ones(64, 32)}))

    with pytest.raises(StageError, match=r"no place, model\.layers\.2\.mlp\.up_proj.*another arch"):
        load_weights(LlamaForCausalLM, tmp_path, dtype=torch.float32)


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    in_shards(llama(), tmp_path)
    gone = sorted(tmp_path.glob("*.safetensors"))[1]
    gone.unlink()

    with pytest.raises(StageError, match=rf"cannot be read: .*{gone.name}"):
        load_weights(LlamaForCausalLM, tmp_path, dtype=torch.float32)


def test_a_truncated_pickle_is_refused(tmp_path: Path) -> None:
    in_pickled_shards(llama(), tmp_path)
    file = sorted(tmp_path.glob("*.bin"))[1]
    file.write_bytes(file.read_bytes()[:-200])

    with pytest.raises(StageError, match="the weights cannot be read"):
        load_weights(LlamaForCausalLM, tmp_path, dtype=torch.float32)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    in_one_file(llama(), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"model.norm.weight": shutil.rmtree}, tmp_path / "pytorch_model.bin")

    with pytest.raises(StageError, match="the weights cannot be read"):
        load_weights(LlamaForCausalLM, tmp_path, dtype=torch.float32)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    llama().config.save_pretrained(tmp_path)

    with pytest.raises(StageError, match=r"no model\.safetensors or pytorch_model\.bin"):
        load_weights(LlamaForCausalLM, tmp_path, dtype=torch.float32)


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA of 400 MiB in fp32, written shard by shard."""
    return big_checkpoint.write(tmp_path_factory.mktemp("big"))


# Of a checkpoint of 400 MiB: all of it, and room for its largest tensor (44 MiB) twice.
WHOLE = (400 + 2 * 44) * MIB
# 4-bit layers (0.516 bytes a weight instead of 4: 51 MiB), embeddings and head in fp32 (8 MiB), the
# largest tensor, and what bitsandbytes takes on a CPU to quantise it: 20 bytes a weight (220 MiB).
FOUR_BIT = (51 + 8 + 44 + 220) * MIB


def test_the_big_checkpoint_is_as_large_as_said(big: Path) -> None:
    files = sum(file.stat().st_size for file in big.glob("*.safetensors"))

    assert abs(big_checkpoint.NUM_BYTES - 400 * MIB) < MIB
    assert files == pytest.approx(big_checkpoint.NUM_BYTES, rel=0.01)


@pytest.mark.slow
def test_a_whole_load_takes_the_checkpoint_and_a_tensor_no_more(big: Path) -> None:
    assert loaded_alone("whole", big) < WHOLE
    assert loaded_alone("whole, from a state dict", big) > WHOLE


@pytest.mark.slow
def test_a_rank_that_holds_half_of_the_layers_takes_half_of_the_memory(big: Path) -> None:
    assert loaded_alone("second half", big) < WHOLE / 2


@pytest.mark.slow
def test_a_4_bit_load_never_holds_the_model_that_it_is_made_of(big: Path) -> None:
    assert FOUR_BIT < 400 * MIB
    assert loaded_alone("4-bit", big) < FOUR_BIT
    assert loaded_alone("4-bit of a whole one", big) > 400 * MIB
