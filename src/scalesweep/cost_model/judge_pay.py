"""What a judge stage is expected to pay for its model's tokens, before any answer is there. Pure.

A judge stage itself estimates again, from the answers that it has (evaluate/judging/price.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scalesweep.benchmark_options import needs_judge, option_values
from scalesweep.specs import BenchmarkSpec, JudgeSpec

# (input, output) tokens of one reply. From the official files at 4 characters a token:
# LLaVA-Bench: caption 71, question 16, reference 145, an answer as long, rule 238; reviews 125.
# Vicuna-80: question 26, two answers of 150 to 300, rule 200; reviews 157.
# MM-Vet: the prompt's examples 570, question, answer; at most 3 tokens are replied.
# MMBench: prompt 190, question and options 47, an answer.
TOKENS_OF_A_REPLY: Mapping[str, tuple[int, int]] = {
    "llava_bench": (630, 125),
    "llava_bench_coco": (750, 125),
    "mm_vet": (620, 3),
    "mmbench": (300, 5),
    "vicuna80": (700, 157),
}
REQUESTS_OF_A_PAIR = 2
"""Vicuna-80 pairwise: each pair is shown in both orders."""


def judge_usd(
    spec: JudgeSpec, num_questions: Mapping[str, int], prices: Mapping[str, Mapping[str, float]]
) -> float | None:
    """Dollars of a whole judge stage; None where a model that is asked has no price.

    num_questions: by benchmark. prices: Execution.judge["prices"], dollars per million tokens.
    """
    if unpriced_models(spec, prices):
        return None
    paid = 0.0
    for benchmark in _judged(spec):
        price = prices.get(str(spec.model_of(benchmark.name))) or prices["any"]
        replies = num_replies(spec, benchmark, num_questions.get(benchmark.name, 0))
        read, written = TOKENS_OF_A_REPLY[benchmark.name]
        paid += replies * (read * price["input"] + written * price["output"]) / 1e6
    return paid


def unpriced_models(spec: JudgeSpec, prices: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    """Judge models that are asked and have no price, each once."""
    asked = dict.fromkeys(str(spec.model_of(benchmark.name)) for benchmark in _judged(spec))
    return () if "any" in prices else tuple(model for model in asked if model not in prices)


def _judged(spec: JudgeSpec) -> list[BenchmarkSpec]:
    """Benchmarks for which a model is asked."""
    if spec.scorer == "exact_match":
        return []
    return [b for b in spec.benchmarks if needs_judge(b.name, b.options)]


def num_replies(spec: JudgeSpec, benchmark: BenchmarkSpec, num_questions: int) -> int:
    """Wanted of a benchmark's judge, all runs; none where a rule alone scores it."""
    if spec.scorer == "exact_match" or not needs_judge(benchmark.name, benchmark.options):
        return 0
    values: Mapping[str, Any] = option_values(benchmark.name, benchmark.options)
    orders = REQUESTS_OF_A_PAIR if values.get("method") == "pairwise" else 1
    return num_questions * spec.runs_of(benchmark.name) * orders
