"""A paper's table with a study's numbers beside the published ones, not yet laid out. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scalesweep.errors import ConfigError
from scalesweep.report.labels import value_at
from scalesweep.report.paper.beside_score import Value, beside_score, cost_notes
from scalesweep.report.paper.published import TABLES, Measure, Published, Quantity, Row
from scalesweep.report.scores import AnsweringTime, BenchmarkResult, CategoryResult
from scalesweep.report.settings import Setting
from scalesweep.report.study_report import StudyReport

PAPER, HERE = "paper", "here"


@dataclass(frozen=True, kw_only=True)
class Line:
    label: str
    source: str
    """PAPER | HERE."""
    values: tuple[Value | None, ...]
    """One per measure."""
    speed: AnsweringTime | None = None


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    name: str
    title: str
    measures: tuple[Measure, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    shows_speed: bool


def paper_table(name: str, report: StudyReport) -> PaperTable:
    """A table of the paper, with this study's cells where they are its rows, and beside it where
    they are not.

    Raises:
        ConfigError: there is no such table, or the study scores nothing that it shows.
    """
    if name not in TABLES:
        raise ConfigError(f"--paper={name}: choose one of {', '.join(TABLES)}")
    published = TABLES[name]
    asked = _benchmarks(published)
    scored = {b for cell in report.results.cells for b in (*cell.scores, *cell.before)}
    if not (scored.intersection(asked) or _shows_costs(published)):
        has = ", ".join(sorted(scored)) or "nothing yet"
        raise ConfigError(
            f"--paper={name}: shows {', '.join(sorted(asked))}, but study "
            f"{report.results.plan.study} has scores of {has}; take evaluation=paper, or one of "
            "its benchmarks"
        )
    lines = tuple(_lines(published, report))
    if _shows_costs(published) and not any(line.source == HERE for line in lines):
        raise ConfigError(
            f"--paper={name}: nothing of study {report.results.plan.study} is tuned yet"
        )
    return PaperTable(
        name=name,
        title=published.title,
        measures=published.measures,
        lines=lines,
        notes=(*published.notes, *_notes(published, report)),
        shows_speed=published.shows_speed and any(line.speed is not None for line in lines),
    )


def _benchmarks(published: Published) -> list[str]:
    return list(dict.fromkeys(m.benchmark for m in published.measures if m.benchmark))


def _shows_costs(published: Published) -> bool:
    return any(measure.quantity is not Quantity.score for measure in published.measures)


def _lines(published: Published, report: StudyReport) -> Iterator[Line]:
    shown: set[str] = set()
    for row in published.rows:
        yield Line(label=row.label, source=PAPER, values=tuple(_published(row)))
        for line, settings in _here(published, row, report):
            shown.update(setting.label for setting in settings)
            yield line
    for setting in report.settings:
        if setting.label not in shown and not _is_grid(published):
            own = _line(published, setting.label, setting, report, of_base=False)
            if own is not None:
                yield own
    yield from _other_bases(published, report)


def _published(row: Row) -> Iterator[Value | None]:
    last = len(row.values) - 1
    for number, value in enumerate(row.values):
        error = row.error if number == last else None
        yield None if value is None else Value(value=value, error=error)


def _here(
    published: Published, row: Row, report: StudyReport
) -> Iterator[tuple[Line, list[Setting]]]:
    """This study's lines of a row, each with the settings it shows."""
    if row.selects is None:
        return
    if _is_grid(published):
        yield from _here_in_a_grid(published, row, row.selects, report)
        return
    lines: list[tuple[Line, Setting]] = []
    for setting in report.settings:
        if _matches(setting.config, row.selects):
            line = _line(published, row.label, setting, report, of_base=row.of_base)
            lines += [] if line is None else [(line, setting)]
    if row.of_base:  # cells of one model share one, unless the study varies how it is asked
        lines = list({line.values: (line, setting) for line, setting in lines}.values())
    for own, setting in lines:
        label = row.label if len(lines) == 1 else f"{row.label}: {setting.label}"
        yield dataclasses.replace(own, label=label), [] if row.of_base else [setting]


def _here_in_a_grid(
    published: Published, row: Row, selects: Mapping[str, Any], report: StudyReport
) -> Iterator[tuple[Line, list[Setting]]]:
    """One line of what fits a column alone, and one for each setting where several fit one."""
    fitting = [
        [
            (setting, value)
            for setting in report.settings
            if _matches(setting.config, {**selects, **measure.selects})
            and (value := _score(setting, measure, of_base=False)) is not None
        ]
        for measure in published.measures
    ]
    alone = [found[0] if len(found) == 1 else None for found in fitting]
    if any(alone):
        values = tuple(None if found is None else found[1] for found in alone)
        shown = [found[0] for found in alone if found is not None]
        yield Line(label=row.label, source=HERE, values=values), shown
    for column, found in enumerate(fitting):
        for setting, value in found if len(found) > 1 else ():
            only = tuple(value if n == column else None for n in range(len(fitting)))
            yield Line(label=f"{row.label}: {setting.label}", source=HERE, values=only), [setting]


