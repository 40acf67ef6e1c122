"""The report's tables, as rows of texts with what to sort them by; renderers lay them out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from scalesweep.cost_model.cost import Cost
from scalesweep.records import StageKind
from scalesweep.report import formatting as fmt
from scalesweep.report.collect import CellResult
from scalesweep.report.costs import JudgePay
from scalesweep.report.front_table import front_table
from scalesweep.report.labels import usual_values, value_at
from scalesweep.report.pairs_table import pairs_table
from scalesweep.report.render_ledger import tables as ledger_tables
from scalesweep.report.settings import ErrorParts, Setting
from scalesweep.report.sizes_table import sizes_table
from scalesweep.report.stage_results import StageState
from scalesweep.report.study_report import StudyReport
from scalesweep.report.summary import account_notes, cost_notes, method_notes
from scalesweep.report.table import Column, Entry, Table
from scalesweep.report.verdicts import Judged


def cost_table(report: StudyReport) -> Table:
    """The layout of the paper's table 4: score, node-hours, dollars, trainable parameters."""
    columns = [
        Column(title="setting", is_number=False, hint="* is on the Pareto front"),
        Column(title="score", hint=f"{report.primary}, ± one standard error"),
        Column(title="tune h", hint="node-hours of the tune stage, as in the paper"),
    ]
    has_judges = report.results.judging is not None
    costs: list[tuple[Callable[[Setting], float], Callable[[Setting, int], Entry]]] = []
    if report.has_prices:
        names = (
            ("tune", "tune $", "the tune stage"),
            ("standalone", "alone $", "all stages of the cell, whole"),
            ("share", "share $", "shared stages divided equally over the cells that need them"),
        )
        for name, title, hint in names:
            columns.append(Column(title=title, hint=hint))
            costs.append(_cost_column(name, lambda cost: cost.usd))
    else:
        for name, title in (("standalone", "alone h"), ("share", "share h")):
            columns.append(Column(title=title, hint="node-hours"))
            costs.append(_cost_column(name, lambda cost: cost.node_hours))
    if has_judges:
        columns.append(JUDGE_COLUMN)
    columns.append(Column(title="trained", hint="parameters that the tune stage changes"))
    hours_value, hours_entry = _cost_column("tune", lambda cost: cost.node_hours)
    hours_decimals = fmt.decimals_for((hours_value(s) for s in report.settings), most=5)
    # As many decimals for all dollars, so that columns can be compared.
    values = [value(s) for value, _ in costs for s in report.settings]
    decimals = fmt.decimals_for(values, most=5)
    rows = []
    for setting in report.settings:
        rows.append(
            (
                _setting_entry(report, setting),
                score_entry(report, setting, report.primary),
                hours_entry(setting, hours_decimals),
                *(entry(setting, decimals) for _, entry in costs),
                *([judge_entry(setting.cells, decimals=decimals)] if has_judges else []),
                Entry(
                    text=fmt.count(setting.cells[0].cell.num_trainable_params),
                    sort=setting.cells[0].cell.num_trainable_params,
                    hint=f"{setting.cells[0].cell.num_trainable_params:,} of "
                    f"{setting.cells[0].cell.num_params:,}",
                ),
            )
        )
    usual = usual_values([cell.cell for cell in report.results.cells])
    return Table(
        id="cost",
        title="Cost and score",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(
            *(["Unless a row says otherwise: " + "; ".join(usual) + "."] if usual else []),
            "* is on the Pareto front: no cheaper setting scores as high.",
            *method_notes(report)[:1],
            *cost_notes(report),
        ),
    )


def _cost_column(
    name: str, unit: Callable[[Cost], float]
) -> tuple[Callable[[Setting], float], Callable[[Setting, int], Entry]]:
    def value(setting: Setting) -> float:
        return unit(setting.mean_cost(name))

    def entry(setting: Setting, decimals: int) -> Entry:
        number = value(setting)
        text = fmt.number(number, decimals=decimals)
        if not setting.costs_are_whole:
            text = f"≥{text}" if number else fmt.NOTHING
        return Entry(text=text, sort=number)

    return value, entry


JUDGE_COLUMN = Column(title="judge $", hint="what judges were paid, besides")


