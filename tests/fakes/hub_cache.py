"""A cache as `hf download` leaves it: blobs, links to them in a snapshot, a ref to its commit."""

from __future__ import annotations

from pathlib import Path

COMMIT = "0f" * 20


def put(cache: Path, repository: str, *folders: Path, revision: str = "main") -> Path:
    """The snapshot of a repository that holds the files of some folders."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    ref = root / "refs" / revision
    ref.parent.mkdir(parents=True)
    ref.write_text(COMMIT, encoding="utf-8")
    for number, file in enumerate(file for folder in folders for file in folder.iterdir()):
        blob = root / "blobs" / f"{number:040x}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).unlink(missing_ok=True)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot
