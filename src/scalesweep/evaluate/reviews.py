"""The arithmetic of judged answers: verdicts out of replies, and scores out of verdicts. Pure.

A run is what a judge said once about all answers: question_id -> verdict, None where the reply
could not be read; a question that is not in it has no reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from scalesweep.evaluate.scores import (
    BenchmarkScore,
    PartScore,
    mean_and_error,
    population_spread,
    ratio_items,
)


class Pair(NamedTuple):
    """Points that one review gives to two answers."""

    reference: float
    candidate: float


UNREADABLE = Pair(-1.0, -1.0)
"""What LLaVA's and FastChat's scripts write where a review has no score line."""

MOST_POINTS = 1e6
"""More is no judgement: scales end at 100, and sums of such numbers are infinite."""

Verdict = TypeVar("Verdict", float, Pair)
PairRun = Mapping[str, Pair | None]
PointRun = Mapping[str, float | None]


# ---------------------------------------------------------------- verdicts out of replies


def parse_llava(review: str) -> Pair | None:
    """Two numbers on the first line with one space or comma between them, and nothing else.

    NaN, infinity and more than MOST_POINTS are no points; two times -1 is the mark of a review
    that could not be read.

    Source: parse_score of haotian-liu/LLaVA (c121f04) llava/eval/eval_gpt_review_bench.py.
    """
    parts = review.split("\n")[0].replace(",", " ").split(" ")
    return _pair(*parts) if len(parts) == 2 else None


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def parse_lmms_eval(review: str) -> Pair | None:
    """The first two numbers on the first line, whatever stands around them.

    "Assistant 1: 8, Assistant 2: 9" gives 1 and 8 by this rule.

    Source: parse_comparative_response of EvolvingLMMs-Lab/lmms-eval, api/judge_utils.py.
    """
    numbers = _NUMBER.findall(review.strip().split("\n")[0])
    return _pair(*numbers[:2]) if len(numbers) >= 2 else None


_TUPLE = re.compile(r"\(\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*\)")


def parse_last_line(review: str) -> Pair | None:
    """The last tuple of two numbers on the last line that is not empty.

    Earlier lines hold other tuples: question 70 is about a point (10, 4). In the 13 review files
    that FastChat published (11ebc95), 8 of the 39 reviews of math end so, and each of the 8 equals
    the score that was entered by hand.
    """
    lines = [line for line in review.split("\n") if line.strip()]
    found = _TUPLE.findall(lines[-1]) if lines else []
    return _pair(*found[-1]) if found else None


def _pair(first: str, second: str) -> Pair | None:
    try:
        pair = Pair(float(first), float(second))
    except ValueError:
        return None
    return pair if is_verdict(pair) else None


def is_verdict(pair: Pair) -> bool:
    return all(abs(points) <= MOST_POINTS for points in pair) and pair != UNREADABLE


# FastChat, llm_judge/common.py: one_score_pattern, then one_score_pattern_backup.
_RATINGS = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))


def parse_rating(judgment: str) -> float | None:
    """The first [[n]], else the first [n]; more than MOST_POINTS is none.

    Source: run_judge_single of lm-sys/FastChat (0e6d3e4) fastchat/llm_judge/common.py.
    """
    for pattern in _RATINGS:
        if found := pattern.search(judgment):
            rating = float(found.group(1))
            return rating if rating <= MOST_POINTS else None
    return None


def parse_winner(judgment: str) -> str | None:
    """A, B or tie: [[A]], [[B]] and [[C]] are looked for in that order, wherever they stand.

    Source: run_judge_pair of lm-sys/FastChat (0e6d3e4) fastchat/llm_judge/common.py.
    """
    for mark, winner in (("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie")):
        if mark in judgment:
            return winner
    return None


def parse_correctness(reply: str) -> float | None:
    """What stands before the first space, where it is a number from 0 to 1; tenths or not.

    Source: runs() of yuweihao/MM-Vet (acde843) mm-vet_evaluator.py.
    """
    try:
        score = float(reply.split(" ")[0].strip())
    except ValueError:
        return None
    return score if 0.0 <= score <= 1.0 else None


# ---------------------------------------------------------------- scores out of verdicts


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Of some questions, over all runs."""

    part: PartScore
    items: Mapping[str, float]
    runs: tuple[float, ...]
    """Official percent of each run that has a verdict."""
    also: Mapping[str, float]


def score_pairs(runs: Sequence[PairRun], questions: Sequence[str], *, strict: bool) -> Scored:
    """Relative score of some questions: mean candidate over mean reference.

    Official, of a run: both means are rounded to 3 decimals before they are divided, the percent
    to 1; of several runs: the mean of what each prints, never of their pooled reviews.

    strict: reviews that could not be read stay in the means as -1 and -1, as the script has it.

    Source: haotian-liu/LLaVA (c121f04) llava/eval/summarize_gpt_review.py.
    """
    counted = [_counted(run, questions, UNREADABLE if strict else None) for run in runs]
    # A ratio needs a verdict, and a reference that is above nothing.
    counted = [
        pairs
        for pairs in counted
        if any(is_verdict(pair) for pair in pairs.values())
        and round(_mean(pair.reference for pair in pairs.values()), 3) > 0
    ]
    printed = [_summary(list(pairs.values())) for pairs in counted]
    items = _over_runs(
        [
            ratio_items(
                {item: pair.candidate for item, pair in pairs.items()},
                {item: pair.reference for item, pair in pairs.items()},
            )
            for pairs in counted
        ]
    )
    percents = tuple(summary.percent for summary in printed)
    return Scored(
        part=_part(runs, questions, items, official=_rounded_mean(percents)),
        items=items,
        runs=percents,
        also={
            name: value
            for name, value in (
                ("reference mean x 10", _rounded_mean([s.reference for s in printed])),
                ("candidate mean x 10", _rounded_mean([s.candidate for s in printed])),
            )
            if value is not None
        },
    )


