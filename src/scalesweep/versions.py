"""Which versions of which packages, and which commit, the code here is."""

from __future__ import annotations

import contextlib
import re
from functools import cache
from importlib import metadata
from pathlib import Path

import scalesweep

PACKAGES = ("torch", "transformers", "deepspeed", "peft", "bitsandbytes")
"""What numbers depend on, besides scalesweep itself."""


@cache
def installed_versions() -> dict[str, str]:
    """Package -> version, read from the packages' metadata: nothing is imported for it."""
    found = {"scalesweep": scalesweep.__version__}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


COMMIT_FILE = "COMMIT"
"""Beside a copy of the package: the commit that it was copied at."""


@cache
def source_commit() -> str | None:
    """Commit of the checkout that the code is run (or was copied) from; None where installed."""
    source = Path(scalesweep.__file__).resolve().parents[1]
    with contextlib.suppress(OSError):
        return _commit((source / COMMIT_FILE).read_text(encoding="utf-8").strip())
    return checked_out_commit(source.parent) if source.name == "src" else None


def checked_out_commit(repository: Path) -> str | None:
    """What HEAD of a repository points to, without running git; None when that cannot be read."""
    git = repository / ".git"
    try:
        if git.is_file():  # a worktree: "gitdir: PATH"
            git = repository / git.read_text(encoding="utf-8").partition("gitdir:")[2].strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return _commit(head)
        common = git
        if (git / "commondir").exists():
            common = git / (git / "commondir").read_text(encoding="utf-8").strip()
        return _commit_of(head.removeprefix("ref: "), common)
    except (OSError, UnicodeDecodeError):
        return None


def _commit_of(ref: str, git: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return _commit((git / ref).read_text(encoding="utf-8").strip())
    for line in (git / "packed-refs").read_text(encoding="utf-8").splitlines():
        commit, _, name = line.partition(" ")
        if name == ref:
            return _commit(commit)
    return None


def _commit(text: str) -> str | None:
    return text if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) else None
