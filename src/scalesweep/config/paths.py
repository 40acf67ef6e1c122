"""Where the project's own files lie: in the wheel, or in the repository beside src/."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from scalesweep.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent.parent


def _folder(name: str) -> Path:
    for folder in (PACKAGE / name, PACKAGE.parent.parent / name):
        if folder.is_dir():
            return folder
    raise ConfigError(f"{name}/: not in this installation; install scalesweep again")


def conf_dir() -> Path:
    """Folder of the config groups."""
    return _folder("conf")


def sweeps_dir() -> Path:
    """Folder of the sweep files."""
    return _folder("sweeps")


def miniature_dir() -> Path:
    """Folder of the shipped miniature weights and tokenizer."""
    return PACKAGE / "miniature"


@cache
def miniature_identity(name: str) -> str:
    """Declared identity of shipped weights ("sha256:..."), from the manifest beside them."""
    manifest = miniature_dir() / "manifest.json"
    try:
        return str(json.loads(manifest.read_text(encoding="utf-8"))["folders"][name]["identity"])
    except (FileNotFoundError, KeyError):
        raise ConfigError(
            f"model.weights: {manifest.name} names no {name!r}; `make miniature` writes it"
        ) from None


def miniature_path(name: str) -> str:
    return str(miniature_dir() / name)
