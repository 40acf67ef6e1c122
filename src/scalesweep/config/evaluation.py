"""What every checkpoint is asked (conf/evaluation/)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scalesweep.benchmark_options import OPTIONS, check_options
from scalesweep.config.checks import at_least, one_of, require


@dataclass(kw_only=True)
class BenchmarkConfig:
    """One benchmark: a file of questions in a data set."""

    name: str
    dataset: str
    file: str

    def __post_init__(self) -> None:
        one_of("evaluation.benchmarks", self.name, tuple(OPTIONS))


@dataclass(kw_only=True)
class EvaluationConfig:
    """Benchmarks, and how answers are generated."""

    name: str
    miniature: bool
    benchmarks: list[BenchmarkConfig] = field(default_factory=list)
    """Answered by the tuned checkpoint."""
    base_benchmarks: list[BenchmarkConfig] = field(default_factory=list)
    """Answered also by the language model before tuning: what does tuning keep?"""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Benchmark -> choices where official rules differ (docs/benchmarks.md)."""
    primary: str
    """Benchmark whose score stands beside the cost."""
    num_beams: int
    max_new_tokens: int
    batch_size: int
    """Questions answered at once; not part of the key."""
    stop_strings: list[str] = field(default_factory=list)
    """An answer ends before the first of these; the end token always ends it."""
    devices_per_replica: int | None = None
    """Devices of a node over which one copy of the model is split; null: as few as hold it."""

    def __post_init__(self) -> None:
        for name in ("num_beams", "max_new_tokens", "batch_size", "devices_per_replica"):
            at_least(1, value=(f"evaluation.{name}", getattr(self, name)))
        require(
            all(self.stop_strings), "evaluation.stop_strings", "''", "must hold no empty string"
        )
        for benchmark, given in self.options.items():
            check_options(benchmark, given, key=f"evaluation.options.{benchmark}")
        names = [benchmark.name for benchmark in self.benchmarks]
        require(bool(names), "evaluation.benchmarks", "[]", "name at least one benchmark")
        require(
            self.primary in names,
            "evaluation.primary",
            self.primary,
            f"must be one of evaluation.benchmarks: {', '.join(names)}",
        )
