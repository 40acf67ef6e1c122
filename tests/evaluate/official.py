"""Real files of the benchmarks, which are not in this repository.

Where they lie: SCALESWEEP_OFFICIAL_SAMPLES, else ../shared/data beside the checkout. Tests of real
files skip where there are none; the small samples in tests/evaluate/samples/ are always there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "SCALESWEEP_OFFICIAL_SAMPLES"
SAMPLES = Path(__file__).parent / "samples"
"""Written for this project in the official formats."""
_CHECKOUT = Path(__file__).parents[2]


def official_samples() -> Path:
    """Folder of real files, by benchmark; skips the test where it is absent."""
    named = os.environ.get(VARIABLE)
    # Beside the checkout, and beside the folder in which several checkouts lie.
    beside = (_CHECKOUT.parent, _CHECKOUT.parent.parent)
    folders = [Path(named)] if named else [parent / "shared" / "data" for parent in beside]
    for folder in folders:
        if folder.is_dir():
            return folder
    pytest.skip(f"no real files of benchmarks in {folders[0]}; {VARIABLE} names their folder")
