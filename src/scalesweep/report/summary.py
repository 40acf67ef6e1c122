"""The study in a few computed sentences: its question, where it stands, how it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from scalesweep.report import formatting as fmt
from scalesweep.report.costs import JudgePay, StageCost
from scalesweep.report.slurm_accounting import NamedCharge
from scalesweep.report.stage_results import StageState
from scalesweep.report.study_report import StudyReport
from scalesweep.report.verdicts import Verdict


def question(report: StudyReport) -> tuple[str, str]:
    """The study's question, and what else its sweep file says of it."""
    text = " ".join(report.results.plan.question.split())
    head, mark, rest = text.partition("?")
    if mark:
        return fmt.public(head + mark), fmt.public(rest.strip())
    return fmt.public(text) or f"Study {report.results.plan.study}", ""


def progress(report: StudyReport) -> str:
    """Where an unfinished study stands; empty for a finished one."""
    results = report.results
    if results.num_done == len(results.cells):
        return ""
    states = Counter(cell.state for cell in results.cells if cell.state is not StageState.done)
    said = ", ".join(f"{number} {_STATE_WORDS[state]}" for state, number in states.items())
    return (
        f"Not finished: {results.num_done} of {fmt.plural(len(results.cells), 'cell')} done, "
        f"{said}. The same line typed again continues."
    )


_STATE_WORDS = {
    StageState.missing: "not started or waiting",
    StageState.stale: "made from inputs that have changed since",
    StageState.running: "running",
    StageState.failed: "failed",
    StageState.interrupted: "interrupted",
    StageState.killed: "killed",
}


def findings_summary(report: StudyReport) -> str:
    """How many findings came out how; the check of the study itself is not among them."""
    counts = Counter(f.verdict for f in report.findings if f.finding.paper != "check")
    total = sum(counts.values())
    if not total:
        return ""
    words = [
        f"{counts[verdict]} {text}"
        for verdict, text in (
            (Verdict.shown, "shown"),
            (Verdict.not_shown, "not shown here"),
            (Verdict.contrary, "contrary to the paper here"),
            (Verdict.cannot_judge, "that cannot be judged"),
        )
        if counts[verdict]
    ]
    return f"Of {total} comparisons after the paper's findings: {', '.join(words)}."


def price_notes(report: StudyReport) -> list[str]:
    """What a node-hour was taken to cost; an example is called one."""
    notes = []
    for price in report.results.prices:
        node = fmt.plural(price.node_devices, "device")
        text = (
            f"{fmt.usd(price.usd_per_node_hour)} per node-hour on {price.cluster} ({node} a node)"
        )
        if price.is_example:
            text += ": an example price, nobody's offer"
        notes.append(fmt.sentence(f"Price: {text}"))
    if (repriced := report.results.repriced) is not None:
        charged = dict.fromkeys(fmt.usd(price.usd_per_node_hour) for price in repriced.charged)
        notes.append(
            f"Repriced for this report (--price={repriced.asked}): what attempts held, at another "
            f"price than counted when they ran ({', '.join(charged)} per node-hour)."
        )
    return notes


def method_notes(report: StudyReport) -> list[str]:
    """How scores, errors and verdicts were made."""
    results = report.results
    notes = [error_note(report)]
    notes.append(
        "Differences are compared in pairs, question by question; their variance is that of the "
        "questions plus that of the seeds, with Welch-Satterthwaite degrees of freedom. The "
        "luck of one base model and one vision tower per size is not covered, nor is the choice "
        "among several comparisons."
    )
    if report.has_seeds:
        notes.append("Scores and costs are means over the seeds of a setting.")
    missing = sum(c.scores[n].num_missing for c in results.cells for n in c.scores)
    if missing:
        notes.append(f"{fmt.plural(missing, 'answer')} without a verdict: missing, not wrong.")
    return notes


def error_sources(report: StudyReport) -> str:
    """What stands in the errors of scores: "the questions, the seeds and the judge runs"."""
    parts = [found for s in report.settings if (found := report.error_parts(s)) is not None]
    judged = [part.judging is not None for part in parts]
    held = ["the questions"]
    if report.spread(report.primary) is not None:
        held.append("the seeds")
    if any(judged):
        held.append("the judge runs" if all(judged) else "the judge runs where there are several")
    return fmt.listed(held)


def error_note(report: StudyReport) -> str:
    """Which sources of chance stand in the ± of scores, and which do not."""
    said = [f"± is one standard error, of {error_sources(report)}."]
    known = report.spreads.get(report.primary)
    if known is not None and known.spread is not None:
        said.append(
            f"Standard deviation between seeds: {known.spread.standard_deviation:.4f} "
            f"({known.spread.df} degrees of freedom), {known.source}."
        )
    else:
        said.append(
            "The spread between seeds is not known (one seed per cell and no record of it): "
            "differences look surer than they are."
        )
    scored = [
        cell.scores[report.primary] for s in report.settings for cell in s.scored(report.primary)
    ]
    if any(score.judge_model and len(score.runs) < 2 for score in scored):
        said.append("Where a judge was asked once, the spread between judge runs is not known.")
    return " ".join(said)


MOST_NAMED = 20
"""Attempts that one note names; JSON has all."""