def judge_entry(cells: Sequence[CellResult], *, decimals: int) -> Entry:
    """Mean over a setting's cells; ≥ where more is to come, or a part of it is not known."""
    usd = statistics.fmean(cell.costs.judging.usd for cell in cells)
    is_known = all(cell.costs.judge.usd is not None for cell in cells)
    text = fmt.number(usd, decimals=decimals)
    if not is_known or not all(cell.costs_are_whole for cell in cells):
        text = f"≥{text}" if usd else fmt.NOTHING
    hint = "" if is_known else "the judge has no price (judge.prices)"
    return Entry(text=text, sort=usd, hint=hint)


def _setting_entry(report: StudyReport, setting: Setting) -> Entry:
    on_front = setting in report.front
    return Entry(
        text=f"{setting.label} *" if on_front else setting.label,
        hint=", ".join(cell.cell.name for cell in setting.cells),
        tone="best" if on_front else "faint" if setting.is_blind else "",
    )


def score_entry(report: StudyReport, setting: Setting, benchmark: str) -> Entry:
    """Score ± standard error, or what became of the cell."""
    value = setting.score(benchmark)
    if value is None:
        state = next((c.state for c in setting.cells if c.state is not StageState.done), None)
        if state is None:  # done, and this benchmark was not asked
            return Entry(text=fmt.NOTHING, sort=-1.0, tone="faint")
        cause = fmt.public(setting.cells[0].cause)
        return Entry(text=str(state), sort=-1.0, hint=cause, tone="faint")
    seeds = " ".join(f"{cell.scores[benchmark].score:.3f}" for cell in setting.scored(benchmark))
    parts = setting.error_parts(benchmark, report.spread(benchmark))
    hints = [
        f"by seed: {seeds}" if len(setting.cells) > 1 else "",
        f"± of {_errors_text(parts)}" if parts is not None else "",
    ]
    return Entry(
        text=fmt.score_with_error(value, report.standard_error(setting, benchmark)),
        sort=value,
        hint="; ".join(filter(None, hints)),
    )


def _errors_text(parts: ErrorParts) -> str:
    """ "questions 0.013, seeds 0.017": standard errors by where they come from."""
    return ", ".join(
        f"{name.replace('_', ' ')} {math.sqrt(variance):.3f}"
        for name, variance in parts.by_source.items()
        if variance is not None
    )


def grid_table(report: StudyReport) -> Table | None:
    """Model size by resolution and data mix, under full tuning; the blind baseline beside.

    None where nothing but one point of the grid is there.
    """
    full = [s for s in report.settings if value_at(s.config, "tuning.method") == "full"]
    sighted = [setting for setting in full if not setting.is_blind]
    models = _models(sighted)
    columns = sorted({_picture_point(setting) for setting in sighted})
    if len(models) * len(columns) < 2:
        return None
    blind_columns = sorted({_picture_point(setting) for setting in full if setting.is_blind})
    rows = []
    for model in models:
        entries = [Entry(text=model, tone="")]
        for is_blind, points in ((False, columns), (True, blind_columns)):
            for point in points:
                here = [
                    s
                    for s in full
                    if s.is_blind is is_blind
                    and value_at(s.config, "model.name") == model
                    and _picture_point(s) == point
                ]
                entries.append(
                    score_entry(report, here[0], report.primary)
                    if len(here) == 1
                    else Entry(text=fmt.NOTHING, sort=-2.0, tone="faint")
                )
        rows.append(tuple(entries))
    return Table(
        id="grid",
        title="Model size, resolution and data mix (full tuning)",
        columns=(
            Column(title="model", is_number=False),
            *(Column(title=f"{name} {mix}") for _, name, mix in columns),
            *(Column(title=f"blind {name} {mix}") for _, name, mix in blind_columns),
        ),
        rows=tuple(rows),
        notes=("Blind: every pixel is zero; what it scores is guessed from the question.",)
        if blind_columns
        else (),
    )


def _models(settings: Sequence[Setting]) -> list[str]:
    """Model names by size."""
    sizes: dict[str, int] = {}
    for setting in settings:
        sizes.setdefault(
            str(value_at(setting.config, "model.name")), setting.cells[0].cell.num_params
        )
    return sorted(sizes, key=lambda name: sizes[name])


def _picture_point(setting: Setting) -> tuple[int, str, str]:
    return (
        int(value_at(setting.config, "resolution.pixels") or 0),
        str(value_at(setting.config, "resolution.name") or ""),
        str(value_at(setting.config, "data_mix.name") or ""),
    )


