"""From a declared finding and a study's settings to a verdict, with its error and margin."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scalesweep.report import formatting as fmt
from scalesweep.report.collect import StudyResults
from scalesweep.report.findings import FINDINGS, MARGIN, Finding, Kind, Measure, Side
from scalesweep.report.labels import flattened
from scalesweep.report.seeds_record import SeedsRecord
from scalesweep.report.settings import Setting, own_spread
from scalesweep.report.statistics import (
    Estimate,
    Spread,
    Term,
    VariancePart,
    block_mean,
    contrast,
    estimate,
)


class Verdict(enum.StrEnum):
    shown = "shown"
    not_shown = "not shown here"
    contrary = "contrary to the paper here"
    cannot_judge = "cannot be judged"


@dataclass(frozen=True, kw_only=True)
class KnownSpread:
    """The spread between seeds that verdicts on one benchmark use."""

    spread: Spread | None
    """None: not known; errors then hold the questions' only."""
    source: str
    """Where it comes from, one sentence."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A finding with what this study says of it."""

    finding: Finding
    verdict: Verdict
    reason: str
    """Why it cannot be judged, or one computed sentence of detail."""
    estimate: Estimate | None = None
    threshold: float = 0.0
    """Shown where the whole interval is above it, contrary where below."""
    settings: tuple[Setting, ...] = ()
    """One per side."""
    values: tuple[float, ...] = ()
    """Score of each side; device-seconds per sample for a cost."""
    num_questions: int = 0
    num_seeds: tuple[int, ...] = ()
    spread: Spread | None = None
    also_differs: tuple[str, ...] = ()
    """Keys of the config, besides those selected by, in which the sides differ."""


def known_spreads(
    results: StudyResults, settings: Sequence[Setting], record: SeedsRecord | None
) -> dict[str, KnownSpread]:
    """Benchmark -> spread between seeds: this study's own, or the record's where it knows more."""
    names = {name for cell in results.cells for name in cell.scores} | {results.primary}
    return {
        name: _known_spread(results, own_spread(settings, name), record, name)
        for name in sorted(names)
    }


def _known_spread(
    results: StudyResults, own: Spread | None, record: SeedsRecord | None, benchmark: str
) -> KnownSpread:
    recorded = record.benchmarks.get(benchmark) if record is not None else None
    if own is not None and (recorded is None or own.df >= recorded.spread.df):
        return KnownSpread(
            spread=own,
            source=f"between seeds of this study ({own.num_settings} settings)",
        )
    if recorded is None or record is None:
        return KnownSpread(
            spread=None,
            source="not known (one seed per cell and no record): errors are of the questions only",
        )
    judges = {
        str(cell.cell.stages["judge"]) for cell in results.cells if "judge" in cell.cell.stages
    }
    covered = len(judges & record.keys)
    source = (
        f"from the shipped record of {record.study} ({recorded.spread.num_settings} settings; "
        f"{covered} of this study's {len(judges)} cells are among them)"
    )
    if not covered:
        source += "; it was measured with other cells or another version than this study's"
    return KnownSpread(spread=recorded.spread, source=source)


def judge_findings(
    settings: Sequence[Setting],
    results: StudyResults,
    spreads: Mapping[str, KnownSpread],
    *,
    findings: Sequence[Finding] = FINDINGS,
) -> tuple[Judged, ...]:
    """All findings, in their order."""
    return tuple(judge(finding, settings, results, spreads) for finding in findings)


def judge(
    finding: Finding,
    settings: Sequence[Setting],
    results: StudyResults,
    spreads: Mapping[str, KnownSpread],
) -> Judged:
    """The verdict on one finding."""
    chosen: list[Setting] = []
    for side in finding.sides:
        matching = [setting for setting in settings if side.selects(setting.config)]
        if len(matching) != 1:
            return _cannot(finding, _why_not_one(side, matching))
        chosen.append(matching[0])
    if finding.measure is Measure.cost:
        return _judge_cost(finding, chosen)
    benchmark = results.primary if finding.measure is Measure.score else results.text_benchmark
    if benchmark is None:
        return _cannot(finding, "no benchmark without pictures was asked")
    return _judge_scores(finding, chosen, benchmark, spreads)


def _why_not_one(side: Side, matching: Sequence[Setting]) -> str:
    if not matching:
        return f"cells missing: {side.name}"
    return f"several settings fit {side.name}: {', '.join(s.label for s in matching)}"


def _cannot(finding: Finding, reason: str) -> Judged:
    return Judged(finding=finding, verdict=Verdict.cannot_judge, reason=reason)


def _verdict(value: Estimate, threshold: float) -> Verdict:
    if value.low > threshold:
        return Verdict.shown
    if value.high < threshold:
        return Verdict.contrary
    return Verdict.not_shown


_WEIGHTS: Mapping[Kind, tuple[float, ...]] = {
    Kind.greater: (1.0, -1.0),
    Kind.not_worse: (1.0, -1.0),
    Kind.repairs_little: (0.5, -1.0, 0.5),
}
_THRESHOLDS = {Kind.not_worse: -MARGIN}


