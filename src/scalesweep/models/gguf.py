"""A LLaMA in one GGUF file (llama.cpp's format) becomes a Hugging Face folder.

    python -m scalesweep.models.gguf FILE FOLDER

Quantised tensors are written as the fp32 numbers they stand for, so nothing is lost and plain
transformers loads the folder. The same file gives the same bytes whatever the libraries' versions,
so that a folder digest can be declared as model.weights.

Needs the package gguf, which only reads the file.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scalesweep.errors import ScaleSweepError, StageError
from scalesweep.models.weights import folder_digest

Weights = dict[str, npt.NDArray[np.float32]]

_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_OF_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Type of a token that stands for something else than its characters (llama.cpp, ggml vocabulary).
_CONTROL = 3
_BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
# llama.cpp's "smollm": every digit alone, then GPT-2's pattern.
_PRE_TOKENIZERS = {
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
    },
    "gpt-2": _BYTE_LEVEL,
}


def convert(file: Path, folder: Path) -> str:
    """Write config.json, model.safetensors and the tokenizer; returns the folder's identity.

    What lay in the folder is replaced only when everything is written.

    Raises:
        StageError: the file cannot be read, or holds something that this cannot translate.
    """
    reader = _open(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tied = "output.weight" not in {tensor.name for tensor in reader.tensors}
    texts = {
        "config.json": _config(fields, tied=tied),
        "generation_config.json": _generation(fields),
        "tokenizer.json": _tokenizer(fields),
        "tokenizer_config.json": _tokenizer_config(fields),
    }
    weights = _weights(reader, fields)
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, content in texts.items():
        text = json.dumps(content, indent=1, sort_keys=name != "tokenizer.json", ensure_ascii=False)
        (beside / name).write_text(text + "\n", encoding="utf-8")
    _save(weights, beside / "model.safetensors")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return f"sha256:{folder_digest(folder)}"


def _open(file: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        raise StageError(
            "reading GGUF files needs the package gguf: pip install --no-deps gguf"
        ) from error
    try:
        return GGUFReader(file)
    except (OSError, ValueError) as error:
        raise StageError(f"{file}: cannot be read as GGUF: {error}") from error


def _field(fields: Mapping[str, Any], name: str) -> Any:
    if name not in fields:
        raise StageError(f"the GGUF file has no {name}, which a LLaMA with its tokenizer has")
    return fields[name]


def _config(fields: Mapping[str, Any], *, tied: bool) -> dict[str, Any]:
    architecture = _field(fields, "general.architecture")
    if architecture != "llama":
        raise StageError(f"general.architecture={architecture}: only llama can be converted")
    if scaling := [name for name in fields if name.startswith("llama.rope.scaling")]:
        raise StageError(f"{scaling[0]}={fields[scaling[0]]}: scaled rotary positions are unknown")
    heads = int(_field(fields, "llama.attention.head_count"))
    hidden = int(_field(fields, "llama.embedding_length"))
    rotated = int(fields.get("llama.rope.dimension_count", hidden // heads))
    if rotated * heads != hidden:
        raise StageError(f"llama.rope.dimension_count={rotated}: not {hidden} / {heads} heads")
    theta = float(fields.get("llama.rope.freq_base", 10000.0))
    epsilon = float(_field(fields, "llama.attention.layer_norm_rms_epsilon"))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": int(_field(fields, "llama.feed_forward_length")),
        "num_hidden_layers": int(_field(fields, "llama.block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(fields.get("llama.attention.head_count_kv", heads)),
        "vocab_size": len(_field(fields, "tokenizer.ggml.tokens")),
        "max_position_embeddings": int(_field(fields, "llama.context_length")),
        # The file holds fp32: 1e-5 there is 9.99999974e-06.
        "rms_norm_eps": float(f"{epsilon:.6g}"),
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "dtype": "float32",
        **_special_ids(fields),
    }


def _generation(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"_from_model_config": True, **_special_ids(fields)}


def _special_ids(fields: Mapping[str, Any]) -> dict[str, int]:
    names = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}
    return {
        ours: int(fields[f"tokenizer.ggml.{theirs}_token_id"])
        for theirs, ours in names.items()
        if f"tokenizer.ggml.{theirs}_token_id" in fields
    }


def _weights(reader: Any, fields: Mapping[str, Any]) -> Weights:
    from gguf.quants import dequantize

    heads = {"attn_q": int(_field(fields, "llama.attention.head_count"))}
    heads["attn_k"] = int(fields.get("llama.attention.head_count_kv", heads["attn_q"]))
    weights: Weights = {}
    for tensor in reader.tensors:
        name, part = _name(tensor.name)
        values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if part in heads:
            values = _halves_apart(values, heads[part])
        weights[name] = np.ascontiguousarray(values)
    return weights


def _name(name: str) -> tuple[str, str]:
    """Hugging Face's name of a tensor, and which part of a block it is ("" outside)."""
    if name in _OUTSIDE:
        return _OUTSIDE[name], ""
    words = name.split(".")
    if len(words) == 4 and words[0] == "blk" and words[3] == "weight" and words[2] in _OF_BLOCK:
        return f"model.layers.{words[1]}.{_OF_BLOCK[words[2]]}.weight", words[2]
    raise StageError(f"tensor {name}: no part of a LLaMA that is known here")


