"""What a study answers, in sentences for the top of its report."""

from __future__ import annotations

from collections.abc import Callable

from scalesweep.report import formatting as fmt
from scalesweep.report.best_under import BestUnder
from scalesweep.report.distinguishable import Pair
from scalesweep.report.extrapolation import Extrapolated
from scalesweep.report.marginal import Step
from scalesweep.report.settings import Setting
from scalesweep.report.size_groups import (
    SizeExtrapolation,
    size_extrapolations,
    why_no_extrapolation,
)
from scalesweep.report.statistics import CONFIDENCE
from scalesweep.report.study_report import StudyReport, comparable_settings


def answer_sentences(report: StudyReport) -> list[str]:
    """The answer, then what else follows from cost and score; one paragraph each."""
    found = report.best_under
    sentences = [
        answer(report),
        best_under_text(report, found) if found is not None else "",
        front_text(report),
        pairs_text(report),
        sizes_text(report),
    ]
    return [sentence for sentence in sentences if sentence]


def cost_text(report: StudyReport, setting: Setting) -> str:
    """Its standalone cost with what judges were paid, with unit."""
    return report.unit.text(report.cost(setting))


def answer(report: StudyReport) -> str:
    """One sentence: the best setting, and the cheapest that cannot be told apart from it."""
    settings = comparable_settings(report)
    if not settings:
        if not any("judge" in cell.cell.stages for cell in report.results.cells):
            return "This study ends before its checkpoints are scored."
        return "No setting is finished and scored yet."
    best = max(settings, key=lambda s: (s.score(report.primary) or 0.0, -report.cost(s)))
    lead = f"{_scores_highest(report, best)}, for {cost_text(report, best)} a run"
    if len(settings) == 1:
        return f"{lead}; there is no other setting to compare it with."
    cheaper = sorted((s for s in settings if report.cost(s) < report.cost(best)), key=report.cost)
    if not cheaper:
        return f"{lead}, and none is cheaper."
    pairs = [(setting, report.pair(best, setting)) for setting in cheaper]
    for setting, pair in pairs:
        if pair is not None and not pair.is_told_apart:
            less = fmt.percent(1 - report.cost(setting) / report.cost(best))
            return f"{lead}; {setting.label} costs {less} less and {_alike(report, pair)}."
    if strangers := [setting.label for setting, pair in pairs if pair is None]:
        return (
            f"{lead}; too few questions were answered by both to compare it with "
            f"{fmt.listed(strangers)}, cheaper."
        )
    return (
        f"{lead}; every cheaper setting scores lower by more than chance explains "
        f"(95 %{_of_all_pairs(report)})."
    )


def _scores_highest(report: StudyReport, setting: Setting) -> str:
    score = fmt.score_with_error(setting.score(report.primary), report.standard_error(setting))
    return f"{setting.label} scores highest, {score}"


def _alike(report: StudyReport, pair: Pair) -> str:
    """That a pair is not told apart, by itself or only with all others, with its numbers."""
    value = pair.difference
    numbers = (
        f"difference {fmt.plain_signed(value.value)}, 95 % interval "
        f"{fmt.plain_signed(value.low)} to {fmt.plain_signed(value.high)}"
    )
    if pair.p > 1 - CONFIDENCE:
        return f"cannot be told apart from it ({numbers})"
    return (
        f"is not surely worse: {numbers} by itself, but p is {fmt.p_value(pair.corrected_p)} when "
        f"all {len(report.pairs)} pairs are judged together"
    )


def _of_all_pairs(report: StudyReport) -> str:
    """What was corrected for; nothing where there was one pair alone."""
    count = len(report.pairs)
    return f"; all {count} pairs judged together" if count > 1 else ""


