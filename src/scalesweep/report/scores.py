"""Scores as judge stages published them, and what answering and judging took."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.report.costs import JudgePay
from scalesweep.report.stage_results import StageResult
from scalesweep.rundir import read_json


@dataclass(frozen=True, kw_only=True)
class CategoryResult:
    score: float
    standard_error: float | None
    """None: of too few questions to know it."""
    num_questions: int
    official: float | None = None
    """Percent, as the official script prints it."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """Score of one checkpoint on one benchmark."""

    score: float
    """A fraction of 1, unrounded: the share that is right, or a relative score."""
    standard_error: float | None
    """Of the questions: a different draw of as many would move the score so."""
    num_questions: int
    num_missing: int
    """Questions without a verdict: a failed answer is missing, never wrong."""
    categories: Mapping[str, CategoryResult]
    items: Mapping[str, float]
    """question_id -> what it adds to the score: 1 right, 0 wrong, or between."""
    other_parts: Mapping[str, Mapping[str, CategoryResult]] = field(default_factory=dict)
    """Further divisions of the questions, by name."""
    official: float | None = None
    """Percent, as the official script prints it."""
    num_unparsable: int = 0
    rule: str = ""
    """The official rule that was followed."""
    options: Mapping[str, Any] = field(default_factory=dict)
    runs: tuple[float, ...] = ()
    """Official number of each judge run."""
    run_spread: float | None = None
    """Population standard deviation of runs, percent."""
    also: Mapping[str, float | None] = field(default_factory=dict)
    """Further official numbers by name."""
    judge_model: str | None = None

    def part(self, name: str) -> CategoryResult | None:
        """A category, or a part of another division, by its name."""
        for parts in (self.categories, *self.other_parts.values()):
            if name in parts:
                return parts[name]
        return None


def read_scores(stage: StageResult, damaged: list[str]) -> dict[str, BenchmarkResult]:
    """Scores of a judge stage; one that cannot be read is named in damaged, the rest goes on.

    A benchmark of which nothing has a verdict has no score; it is named there too.
    """
    if stage.output is None:
        return {}
    found = {}
    try:
        for name, entry in read_json(stage.output / "scores.json")["benchmarks"].items():
            if entry["score"] is None:
                damaged.append(
                    f"{stage.label}: no answer to {name} has a verdict "
                    f"({entry['num_missing']} of {entry['num_questions']} are missing)"
                )
                continue
            found[name] = _benchmark(entry, dict(_items(stage.output / "items" / f"{name}.jsonl")))
    except (OSError, StoreError, KeyError, TypeError, ValueError) as error:
        damaged.append(
            f"{stage.label}: its scores cannot be read ({type(error).__name__}: {error}); "
            f"delete {stage.ref} from the store and run the line again"
        )
        return {}
    return found


def _benchmark(entry: Mapping[str, Any], items: Mapping[str, float]) -> BenchmarkResult:
    # What has a default here is not in stores of the first versions.
    return BenchmarkResult(
        score=float(entry["score"]),
        standard_error=_optional(entry["standard_error"]),
        num_questions=int(entry["num_questions"]),
        num_missing=int(entry.get("num_missing", 0)),
        categories=_parts(entry.get("categories", {})),
        items=items,
        other_parts={name: _parts(parts) for name, parts in entry.get("other_parts", {}).items()},
        official=_optional(entry.get("official")),
        num_unparsable=int(entry.get("num_unparsable", 0)),
        rule=str(entry.get("rule", "")),
        options=dict(entry.get("options", {})),
        runs=tuple(map(float, entry.get("runs", ()))),
        run_spread=_optional(entry.get("run_spread")),
        also={name: _optional(value) for name, value in entry.get("also", {}).items()},
        judge_model=entry.get("judge_model"),
    )


def _parts(entries: Mapping[str, Any]) -> dict[str, CategoryResult]:
    return {
        name: CategoryResult(
            score=float(part["score"]),
            standard_error=_optional(part["standard_error"]),
            num_questions=int(part["num_questions"]),
            official=_optional(part.get("official")),
        )
        for name, part in entries.items()
        if part["score"] is not None
    }


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def _items(path: Path) -> Iterator[tuple[str, float]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        value = row.get("value", row.get("correct"))  # "correct" in stores of the first versions
        if value is not None:
            yield str(row["question_id"]), float(value)


@dataclass(frozen=True, kw_only=True)
class AnsweringTime:
    """How fast a checkpoint answered a benchmark; measured, so in no key and no output."""

    seconds_per_answer: float | None
    latency_s: float | None
    """Mean time from asking to answering: that of the batch a question was in."""
    tokens_per_second: float | None


def answering_times(stage: StageResult) -> dict[str, AnsweringTime]:
    """Of a generate stage, by benchmark; empty where it did not say."""
    found: dict[str, AnsweringTime] = {}
    for name, entry in _beside_output(stage, "generation.json").get("benchmarks", {}).items():
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            found[name] = AnsweringTime(
                seconds_per_answer=_optional(entry.get("seconds_per_answer")),
                latency_s=_optional(entry.get("latency_s")),
                tokens_per_second=_optional(entry.get("tokens_per_second")),
            )
    return found


def _beside_output(stage: StageResult, name: str) -> Mapping[str, Any]:
    if stage.output is None:
        return {}
    with contextlib.suppress(OSError, StoreError):
        return read_json(stage.output.parent / name)
    return {}


def judge_pay(attempts: Iterable[Path]) -> JudgePay | None:
    """What judges were paid, of attempts' folders; None where no judge was asked."""
    pay = JudgePay()
    for folder in attempts:
        with contextlib.suppress(OSError, StoreError, KeyError, TypeError, ValueError):
            account = read_json(folder / "judging.json")
            usd, unsure = _optional(account["usd"]), _optional(account["unsure_usd"])
            pay += JudgePay(
                micro_usd=round((usd or 0.0) * 1e6),
                unsure_micro_usd=round((unsure or 0.0) * 1e6),
                num_replies=sum(
                    int(b["metered"]["replies"]) for b in account["benchmarks"].values()
                ),
                num_asked=1,
                num_unpriced=int(usd is None or unsure is None),
            )
    return pay if pay.num_asked else None