def relative_score(
    runs: Sequence[PairRun],
    questions: Mapping[str, str],
    *,
    benchmark: str,
    reading: str,
    options: Mapping[str, Any],
    num_empty: int | None = None,
    notes: Sequence[str] = (),
) -> BenchmarkScore:
    """The whole and every category of a benchmark that is scored by pairwise reviews.

    questions: question_id -> category ("" where it has none), in order.
    reading: how a score line is read, in words.
    options: "unparsable" among them.
    """
    strict = options["unparsable"] == "strict"
    whole = score_pairs(runs, list(questions), strict=strict)
    parts = {
        category: score_pairs(runs, members, strict=strict)
        for category, members in categories_of(questions).items()
    }
    kept = "stay in the means as -1 and -1, as there" if strict else "are left out, unlike there"
    return BenchmarkScore(
        benchmark=benchmark,
        rule=(
            "100 x mean candidate / mean reference, both means rounded to 3 decimals first, as "
            f"LLaVA's summarize_gpt_review.py; {reading}; reviews that cannot be read {kept}; "
            "of several judge runs the mean of what each prints"
        ),
        options=options,
        whole=whole.part,
        categories={category: scored.part for category, scored in parts.items()},
        runs=whole.runs,
        run_spread=population_spread(whole.runs),
        also=dict(whole.also)
        | {
            f"{category}, {name}": value
            for category, scored in parts.items()
            for name, value in scored.also.items()
        },
        num_empty=num_empty,
        items=whole.items,
        notes=[*notes, *runs_left_out(runs, whole)],
    )


class _Summary(NamedTuple):
    percent: float
    reference: float
    candidate: float


def _summary(pairs: Sequence[Pair]) -> _Summary:
    """The three numbers that the official script prints of one file."""
    reference = round(_mean(pair.reference for pair in pairs), 3)
    candidate = round(_mean(pair.candidate for pair in pairs), 3)
    return _Summary(
        percent=round(candidate / reference * 100, 1),
        reference=round(reference * 10, 1),
        candidate=round(candidate * 10, 1),
    )


def score_points(
    runs: Sequence[PointRun], questions: Sequence[str], *, unreadable: float | None
) -> Scored:
    """Mean points of some questions, as a fraction; official percents as NumPy rounds them.

    unreadable: what a reply counts that could not be read; None: it is left out.
    """
    counted = [_counted(run, questions, unreadable) for run in runs]
    counted = [points for points in counted if points]
    percents = [_mean(points.values()) * 100 for points in counted]
    items = _over_runs(counted)
    official = numpy_round(_mean(percents)) if percents else None
    return Scored(
        part=_part(runs, questions, items, official=official),
        items=items,
        runs=tuple(percents),
        also={},
    )


def runs_left_out(runs: Sequence[object], whole: Scored) -> list[str]:
    """A note on judge runs that no number can be made of; else nothing."""
    silent = len(runs) - len(whole.runs)
    if not silent:
        return []
    return [
        f"{silent} of {len(runs)} judge runs without a number: no verdict of "
        f"{'it' if silent == 1 else 'them'} can be read, or all reference answers have 0 points"
    ]


def numpy_round(value: float, digits: int = 1) -> float:
    """As NumPy rounds: 31.15 becomes 31.2, where Python, which sees 31.1499..., gives 31.1."""
    factor = 10.0**digits
    return round(value * factor) / factor


def spread(runs: Sequence[float]) -> float | None:
    """Population standard deviation of percents, as NumPy rounds it; None for fewer than two."""
    found = population_spread(runs)
    return None if found is None else numpy_round(found)


def categories_of(questions: Mapping[str, str]) -> dict[str, list[str]]:
    """Category -> its questions, in alphabetical order, as the official script prints them.

    questions: question_id -> category, "" where it has none.
    """
    names = sorted(set(questions.values()) - {""})
    return {name: [q for q, category in questions.items() if category == name] for name in names}


def _counted(
    run: Mapping[str, Verdict | None], questions: Sequence[str], unreadable: Verdict | None
) -> dict[str, Verdict]:
    """Verdicts that go into the means, in the order of the questions."""
    found = {}
    for question in questions:
        if question not in run:
            continue
        verdict = run[question]
        if verdict is None:
            verdict = unreadable
        if verdict is not None:
            found[question] = verdict
    return found


def _over_runs(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over runs of what each item adds.

    An item that a run knows nothing of takes that run's mean, which changes no mean: so the mean
    of the items is the mean of the runs' means.
    """
    means = [_mean(run.values()) for run in runs]
    known = dict.fromkeys(item for run in runs for item in run)
    return {
        item: _mean(run.get(item, mean) for run, mean in zip(runs, means, strict=True))
        for item in known
    }


def _part(
    runs: Sequence[Mapping[str, Verdict | None]],
    questions: Sequence[str],
    items: Mapping[str, float],
    *,
    official: float | None,
) -> PartScore:
    score, error = mean_and_error(list(items.values()))
    return PartScore(
        official=official,
        score=score,
        standard_error=error,
        num_questions=len(questions),
        num_missing=sum(question not in run for run in runs for question in questions),
        num_unparsable=sum(
            question in run and run[question] is None for run in runs for question in questions
        ),
    )


def _rounded_mean(values: Sequence[float]) -> float | None:
    return round(_mean(values), 1) if values else None


def _mean(values: Iterable[float]) -> float:
    """Summed from first to last, as the official scripts do; sum() of Python 3.12 is another."""
    total, count = 0.0, 0
    for value in values:
        total, count = total + value, count + 1
    return total / count
