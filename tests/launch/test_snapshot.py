"""A copy of the code is made once for each state of it, and knows its commit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

import pytest

import scalesweep
from scalesweep.launch.snapshot import code_digest, snapshot
from scalesweep.rundir import Store
from scalesweep.versions import source_commit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small package in the place of ours, in a repository."""
    package = tmp_path / "checkout" / "src" / "scalesweep"
    (package / "launch").mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '0'\n")
    (package / "launch" / "tower.bin").write_bytes(b"\x00\x01")
    git = tmp_path / "checkout" / ".git"
    git.mkdir()
    (git / "HEAD").write_text("a" * 40 + "\n")
    monkeypatch.setattr(scalesweep, "__file__", str(package / "__init__.py"))
    forget()
    yield package
    forget()


def forget() -> None:
    """A later command works it out anew."""
    code_digest.cache_clear()
    source_commit.cache_clear()


def test_the_copy_holds_every_file_but_what_python_compiled(store: Store, checkout: Path) -> None:
    (checkout / "__pycache__").mkdir()
    (checkout / "__pycache__" / "x.cpython-311.pyc").touch()

    folder = snapshot(store)

    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert folder == store.root / "code" / code_digest()
    assert files == ["COMMIT", "scalesweep/__init__.py", "scalesweep/launch/tower.bin"]
    assert (folder / "COMMIT").read_text() == "a" * 40 + "\n"


def test_a_second_copy_of_the_same_code_is_the_first(store: Store, checkout: Path) -> None:
    first = snapshot(store)
    (first / "mark").touch()
    (checkout / "__pycache__").mkdir()
    (checkout / "__pycache__" / "x.pyc").touch()
    forget()

    assert snapshot(store) == first
    assert (first / "mark").exists()


def test_one_other_byte_makes_another_copy_beside_the_first(store: Store, checkout: Path) -> None:
    first = snapshot(store)
    (checkout / "launch" / "tower.bin").write_bytes(b"\x00\x02")
    forget()

    second = snapshot(store)

    assert second != first
    assert (first / "scalesweep" / "launch" / "tower.bin").read_bytes() == b"\x00\x01"
    assert (second / "scalesweep" / "launch" / "tower.bin").read_bytes() == b"\x00\x02"


def test_another_name_of_a_file_is_another_state(checkout: Path) -> None:
    before = code_digest()
    (checkout / "launch" / "tower.bin").rename(checkout / "tower.bin")
    forget()

    assert code_digest() != before


@pytest.mark.usefixtures("checkout")
def test_commands_that_copy_at_once_get_one_whole_copy(store: Store) -> None:
    together = Barrier(6)
    found: list[Path] = []

    def copy() -> None:
        together.wait()
        found.append(snapshot(store))

    threads = [Thread(target=copy) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [store.root / "code" / code_digest()] * 6
    assert [path.name for path in (store.root / "code").iterdir()] == [code_digest()]
    assert (found[0] / "scalesweep" / "launch" / "tower.bin").exists()


@pytest.mark.usefixtures("checkout")
def test_a_copy_that_was_cut_short_is_not_taken_for_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", fail)
        with pytest.raises(OSError, match="No space left"):
            snapshot(store)

    assert list((store.root / "code").iterdir()) == []
    assert snapshot(store).is_dir()


def test_a_job_runs_the_copy_and_knows_its_commit(store: Store) -> None:
    folder = snapshot(store)
    program = (
        "import scalesweep, scalesweep.launch.supervise; from scalesweep.versions import *; "
        "print(scalesweep.__file__); print(source_commit())"
    )

    said = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert said.stdout.splitlines() == [
        str(folder / "scalesweep" / "__init__.py"),
        str(source_commit()),
    ]