def _judge_scores(
    finding: Finding,
    chosen: Sequence[Setting],
    benchmark: str,
    spreads: Mapping[str, KnownSpread],
) -> Judged:
    weights, terms = _WEIGHTS[finding.kind], []
    for side, setting, weight in zip(finding.sides, chosen, weights, strict=True):
        term = setting.term(benchmark, weight=weight, before=side.before)
        if term is None:
            return _cannot(finding, f"cells missing: {side.name} has no score yet")
        terms.append(term)
    known = spreads.get(benchmark)
    spread = known.spread if known is not None else None
    try:
        found = contrast(terms, spread=spread)
    except ValueError as error:
        return _cannot(finding, str(error))
    threshold = _THRESHOLDS.get(finding.kind, 0.0)
    verdict = _verdict(found.estimate, threshold)
    values = tuple(_mean(term) for term in terms)
    reason = ""
    if finding.kind is Kind.repairs_little:
        verdict, reason = _judge_repair(verdict, terms, values, spread)
    return Judged(
        finding=finding,
        verdict=verdict,
        reason=reason,
        estimate=found.estimate,
        threshold=threshold,
        settings=tuple(chosen),
        values=values,
        num_questions=found.num_questions,
        num_seeds=tuple(term.num_seeds for term in terms),
        spread=spread,
        also_differs=_also_differs(finding, chosen),
    )


def _mean(term: Term) -> float:
    return math.fsum(term.items.values()) / len(term.items)


def _judge_repair(
    verdict: Verdict, terms: Sequence[Term], values: Sequence[float], spread: Spread | None
) -> tuple[Verdict, str]:
    """Nothing can be said of a repair where no loss is shown."""
    harmed, remedied, unharmed = values
    loss = contrast(
        [
            dataclasses.replace(terms[2], weight=1.0),
            dataclasses.replace(terms[0], weight=-1.0),
        ],
        spread=spread,
    )
    if loss.estimate.low <= 0:
        return Verdict.not_shown, f"no loss is shown ({unharmed - harmed:+.3f}): nothing to repair"
    share = (remedied - harmed) / (unharmed - harmed)
    return verdict, f"regains {fmt.percent(share)} of the loss of {unharmed - harmed:.3f}"


def _judge_cost(finding: Finding, chosen: Sequence[Setting]) -> Judged:
    logs: list[tuple[float, VariancePart]] = []
    for side, setting in zip(finding.sides, chosen, strict=True):
        found = _log_cost_per_sample(setting)
        if found is None:
            return _cannot(finding, f"cells missing: {side.name} has no timed steps")
        logs.append(found)
    weights = (1.0, -1.0, -0.5, 0.5)  # -(log after - log before) + half of the big step
    value = sum(weight * log for weight, (log, _) in zip(weights, logs, strict=True))
    parts = [
        VariancePart(variance=weight**2 * part.variance, df=part.df)
        for weight, (_, part) in zip(weights, logs, strict=True)
    ]
    costs = tuple(math.exp(log) for log, _ in logs)
    trainable = [setting.cells[0].cell.num_trainable_params for setting in chosen]
    found_estimate = estimate(value, parts)
    return Judged(
        finding=finding,
        verdict=_verdict(found_estimate, 0.0),
        reason=(
            f"{trainable[1] / trainable[0]:.1f} times the trainable parameters cost "
            f"{costs[1] / costs[0]:.2f} times as much; the next model size costs "
            f"{costs[3] / costs[2]:.2f} times as much"
        ),
        estimate=found_estimate,
        settings=tuple(chosen),
        values=costs,
        num_seeds=tuple(len(setting.cells) for setting in chosen),
        also_differs=(),
    )


def _log_cost_per_sample(setting: Setting) -> tuple[float, VariancePart] | None:
    """Log of device-seconds per sample, from the steps' own times, and its variance."""
    logs, variance, smallest_df = [], 0.0, math.inf
    for cell in setting.cells:
        if len(cell.step_seconds) < 2 or not cell.samples_per_step or not cell.devices:
            continue
        mean, part = block_mean(cell.step_seconds)
        if mean <= 0:
            continue
        logs.append(math.log(mean * cell.devices / cell.samples_per_step))
        variance += part.variance / mean**2  # of a logarithm, to first order
        smallest_df = min(smallest_df, part.df)
    if not logs:
        return None
    return math.fsum(logs) / len(logs), VariancePart(
        variance=variance / len(logs) ** 2, df=smallest_df
    )


_FOLLOWS = {
    "model": ("model", "optim.lr"),
    "resolution": ("resolution",),
    "data_mix": ("data_mix", "batch.global_batch_size", "batch.micro_batch_size"),
    "tuning": ("tuning", "lora", "optim.lr", "zero"),
    "lora": ("lora",),
    "optim": ("optim.lr",),
}
"""Group a finding selects by -> keys that differ with it (recipes follow model and method)."""


def _also_differs(finding: Finding, chosen: Sequence[Setting]) -> tuple[str, ...]:
    """Keys whose values differ between sides although the finding does not vary them."""
    selected: dict[str, set[str]] = {}
    for side in finding.sides:
        for condition in side.where:
            selected.setdefault(condition.key, set()).add(repr(condition))
    varied = {key.partition(".")[0] for key, found in selected.items() if len(found) > 1}
    # A key that only some sides select by (lora.rank of LoRA against full) varies as well.
    varied |= {
        condition.key.partition(".")[0]
        for side in finding.sides
        for condition in side.where
        if any(condition.key not in {c.key for c in other.where} for other in finding.sides)
    }
    allowed = tuple(prefix for group in varied for prefix in _FOLLOWS.get(group, (group,)))
    flats = [flattened(setting.config) for setting in chosen]
    keys = sorted(set().union(*flats))
    return tuple(
        key
        for key in keys
        if len({repr(flat.get(key)) for flat in flats}) > 1
        and not any(key == prefix or key.startswith(f"{prefix}.") for prefix in allowed)
    )