def best_under_text(report: StudyReport, found: BestUnder) -> str:
    """The best under the ceiling, and what is cheaper and not told apart from it."""
    unit = found.ceiling.unit

    def price(setting: Setting) -> str:
        return unit.text(unit.of(setting.mean_cost("whole")))

    left_out = len([s for s in report.settings if not s.is_blind]) - len(
        comparable_settings(report)
    )
    unfinished = (
        f" {fmt.plural(left_out, 'setting')} without a score or a whole cost "
        f"{'is' if left_out == 1 else 'are'} not among them."
        if left_out
        else ""
    )
    if found.best is None:
        if found.cheapest is None:
            return f"Under {found.ceiling.text} a run: no setting is finished and scored yet."
        return (
            f"Under {found.ceiling.text} a run: nothing; the cheapest, {found.cheapest.label}, "
            f"costs {price(found.cheapest)}.{unfinished}"
        )
    text = (
        f"Under {found.ceiling.text} a run, of {fmt.plural(len(found.affordable), 'setting')}: "
        f"{_scores_highest(report, found.best)}, for {price(found.best)}"
    )
    if found.best is found.affordable[0]:
        return f"{text}; it is the cheapest.{unfinished}"
    if not found.alike:
        return f"{text}; every cheaper one is told apart from it.{unfinished}"
    named = fmt.listed([f"{setting.label} ({price(setting)})" for setting in found.alike])
    return f"{text}; cheaper and not told apart from it: {named}.{unfinished}"


def front_text(report: StudyReport) -> str:
    """What a point of score costs from one setting to the next that is really better."""
    if len(report.front) < 2:
        return ""
    steps = report.shown_steps
    if not steps:
        return (
            f"No step along the Pareto front ({len(report.front)} settings) gains more than "
            "chance explains: what a point of score costs cannot be said."
        )
    said = "; ".join(_step_text(report, step) for step in steps)
    rest = (
        ". What is dearer still on the front gains no more than chance explains"
        if steps[-1].after is not report.front[-1]
        else ""
    )
    return f"Along the Pareto front a point of score (0.01) costs {said}{rest}."


def _step_text(report: StudyReport, step: Step) -> str:
    price = step.per_point
    assert price is not None, "shown steps have a price"
    value, low, high = report.unit.texts(price.value, price.low, price.high)
    return f"{value} ({low} to {high}, 95 %) from {step.before.label} to {step.after.label}"


def pairs_text(report: StudyReport) -> str:
    """How many pairs are told apart; nothing where the answer has said it of the only one."""
    told = sum(pair.is_told_apart for pair in report.pairs)
    if len(report.pairs) < 2:
        return ""
    return (
        f"Of {len(report.pairs)} pairs of settings {told or 'none'} "
        f"{'is' if told < 2 else 'are'} told apart (paired over questions, corrected for their "
        "number)."
    )


def sizes_text(report: StudyReport) -> str:
    """What the smaller sizes foretell of the largest, and whether it came so."""
    found = size_extrapolations(report)
    asked = [one for one in found if one.is_asked]
    why_not = why_no_extrapolation(report)
    if asked or (len(found) == 1 and not why_not):
        return " ".join(_size_text(report, one) for one in asked or found)
    if why_not or not found:
        return why_not
    graded = [one.is_inside for each in found for one in (each.score, each.cost) if one is not None]
    known = [inside for inside in graded if inside is not None]
    text = f"{len(found)} sizes are extrapolated from smaller ones"
    if not known:
        return f"{text}; none can be graded: no interval, or nothing measured yet."
    return f"{text}; {sum(known)} of {len(known)} measured values lie in the 95 % interval."


def _size_text(report: StudyReport, one: SizeExtrapolation) -> str:
    score, cost = one.score, one.cost
    said_once = cost is not None and cost.why_no_interval == score.why_no_interval
    text = (
        f"By {fmt.listed(one.smaller_models)} alone, {one.target} would score "
        f"{_expected(score, fmt.plain_signed, says_why=not said_once)}"
    )
    if cost is not None:
        text += f" and its tune stage cost {_expected(cost, report.unit.text)}"
    measured = [fmt.plain_signed(score.measured)] if score.measured is not None else []
    if cost is not None and cost.measured is not None:
        measured.append(report.unit.text(cost.measured))
    return f"{text}; measured: {fmt.listed(measured)}." if measured else f"{text}."


def _expected(found: Extrapolated, text: Callable[[float], str], *, says_why: bool = True) -> str:
    if found.interval is None:
        why = f" (no interval: {found.why_no_interval})" if says_why else ""
        return f"{text(found.value)}{why}"
    return f"{text(found.value)} ({text(found.interval.low)} to {text(found.interval.high)}, 95 %)"
