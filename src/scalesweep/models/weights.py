"""Weights on disk: declared identity, where they lie, and reading them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from scalesweep.errors import StageError
from scalesweep.records import canonical_json
from scalesweep.rundir import output_files


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


def check_architecture(folder: Path, expected: Mapping[str, object]) -> None:
    """Refuse a folder whose config.json describes another architecture.

    Raises:
        StageError: config.json is missing, or a value differs; all differences are named.
    """
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StageError(f"{folder}: has no readable config.json") from error
    found = found.get("vision_config", found) if "patch_size" in expected else found
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
