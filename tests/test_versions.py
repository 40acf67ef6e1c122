"""Versions and commit are read without importing packages or running git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scalesweep.versions import checked_out_commit, installed_versions, source_commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def a_repository(folder: Path, head: str, **files: str) -> Path:
    (folder / ".git" / "refs" / "heads").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text(head)
    for name, text in files.items():
        (folder / ".git" / name.replace("__", "/").replace("_", "-")).write_text(text)
    return folder


def test_versions_name_the_project_and_its_training_packages() -> None:
    found = installed_versions()

    assert next(iter(found)) == "scalesweep"
    assert "torch" in found


def test_a_branch_is_followed_to_its_commit(tmp_path: Path) -> None:
    repository = a_repository(tmp_path, "ref: refs/heads/main\n", refs__heads__main=f"{COMMIT}\n")

    assert checked_out_commit(repository) == COMMIT


def test_a_packed_branch_is_found(tmp_path: Path) -> None:
    packed = f"# pack-refs with: peeled\n{'0' * 40} refs/heads/other\n{COMMIT} refs/heads/main\n"

    assert checked_out_commit(a_repository(tmp_path, "ref: refs/heads/main", packed_refs=packed)) \
        == COMMIT  # fmt: skip


def test_a_detached_head_is_the_commit(tmp_path: Path) -> None:
    assert checked_out_commit(a_repository(tmp_path, COMMIT)) == COMMIT


def test_a_worktree_is_followed_to_its_repository(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        name = ("-c", "user.name=n", "-c", "user.email=e@x")
        line = ["git", "-C", str(tmp_path / "main"), *name, *words]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "main").mkdir()
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    git("worktree", "add", "-q", str(tmp_path / "other"), "-b", "other")

    assert checked_out_commit(tmp_path / "other") == git("rev-parse", "HEAD")


@pytest.mark.parametrize("head", ["", "ref: refs/heads/unborn", "nonsense"])
def test_what_cannot_be_read_is_unknown(tmp_path: Path, head: str) -> None:
    assert checked_out_commit(a_repository(tmp_path, head)) is None
    assert checked_out_commit(tmp_path / "nowhere") is None


def test_the_source_here_has_a_commit_or_none_at_all() -> None:
    commit = source_commit()

    assert commit is None or len(commit) == 40
