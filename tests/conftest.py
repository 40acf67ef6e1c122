"""The undisturbed study, run once for all tests that compare with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.tiny_study import STUDY, typed

# What this machine's owner has downloaded is no part of a test, nor is the network.
os.environ["HF_HUB_CACHE"] = tempfile.mkdtemp(prefix="no-hub-cache-")
os.environ["HF_HUB_OFFLINE"] = "1"


@dataclass(frozen=True)
class Undisturbed:
    """A study that ran to its end in one go."""

    folder: Path
    ended: subprocess.CompletedProcess[str]

    def copy(self, folder: Path) -> Path:
        """A folder with a copy of its store, to do harm to."""
        shutil.copytree(self.folder / "store", folder / "store")
        return folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    return Undisturbed(folder, typed(folder, *STUDY))