def _is_grid(published: Published) -> bool:
    """A row's cells differ by column."""
    return any(measure.selects for measure in published.measures)


def _matches(config: Mapping[str, Any], selects: Mapping[str, Any]) -> bool:
    blind = bool(value_at(config, "resolution.blind"))
    return not blind and all(value_at(config, key) == value for key, value in selects.items())


def _line(
    published: Published, label: str, setting: Setting, report: StudyReport, *, of_base: bool
) -> Line | None:
    """A setting's own line; None where it has none of the table's numbers."""
    values = tuple(
        _score(setting, measure, of_base=of_base)
        if measure.quantity is Quantity.score
        else beside_score(setting, measure.quantity, report)
        for measure in published.measures
    )
    counts = [
        value is not None and measure.quantity is not Quantity.trainable_billions
        for value, measure in zip(values, published.measures, strict=True)
    ]
    if not any(counts):
        return None
    speed = None
    if published.shows_speed:
        benchmark = published.measures[0].benchmark
        times = [c.answering[benchmark] for c in setting.cells if benchmark in c.answering]
        speed = times[0] if times else None
    return Line(label=label, source=HERE, values=values, speed=speed)


def _other_bases(published: Published, report: StudyReport) -> Iterator[Line]:
    """Language models before tuning that are no row of the table."""
    if not any(row.of_base for row in published.rows):
        return
    known = {row.selects["model.name"] for row in published.rows if row.of_base and row.selects}
    for setting in report.settings:
        model = value_at(setting.config, "model.name")
        if model not in known:
            known.add(model)
            line = _line(published, f"{model} before tuning", setting, report, of_base=True)
            if line is not None:
                yield line


def _score(setting: Setting, measure: Measure, *, of_base: bool) -> Value | None:
    """Mean over its seeds of the official number; the error is that of one run."""
    found = [_part(result, measure) for result in _results(setting, measure.benchmark, of_base)]
    parts = [part for part in found if part is not None and part.official is not None]
    if not parts:
        return None
    errors = [part.standard_error for part in parts if part.standard_error is not None]
    return Value(
        value=statistics.fmean(part.official for part in parts if part.official is not None),
        error=100 * statistics.fmean(errors) if len(errors) == len(parts) else None,
    )


def _results(setting: Setting, benchmark: str, of_base: bool) -> list[BenchmarkResult]:
    scores = [cell.before if of_base else cell.scores for cell in setting.cells]
    found = [score[benchmark] for score in scores if benchmark in score]
    return found[:1] if of_base else found


def _has_place(published: Published, setting: Setting) -> bool:
    return any(
        _matches(setting.config, {**row.selects, **measure.selects})
        for row in published.rows
        if row.selects is not None
        for measure in published.measures
    )


def _part(result: BenchmarkResult, measure: Measure) -> BenchmarkResult | CategoryResult | None:
    if measure.part is None:
        return result
    # Official files say "llava_bench_conv".
    return result.part(measure.part) or result.part(f"{measure.benchmark}_{measure.part}")


def _notes(published: Published, report: StudyReport) -> Iterator[str]:
    """What a reader must know of this study's numbers to compare them."""
    benchmarks = _benchmarks(published)
    if _shows_costs(published):
        yield from cost_notes(benchmarks, report)
    yield "here: ± is one standard error of the questions (of parts: --format csv or json)."
    for benchmark in benchmarks:
        results = [
            (setting, f"{setting.label}{' before tuning' if of_base else ''}", result)
            for setting in report.settings
            for of_base in (False, True)
            for result in _results(setting, benchmark, of_base)
        ]
        for rule in dict.fromkeys(result.rule for _, _, result in results):
            if rule:
                yield f"{benchmark}: {rule}."
        judges = sorted({r.judge_model for _, _, r in results if r.judge_model})
        if judges:
            counts = sorted({len(result.runs) for _, _, result in results})
            runs = " or ".join(map(str, counts))
            yield f"{benchmark}: judged by {', '.join(judges)}, {runs} judge run(s)."
        for setting, label, result in results:
            if result.run_spread is not None:
                runs = ", ".join(f"{run:.1f}" for run in result.runs)
                yield f"{benchmark}, {label}: judge runs {runs} (spread {result.run_spread:.1f})."
            for name, value in result.also.items():
                if value is not None and benchmark == "vicuna80":
                    yield f"{benchmark}, {label}: {name} {value:.1f}."
            if (
                _is_grid(published)
                and result.official is not None
                and not _has_place(published, setting)
            ):
                yield f"{benchmark}, {label}: {result.official:.1f}, in no place of this table."
            lost = [
                f"{count} {what}"
                for count, what in (
                    (result.num_missing, "missing"),
                    (result.num_unparsable, "unparsable"),
                )
                if count
            ]
            if lost:
                of = f"{result.num_questions} questions"
                if len(result.runs) > 1:
                    of += f" in {len(result.runs)} judge runs"
                yield f"{benchmark}, {label}: {', '.join(lost)} of {of}."
    if report.has_seeds:
        yield "here: means over the seeds of a setting."
