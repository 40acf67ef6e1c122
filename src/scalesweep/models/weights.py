"""Weights on disk: declared identity, where they lie, and reading them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalesweep.errors import StageError
from scalesweep.records import canonical_json
from scalesweep.rundir import output_files
from scalesweep.specs import LanguageModelSpec, VisionTowerSpec


def folder_digest(folder: Path) -> str:
    """Hash over names and bytes of all files below a folder; equal exactly when they are equal.

    The same formula as records.Done.digest, so a stage's output and a shipped copy of it agree.
    """
    files = {name: file.sha256 for name, file in output_files(folder).items()}
    return hashlib.sha256(canonical_json(files).encode()).hexdigest()


def weights_folder(
    role: str, declared: str, *, paths: Mapping[str, str], inputs: Mapping[str, Path]
) -> Path:
    """Folder that holds declared weights here, verified where the declaration allows it.

    role: language_model | vision_tower | tokenizer
    declared: "sha256:<digest>", "hub:owner/name@revision" or "stage".

    Raises:
        StageError: the folder is missing, or its bytes are not the declared ones.
    """
    if declared == "stage":
        return inputs[role]
    if role not in paths:
        raise StageError(
            f"{role}: {declared} has no folder on this machine; download it and set "
            f"{_SETTING.get(role, role)}"
        )
    folder = Path(paths[role])
    if not folder.is_dir():
        raise StageError(f"{role}: {folder} is no folder; set {_SETTING.get(role, role)}")
    kind, _, digest = declared.partition(":")
    if kind == "sha256" and folder_digest(folder) != digest:
        raise StageError(
            f"{role}: {folder} is not what was declared (sha256 {digest[:12]}...); restore the "
            "files, or declare the new weights"
        )
    return folder


_SETTING = {
    "language_model": "model.path",
    "vision_tower": "resolution.path",
    "tokenizer": "model.tokenizer_path",
}


def language_model_values(spec: LanguageModelSpec) -> dict[str, object]:
    """What a LLaMA's config.json must say."""
    return {
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "vocab_size": spec.vocab_size,
        "tie_word_embeddings": spec.tie_word_embeddings,
    }


def vision_tower_values(spec: VisionTowerSpec) -> dict[str, object]:
    """What a CLIP tower's config.json must say, or its part vision_config."""
    return {
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "patch_size": spec.patch_size,
        "image_size": spec.image_size,
    }


def check_language_model(spec: LanguageModelSpec, folder: Path) -> None:
    """Refuse a folder that is not the LLaMA of a spec.

    Raises:
        StageError: config.json is missing, or a value differs; all differences are named.
    """
    values = read_config(folder)
    check_architecture(folder, values, {"model_type": "llama", **language_model_values(spec)})


def check_vision_tower(spec: VisionTowerSpec, folder: Path) -> None:
    """Refuse a folder that is not the CLIP tower of a spec, alone or in a whole CLIP.

    Raises:
        StageError: config.json is missing, or a value differs; all differences are named.
    """
    values = read_config(folder)
    if "vision_config" in values:
        check_architecture(folder, values, {"model_type": "clip"})
        values = values["vision_config"]
    wanted = {"model_type": "clip_vision_model", **vision_tower_values(spec)}
    check_architecture(folder, values, wanted)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a Hugging Face folder.

    Raises:
        StageError: there is none, or it cannot be read.
    """
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StageError(f"{folder}: has no readable config.json") from error
    if not isinstance(values, dict):
        raise StageError(f"{folder}: has no readable config.json")
    return values


def check_architecture(
    folder: Path, found: Mapping[str, object], expected: Mapping[str, object]
) -> None:
    """Refuse values of another architecture; what is not said is not compared.

    Raises:
        StageError: all differences are named.
    """
    wrong = [
        f"{key} is {found.get(key)}, not {value}"
        for key, value in expected.items()
        if found.get(key, value) != value
    ]
    if wrong:
        raise StageError(
            f"{folder}: is another architecture than the model that was asked for: "
            + ", ".join(wrong)
        )