def _halves_apart(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of each head in Hugging Face's order: [heads * D, in], as it was before conversion.

    llama.cpp rotates neighbours (0, 1), (2, 3), ...; Hugging Face rotates i with i + D / 2.
    """
    rows, inputs = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, inputs)
    return pairs.swapaxes(1, 2).reshape(rows, inputs)


def _tokenizer(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A byte-level BPE as tokenizers' tokenizer.json."""
    kind, pre = _field(fields, "tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        raise StageError(
            f"tokenizer.ggml.model={kind}, tokenizer.ggml.pre={pre}: only byte-level BPE (gpt2) "
            f"split as one of {', '.join(_PRE_TOKENIZERS)} can be converted"
        )
    if fields.get("tokenizer.ggml.add_bos_token") or fields.get("tokenizer.ggml.add_eos_token"):
        raise StageError("tokenizer.ggml.add_bos_token: tokens added by themselves are unknown")
    tokens: Sequence[str] = _field(fields, "tokenizer.ggml.tokens")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(number, token) for number, token in _control_tokens(fields)],
        "normalizer": None,
        "pre_tokenizer": _PRE_TOKENIZERS[pre],
        "post_processor": None,
        "decoder": {**_BYTE_LEVEL, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in _field(fields, "tokenizer.ggml.merges")],
        },
    }


def _control_tokens(fields: Mapping[str, Any]) -> list[tuple[int, str]]:
    tokens = _field(fields, "tokenizer.ggml.tokens")
    kinds = _field(fields, "tokenizer.ggml.token_type")
    return [(n, tokens[n]) for n, kind in enumerate(kinds) if kind == _CONTROL]


def _added(number: int, token: str) -> dict[str, Any]:
    return {
        "id": number,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _tokenizer_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    tokens = _field(fields, "tokenizer.ggml.tokens")
    special = {
        f"{ours}_token": tokens[fields[f"tokenizer.ggml.{theirs}_token_id"]]
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if f"tokenizer.ggml.{theirs}_token_id" in fields
    }
    added = {
        str(number): {k: v for k, v in _added(number, token).items() if k != "id"}
        for number, token in _control_tokens(fields)
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": int(_field(fields, "llama.context_length")),
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": added,
        **special,
    }
    if "tokenizer.chat_template" in fields:
        config["chat_template"] = fields["tokenizer.chat_template"]
    return config


def _save(weights: Weights, file: Path) -> None:
    from safetensors.numpy import save_file

    save_file(dict(sorted(weights.items())), file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors lets nobody else read it


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m scalesweep.models.gguf FILE FOLDER", file=sys.stderr)
        return 2
    try:
        print(convert(Path(arguments[0]), Path(arguments[1])))
    except ScaleSweepError as error:
        print(f"scalesweep: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
