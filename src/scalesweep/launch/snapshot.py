"""The code that was submitted is the code that runs: a copy of the package for each state of it."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from functools import cache
from pathlib import Path

import scalesweep
from scalesweep.rundir import Store, fsync_directory, write_atomic
from scalesweep.versions import COMMIT_FILE, source_commit

LEFT_OUT = ("__pycache__", "*.pyc")


@cache
def code_digest() -> str:
    """16 hex digits over the names and bytes of all files of the package."""
    package = _package()
    total = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(package).as_posix()} {digest}\n".encode())
    return total.hexdigest()[:16]


def snapshot(store: Store) -> Path:
    """Folder to be put on PYTHONPATH; made when this state of the code was not copied before.

    A folder of code/ is never changed: jobs that wait for days run what they were submitted with,
    whatever happens to the checkout meanwhile.
    """
    folder = store.root / "code" / code_digest()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        shutil.copytree(_package(), beside / "scalesweep", ignore=shutil.ignore_patterns(*LEFT_OUT))
        write_atomic(beside / COMMIT_FILE, (source_commit() or "") + "\n")
        try:
            beside.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another command was faster
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    fsync_directory(folder.parent)
    return folder


def _package() -> Path:
    return Path(scalesweep.__file__).resolve().parent
