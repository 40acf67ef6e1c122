"""Weights that are declared by hub id: where they lie in the cache of `hf download`, and if whole.

Looks at files alone: a login node needs no library and no network for it. Layout of the cache:
https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scalesweep.errors import ConfigError

TOKENIZERS = ("tokenizer.json", "tokenizer.model")


@dataclass(frozen=True)
class HubId:
    """A repository of models at one revision."""

    repository: str
    revision: str

    @property
    def page(self) -> str:
        return f"https://huggingface.co/{self.repository}"

    @property
    def download(self) -> str:
        """What to type to get it."""
        return f"hf download {self.repository} --revision {self.revision}"

    def __str__(self) -> str:
        return f"hub:{self.repository}@{self.revision}"


def hub_id(declared: str) -> HubId | None:
    """The id in "hub:owner/name@revision"; None for weights that are declared otherwise.

    Raises:
        ConfigError: it is none of a repository at a revision.
    """
    kind, _, rest = declared.partition(":")
    if kind != "hub":
        return None
    repository, _, revision = rest.partition("@")
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name or not revision:
        raise ConfigError(f"{declared}: write hub:owner/name@revision, as in hub:a/b@main")
    return HubId(repository=repository, revision=revision)


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where `hf download` puts repositories on this machine."""
    home = environ.get("XDG_CACHE_HOME", "~/.cache")
    home = environ.get("HF_HOME", f"{home}/huggingface")
    cache = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(os.path.expandvars(cache)).expanduser()


def snapshot(wanted: HubId) -> Path | None:
    """The folder of a revision in the cache, whole or not; None where there is none."""
    repository = cache_folder() / f"models--{wanted.repository.replace('/', '--')}"
    try:
        commit = (repository / "refs" / wanted.revision).read_text(encoding="utf-8").strip()
    except OSError:
        commit = wanted.revision  # a commit is its own name
    folder = repository / "snapshots" / commit
    return folder if folder.is_dir() else None


def weights_path(declared: str, path: str | None) -> str | None:
    """Folder of declared weights on this machine: the one that is set, or the hub's snapshot."""
    wanted = None if path else hub_id(declared)
    found = None if wanted is None else snapshot(wanted)
    return path or (None if found is None else str(found))


def weights_defect(folder: Path) -> str | None:
    """The first thing that is wrong with a folder's files of weights, if any.

    Every shard must be there, and as long as it says itself: a download that was cut is found
    without reading the weights.
    """
    if not (folder / "config.json").is_file():
        return "config.json is missing"
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return file_defect(folder / name)
        if index.is_file():
            try:
                weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
                files = sorted(set(weight_map.values()))
            except (OSError, ValueError, KeyError, AttributeError):
                return f"{index.name} is broken"
            defects = (file_defect(folder / file) for file in files)
            return next((defect for defect in defects if defect), None)
    return "model.safetensors is missing (and so are an index of shards and pytorch_model.bin)"


def file_defect(file: Path) -> str | None:
    if not file.is_file():  # in a cache: a link to what was not fetched
        return f"{file.name} is missing"
    if file.suffix == ".safetensors":
        said, size = _size_it_says(file), file.stat().st_size
        if said is None:
            return f"{file.name} is no safetensors file"
        if said != size:
            return f"{file.name} is cut: it has {size} bytes and should have {said}"
    elif not zipfile.is_zipfile(file):
        return f"{file.name} is cut, or in a form from before torch 1.6"
    return None


def _size_it_says(file: Path) -> int | None:
    """Bytes that a safetensors file should have by its header.

    Format: https://github.com/huggingface/safetensors (8 bytes of length, JSON, tensors).
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > file.stat().st_size:
                return None
            header = json.loads(opened.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        return 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


def tokenizer_defect(folder: Path) -> str | None:
    """The file that a tokenizer's folder lacks, if any."""
    if any((folder / name).is_file() for name in TOKENIZERS):
        return None
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return None
    return f"{TOKENIZERS[0]} is missing (and so is {TOKENIZERS[1]})"
