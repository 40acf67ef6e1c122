"""The command line, killed at the moment of its first sbatch.

SCALESWEEP_TEST_DIE says when: before sbatch is called, or after it answered and before its answer
is written down.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from scalesweep.cli import run
from scalesweep.launch import submit

submit_for_real = submit.sbatch


def sbatch(folder: Path, text: str, *, env: Mapping[str, str]) -> int:
    if os.environ["SCALESWEEP_TEST_DIE"] == "after":
        submit_for_real(folder, text, env=env)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("lives on")


submit.sbatch = sbatch
sys.exit(run(sys.argv[1:]))