def language_table(report: StudyReport) -> Table | None:
    """Beside each score: the blind baseline, and the text score before and after tuning."""
    text = report.results.text_benchmark
    if text is None:
        return None
    rows = []
    for setting in report.settings:
        blind = report.blind_twin(setting)
        before, after = setting.before(text), setting.score(text)
        change = after - before if before is not None and after is not None else None
        rows.append(
            (
                Entry(text=setting.label, tone="faint" if setting.is_blind else ""),
                score_entry(report, setting, report.primary),
                _number_entry(blind.score(report.primary) if blind is not None else None),
                _number_entry(before),
                _number_entry(after),
                Entry(
                    text=fmt.signed(change),
                    sort=change if change is not None else -2.0,
                    tone="" if change is not None else "faint",
                ),
            )
        )
    return Table(
        id="language",
        title="Pictures, blind baseline, and language before and after",
        columns=(
            Column(title="setting", is_number=False),
            Column(title="score", hint=report.primary),
            Column(title="blind", hint="the same setting with every pixel zero"),
            Column(title="text before", hint=f"{text}, the language model before tuning"),
            Column(title="text after", hint=f"{text}, after tuning"),
            Column(title="change"),
        ),
        rows=tuple(rows),
        notes=(
            f"Score: {report.primary}. Text: {text}, questions without a picture. Blind: the "
            "same setting with every pixel zero, where the study has it.",
        ),
    )


def _number_entry(value: float | None) -> Entry:
    return Entry(
        text=fmt.score(value),
        sort=value if value is not None else -2.0,
        tone="" if value is not None else "faint",
    )


def category_table(report: StudyReport) -> Table | None:
    """Score by kind of question."""
    names = sorted(
        {
            category
            for cell in report.results.cells
            if report.primary in cell.scores
            for category in cell.scores[report.primary].categories
        }
    )
    if not names:
        return None
    return Table(
        id="categories",
        title="Score by kind of question",
        columns=(Column(title="setting", is_number=False), *(Column(title=n) for n in names)),
        rows=tuple(
            (
                Entry(text=setting.label, tone="faint" if setting.is_blind else ""),
                *(
                    _share_entry(setting.category_score(report.primary, category))
                    for category in names
                ),
            )
            for setting in report.settings
            if setting.score(report.primary) is not None
        ),
    )


def _share_entry(value: float | None) -> Entry:
    entry = _number_entry(value)
    return entry if value is None else Entry(text=f"{value:.2f}", sort=value)


def findings_table(report: StudyReport) -> Table | None:
    """The paper's findings with verdicts; None where they are not of this study."""
    if not report.findings:
        return None
    return Table(
        id="findings",
        title="The paper's findings, here",
        columns=(
            Column(title="paper", is_number=False, hint="number of the finding"),
            Column(title="finding", is_number=False),
            Column(title="verdict", is_number=False),
            Column(title="difference"),
            Column(title="SE"),
            Column(title="df"),
            Column(title="95 % interval"),
            Column(title="must be above"),
        ),
        rows=tuple(_finding_row(judged) for judged in report.findings),
        notes=tuple(method_notes(report)[1:]),
    )


def _finding_row(judged: Judged) -> tuple[Entry, ...]:
    claim = judged.finding.claim + (f" ({judged.reason})" if judged.reason else "")
    value = judged.estimate
    head = (
        Entry(text=judged.finding.paper),
        Entry(text=claim, hint=f"paper: {judged.finding.paper_says}"),
        Entry(text=str(judged.verdict), tone=judged.verdict.name),
    )
    if value is None:
        return (*head, *(Entry(text=fmt.NOTHING, tone="faint") for _ in range(5)))
    return (
        *head,
        Entry(text=fmt.signed(value.value), sort=value.value),
        Entry(text=f"{value.standard_error:.3f}", sort=value.standard_error),
        Entry(text=fmt.degrees_of_freedom(value.df), sort=value.df),
        Entry(text=interval(judged), sort=value.low),
        Entry(text=threshold(judged), sort=judged.threshold),
    )


def interval(judged: Judged) -> str:
    value = judged.estimate
    if value is None:
        return fmt.NOTHING
    return f"{fmt.signed(value.low)} to {fmt.signed(value.high)}"


def threshold(judged: Judged) -> str:
    return f"{judged.threshold:.2f}".replace("-", "−") if judged.threshold else "0"


