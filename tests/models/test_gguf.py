"""A GGUF file becomes the Hugging Face folder that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from scalesweep.errors import StageError
from scalesweep.models.gguf import convert, main

gguf = pytest.importorskip("gguf", reason="needs the package gguf (requirements.lock)")

TOKENS = ["<pad>", "<|im_start|>", "<|im_end|>", "a", "b", "Ġ", "1", "2", "ab", "Ġa", "12", "c"]


def small_llama(*, tied: bool) -> LlamaForCausalLM:
    """Two blocks, 4 heads, 2 of keys and values."""
    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


def in_neighbours(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of each head as llama.cpp's converter orders them: i and i + D / 2 side by side."""
    rows, inputs = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, inputs).swapaxes(1, 2).reshape(rows, inputs)


def write_gguf(
    path: Path, model: LlamaForCausalLM, *, quantised: bool = False, **changes: Any
) -> Path:
    """What llama.cpp's convert_hf_to_gguf.py writes of a LLaMA with a byte-level tokenizer."""
    writer = gguf.GGUFWriter(path, changes.pop("architecture", "llama"))
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(changes.pop("rotated", 16))
    writer.add_rope_freq_base(50000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    if "scaling" in changes:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        changes.pop("scaling")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.pop("pre", "smollm"))
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(["a b", "Ġ a", "1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(changes.pop("adds_bos", False))
    writer.add_chat_template("{{ messages[0]['content'] }}")
    block = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    outside = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
    }
    tied = model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        stem, values = name.removesuffix(".weight"), tensor.numpy().copy()
        if stem == "lm_head" and tied:
            continue
        if stem in outside:
            theirs = outside[stem]
        else:
            _, _, number, part = stem.split(".", 3)
            theirs = f"blk.{number}.{block[part]}"
            if part in ("self_attn.q_proj", "self_attn.k_proj"):
                values = in_neighbours(values, 4 if "q_proj" in part else 2)
        if quantised and values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quants.quantize(values, kind)
            writer.add_tensor(f"{theirs}.weight", packed, raw_dtype=kind)
        else:
            writer.add_tensor(f"{theirs}.weight", values)
    if extra := changes.pop("extra", None):
        writer.add_tensor(extra, np.zeros((4, 4), dtype=np.float32))
    assert not changes, changes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_folder_is_the_model_that_the_file_was_made_from(tmp_path: Path, tied: bool) -> None:
    model = small_llama(tied=tied)
    file = write_gguf(tmp_path / "small.gguf", model)

    convert(file, tmp_path / "folder")

    loaded, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "folder", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) is tied
    ids = torch.tensor([[1, 3, 4, 8, 9, 2, 5, 7]])
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert loaded.config.rope_parameters["rope_theta"] == 50000.0
    assert loaded.config.rms_norm_eps == 1e-5


def test_quantised_numbers_are_what_transformers_reads(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "small.gguf", small_llama(tied=True), quantised=True)

    convert(file, tmp_path / "folder")

    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "folder").state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="small.gguf").state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_the_tokenizer_splits_digits_and_keeps_special_tokens_whole(tmp_path: Path) -> None:
    convert(write_gguf(tmp_path / "small.gguf", small_llama(tied=True)), tmp_path / "folder")

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")

    # "12" is a token, but digits stand alone; " a" and "ab" are merged.
    assert tokenizer("ab a12<|im_end|>")["input_ids"] == [8, 9, 6, 7, 2]
    assert tokenizer.decode([8, 9, 6, 7, 2]) == "ab a12<|im_end|>"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.pad_token_id == 0
    said = [{"role": "user", "content": "ab"}]
    assert tokenizer.apply_chat_template(said, tokenize=False) == "ab"


def test_the_same_file_gives_the_same_folder(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "small.gguf", small_llama(tied=True))

    first, again = convert(file, tmp_path / "a"), convert(file, tmp_path / "b")

    assert first == again
    assert convert(file, tmp_path / "a") == first  # over what is there


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "gemma"}, "general.architecture=gemma: only llama"),
        ({"pre": "qwen2"}, "tokenizer.ggml.pre=qwen2: only byte-level BPE"),
        ({"scaling": True}, "scaled rotary positions are unknown"),
        ({"rotated": 8}, "llama.rope.dimension_count=8: not 64 / 4 heads"),
        ({"adds_bos": True}, "tokens added by themselves"),
        ({"extra": "rope_freqs.weight"}, "tensor rope_freqs.weight: no part of a LLaMA"),
    ],
    ids=["architecture", "tokenizer", "scaling", "head size", "bos", "tensor"],
)
def test_what_cannot_be_translated_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = write_gguf(tmp_path / "small.gguf", small_llama(tied=True), **changes)

    with pytest.raises(StageError, match=message):
        convert(file, tmp_path / "folder")

    assert not (tmp_path / "folder").exists()


def test_the_command_says_in_one_line_what_is_no_gguf(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not a GGUF file at all, but long enough to be read")

    assert main([str(tmp_path / "bad.gguf"), str(tmp_path / "folder")]) == 2

    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "cannot be read as GGUF" in said[0]
