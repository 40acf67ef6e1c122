"""What judges are expected to be paid, by hand."""

from __future__ import annotations

import pytest

from scalesweep.cost_model.judge_pay import judge_usd, num_replies
from scalesweep.specs import BenchmarkSpec, JudgeSpec

PRICES = {"gpt-4-0314": {"input": 30.0, "output": 60.0}}


def bench(name: str, **options: object) -> BenchmarkSpec:
    return BenchmarkSpec(name=name, dataset=name, file="questions.jsonl", options=dict(options))


def asking(*benchmarks: BenchmarkSpec, model: str = "gpt-4-0314") -> JudgeSpec:
    return JudgeSpec(benchmarks=list(benchmarks), scorer="openai", model=model, num_runs=3)


def test_llava_bench_thrice() -> None:
    # 60 questions x 3 runs x (630 x $30 + 125 x $60) / 1e6
    found = judge_usd(asking(bench("llava_bench")), {"llava_bench": 60}, PRICES)

    assert found == pytest.approx(180 * (0.0189 + 0.0075))


def test_a_benchmark_that_rules_score_costs_nothing() -> None:
    judge = asking(bench("llava_bench"), bench("mmlu"), bench("mmbench"))
    questions = {"llava_bench": 60, "mmlu": 14_042, "mmbench": 4377}

    alone = judge_usd(asking(bench("llava_bench")), questions, PRICES)

    assert judge_usd(judge, questions, PRICES) == alone
    assert num_replies(judge, bench("mmbench", extractor="judge"), 4377) == 3 * 4377


def test_pairs_are_shown_in_both_orders() -> None:
    judge = asking(bench("vicuna80"))

    assert num_replies(judge, bench("vicuna80", method="pairwise"), 80) == 2 * 240
    assert num_replies(judge, bench("vicuna80"), 80) == 240


def test_without_a_price_the_sum_is_not_known_rather_than_zero() -> None:
    judge = asking(bench("llava_bench"), model="unknown")

    assert judge_usd(judge, {"llava_bench": 60}, PRICES) is None
    assert judge_usd(judge, {"llava_bench": 60}, {"any": {"input": 0.0, "output": 0.0}}) == 0.0


def test_exact_match_asks_nobody() -> None:
    rules = JudgeSpec(benchmarks=[bench("mmbench")], scorer="exact_match")

    assert judge_usd(rules, {"mmbench": 4377}, {}) == 0.0
