"""sacct and scontrol that say what a test wants, and remember how they were called."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """#!{shell}
echo "$*" >> {folder}/calls
env > {folder}/environment
. {folder}/behaviour
"""


@dataclass
class FakeSacct:
    """folder: for PATH."""

    folder: Path
    cluster: str = "lab"

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._program("sacct", _SCRIPT.format(shell="/bin/sh", folder=self.folder))
        self._program("scontrol", f"#!/bin/sh\necho 'ClusterName             = {self.cluster}'\n")
        self.answer("")

    def _program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def answer(self, text: str) -> None:
        (self.folder / "answer").write_text(text, encoding="utf-8")
        self._behave(f"cat {self.folder}/answer")

    def refuse(self, text: str) -> None:
        (self.folder / "answer").write_text(text, encoding="utf-8")
        self._behave(f"cat {self.folder}/answer >&2; exit 1")

    def hang(self) -> None:
        self._behave(f"exec {sys.executable} -c 'import time; time.sleep(60)'")

    def _behave(self, shell: str) -> None:
        (self.folder / "behaviour").write_text(shell + "\n", encoding="utf-8")

    def calls(self) -> list[str]:
        """Arguments of each call of sacct."""
        path = self.folder / "calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def environment(self) -> dict[str, str]:
        lines = (self.folder / "environment").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)
