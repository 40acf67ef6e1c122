"""Measurements with ratios against a named baseline, taken in one run: `make bench`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

# A machine that is only there to be measured on need not install the project.
if importlib.util.find_spec("scalesweep") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