def kinds_table(report: StudyReport, *, is_narrow: bool = False) -> Table:
    """What the whole study cost, by kind of stage.

    is_narrow: without the wait in Slurm's queue, which the notes give too.
    """
    results = report.results
    has_queue = results.account is not None and not is_narrow
    has_judges = results.judging is not None
    decimals = fmt.decimals_for(
        cost.total.usd if report.has_prices else cost.total.node_hours
        for cost in results.cost_by_kind.values()
    )
    rows = []
    running = {row.stage.kind for row in results.ledger if row.is_running}
    for kind, cost in [*results.cost_by_kind.items(), (None, results.total)]:
        is_so_far = kind in running or (kind is None and bool(running))
        dollars = fmt.number(cost.total.usd, decimals=decimals)
        stages = [s for s in results.stages.values() if kind is None or s.kind is kind]
        rows.append(
            (
                Entry(text=str(kind) if kind is not None else "all", tone="" if kind else "best"),
                _count_entry(len(stages)),
                _count_entry(sum(len(stage.attempts) for stage in stages)),
                _duration_entry(cost.total.device_seconds),
                _duration_entry(cost.startup.device_seconds),
                _duration_entry(cost.lost.device_seconds),
                *([_wait_entry(results.queued_s(kind))] if has_queue else []),
                Entry(
                    text=fmt.number(cost.total.node_hours, decimals=4),
                    sort=cost.total.node_hours,
                ),
                Entry(text=f"≥{dollars}" if is_so_far else dollars, sort=cost.total.usd),
                *([_judges_entry(report, kind, decimals=decimals)] if has_judges else []),
            )
        )
    return Table(
        id="kinds",
        title="What the study cost, by kind of stage",
        columns=(
            Column(title="stage", is_number=False),
            Column(title="stages"),
            Column(title="attempts"),
            Column(title="device time", hint="devices x time held, every attempt"),
            Column(title="start-up", hint="of it, before the first sample was worked on"),
            Column(title="lost", hint="of it, work done again or that ended in an error"),
            *(
                [Column(title="queue", hint="time jobs waited for room; not in the costs")]
                if has_queue
                else []
            ),
            Column(title="node-h"),
            Column(title="$"),
            *([JUDGE_COLUMN] if has_judges else []),
        ),
        rows=tuple(rows),
        notes=(
            "Device time counts every attempt. Of it, start-up is what passed before the first "
            "sample, and lost is work that was done again or ended in an error. Evaluation is "
            "generate and judge.",
            *account_notes(report),
        ),
    )


def _judges_entry(report: StudyReport, kind: StageKind | None, *, decimals: int) -> Entry:
    results = report.results
    paid = sum(
        (pay for ref, pay in results.judges.items() if kind is None or ref.kind is kind), JudgePay()
    )
    usd = paid.micro_usd / 1e6
    if not paid.num_asked:
        return Entry(text=fmt.NOTHING, sort=0.0, tone="faint")
    sign = "≥" if paid.num_unpriced else ""
    return Entry(text=sign + fmt.number(usd, decimals=decimals), sort=usd)


def _count_entry(value: int) -> Entry:
    return Entry(text=str(value), sort=value)


def _duration_entry(seconds: float) -> Entry:
    if not seconds:
        return Entry(text="0", sort=0.0, tone="faint")
    return Entry(text=fmt.duration(seconds), sort=seconds)


def _wait_entry(seconds: int | None) -> Entry:
    if seconds is None:
        return Entry(text=fmt.NOTHING, sort=-1.0, tone="faint")
    return _duration_entry(seconds)


_STATE_TONES = {StageState.failed: "contrary", StageState.killed: "contrary"}


def unfinished_table(report: StudyReport) -> Table | None:
    """Cells that are not done, and why; None where all are."""
    cells = [cell for cell in report.results.cells if cell.state is not StageState.done]
    if not cells:
        return None
    return Table(
        id="unfinished",
        title="Not finished",
        columns=(
            Column(title="cell", is_number=False),
            Column(title="state", is_number=False),
            Column(title="because", is_number=False),
        ),
        rows=tuple(
            (
                Entry(text=cell.cell.name),
                Entry(text=str(cell.state), tone=_STATE_TONES.get(cell.state, "")),
                Entry(text=fmt.public(cell.cause)),
            )
            for cell in cells
        ),
    )


def all_tables(report: StudyReport) -> list[Table]:
    """In the order in which a report shows them."""
    tables = [
        cost_table(report),
        front_table(report),
        pairs_table(report),
        sizes_table(report),
        unfinished_table(report),
        grid_table(report),
        language_table(report),
        category_table(report),
        findings_table(report),
        kinds_table(report),
        *ledger_tables(report),
    ]
    return [table for table in tables if table is not None]
