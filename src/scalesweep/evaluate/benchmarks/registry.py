"""Benchmark by name. Modules are imported when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalesweep.benchmark_options import OPTIONS, option_values
from scalesweep.errors import StageError
from scalesweep.evaluate.benchmarks.base import Benchmark

_CLASSES = {
    "mini_vqa": "mini:MiniVqa",
    "mini_text": "mini:MiniText",
    "llava_bench": "llava_bench:LlavaBench",
    "llava_bench_coco": "llava_bench:LlavaBenchCoco",
    "mm_vet": "mm_vet:MmVet",
    "mmbench": "mmbench:MmBench",
    "vicuna80": "vicuna80:Vicuna80",
    "mmlu": "mmlu:Mmlu",
}
assert set(_CLASSES) == set(OPTIONS)


def benchmark(name: str, root: Path, file: str, options: Mapping[str, Any]) -> Benchmark:
    """The benchmark of that name, on the official files of a folder.

    options: what is chosen; the rest is as by default.

    Raises:
        StageError: there is none.
    """
    if name not in _CLASSES:
        raise StageError(f"{name}: no such benchmark; known are {', '.join(_CLASSES)}")
    return benchmark_class(name)(root, file, option_values(name, options))


def benchmark_class(name: str) -> type[Benchmark]:
    """The class of a benchmark that is known."""
    module, _, class_name = _CLASSES[name].partition(":")
    found: type[Benchmark] = getattr(
        importlib.import_module(f"scalesweep.evaluate.benchmarks.{module}"), class_name
    )
    return found