def account_notes(report: StudyReport) -> list[str]:
    """Where the costs of Slurm jobs are from, and how long they waited; empty without such jobs."""
    account = report.results.account
    if account is None:
        return []
    lost, total = account.by_journal, account.num_by_sacct + len(account.by_journal)
    also = (
        f" {fmt.plural(account.num_local, 'attempt')} of local commands: by their own journals."
        if account.num_local
        else ""
    )
    problem = fmt.public(account.problem)
    notes = []
    if total and not account.num_by_sacct:
        why = f"no Slurm accounting: {problem}" if problem else "sacct knows none of them"
        notes.append(f"Costs: from the attempts' own journals ({why}).{also}")
    elif total:
        said = f"sacct for {account.num_by_sacct} of {fmt.plural(total, 'attempt')}"
        if problem:
            said += f", as kept from earlier (now: {problem})"
        if lost:
            whose = "its" if len(lost) == 1 else "their"
            said += f"; by {whose} own journal: {_named(lost)}"
        notes.append(f"Costs: {said}.{also}")
    if account.idle:
        notes.append(
            f"Start-up includes {fmt.plural(len(account.idle), 'run')} of a job without an "
            f"attempt: {_named(account.idle)}."
        )
    if account.queued_s == 0:
        notes.append("Jobs did not wait in the queue.")
    elif account.queued_s is not None:
        kinds = [
            f"{kind} {fmt.duration(waited)}"
            for kind in report.results.cost_by_kind
            if (waited := report.results.queued_s(kind))
        ]
        parts = f" ({', '.join(kinds)})" if len(kinds) > 1 else ""
        notes.append(
            f"Jobs waited {fmt.duration(account.queued_s)} in the queue{parts}, counted from when "
            "nothing but room was missing; that is not in the costs."
        )
    return notes


def _named(charges: Sequence[NamedCharge]) -> str:
    names = [
        f"{charge.stage} {charge.what}, "
        + ("no record" if charge.seconds is None else f"{charge.seconds:.1f} s")
        for charge in charges[:MOST_NAMED]
    ]
    if len(charges) > MOST_NAMED:
        names.append(f"and {len(charges) - MOST_NAMED} more (--format json names all)")
    return "; ".join(names)


def judging_note(judging: JudgePay) -> str:
    """What judges were paid, which is in no node-hour."""
    replies = f"{judging.num_replies:,} {'reply' if judging.num_replies == 1 else 'replies'}"
    if judging.usd is None:
        return (
            f"Judges gave {replies}; what they cost is not known (judge.prices), nor in any cost."
        )
    text = f"Judges were paid {fmt.usd(judging.usd)} for {replies}."
    if judging.unsure_usd:
        text += f" Calls without a reply may have cost up to {fmt.usd(judging.unsure_usd)} more."
    return text


def cost_notes(report: StudyReport) -> list[str]:
    """What is in the costs and what is not."""
    results = report.results
    cost = results.total
    hours = f"{cost.total.node_hours:.4f} node-hours"
    share = fmt.usd(cost.total.usd) if report.has_prices else hours
    notes = [
        "Tune is the tune stage's cost (the paper's table 4), standalone all stages of the cell "
        "as if it were alone, share its part when shared stages are divided equally over the "
        f"cells that need them: all shares add up to {share}. Every attempt counts, also "
        "failed ones.",
        *price_notes(report),
    ]
    if results.judging is not None:
        notes.append(f"{judging_note(results.judging)} No other column has that in it.")
        if report.has_prices and results.judging.micro_usd:
            notes.append("Pareto front, answer and figures take alone $ and judge $ together.")
    if any("base" not in cell.cell.stages for cell in results.cells):
        notes.append(
            "The making of base models and vision towers that are given, not trained by this "
            "study, is not in the costs."
        )
    notes += payer_notes(report)
    if any(not setting.costs_are_whole for setting in report.settings):
        notes.append("≥ marks costs of cells that are not finished.")
    notes += running_notes(report)
    return notes


def running_notes(report: StudyReport) -> list[str]:
    """Costs that still grow; nothing where no attempt runs."""
    running = [row for row in report.results.ledger if row.is_running]
    if not running:
        return []
    verb = "runs" if len(running) == 1 else "run"
    return [
        f"{fmt.plural(len(running), 'attempt')} still {verb}: costs so far, up to the last record "
        "of each, are marked ≥."
    ]


def payer_notes(report: StudyReport) -> list[str]:
    """What this study paid itself, and what it reuses; nothing where no other has to do with it."""
    results = report.results
    paid = dict(results.paid_by)
    here, unknown = paid.pop(results.plan.study, None), paid.pop("", None)
    if not paid and not (unknown and results.other_studies):
        return []

    def shown(cost: StageCost | None) -> str:  # to the last digit, so that parts add up
        whole = cost.total if cost is not None else StageCost().total
        return f"${whole.usd:,.6f}" if report.has_prices else f"{whole.node_hours:.6f} node-hours"

    notes = []
    if here or paid:
        reused = ", ".join(f"{shown(cost)} paid by {name}" for name, cost in sorted(paid.items()))
        notes.append(
            f"Of all stages' costs {shown(here)} was paid here"
            + (f"; reused from other studies: {reused}." if reused else ".")
        )
    if unknown is not None:
        notes.append(
            f"Not told apart: {shown(unknown)} of attempts from before it was written down which "
            "study paid."
        )
    if results.other_studies:
        others = ", ".join(f"{n} with {name}" for name, n in results.other_studies.items())
        notes.append(f"Stages shared with other studies of this store: {others}.")
    return notes
