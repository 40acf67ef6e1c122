"""A paper's table with a study's numbers beside the published ones, not yet laid out. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalesweep.errors import ConfigError
from scalesweep.report.labels import value_at
from scalesweep.report.paper.published import TABLES, Measure, Published, Row
from scalesweep.report.scores import AnsweringTime, BenchmarkResult, CategoryResult
from scalesweep.report.settings import Setting
from scalesweep.report.study_report import StudyReport

PAPER, HERE = "paper", "here"


@dataclass(frozen=True, kw_only=True)
class Value:
    """One number, percent."""

    value: float
    error: float | None = None
    """Here: one standard error of the questions. Published: as the paper's ± is."""


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
    asked = {measure.benchmark for measure in published.measures}
    scored = {b for cell in report.results.cells for b in (*cell.scores, *cell.before)}
    if not asked & scored:
        has = ", ".join(sorted(scored)) or "nothing yet"
        raise ConfigError(
            f"--paper={name}: shows {', '.join(sorted(asked))}, but study "
            f"{report.results.plan.study} has scores of {has}; take evaluation=paper, or one of "
            "its benchmarks"
        )
    lines = tuple(_lines(published, report))
    return PaperTable(
        name=name,
        title=published.title,
        measures=published.measures,
        lines=lines,
        notes=(*published.notes, *_notes(published, report)),
        shows_speed=published.shows_speed and any(line.speed is not None for line in lines),
    )


def _lines(published: Published, report: StudyReport) -> Iterator[Line]:
    shown: set[str] = set()
    for row in published.rows:
        yield Line(label=row.label, source=PAPER, values=tuple(_published(row)))
        for line, settings in _here(published, row, report.settings):
            shown.update(setting.label for setting in settings)
            yield line
    if any(measure.selects for measure in published.measures):
        return
    for setting in report.settings:
        if setting.label not in shown:
            own = _line(published, setting.label, setting, of_base=False)
            if own is not None:
                yield own
    yield from _other_bases(published, report)


def _published(row: Row) -> Iterator[Value | None]:
    last = len(row.values) - 1
    for number, value in enumerate(row.values):
        error = row.error if number == last else None
        yield None if value is None else Value(value=value, error=error)


def _here(
    published: Published, row: Row, settings: Sequence[Setting]
) -> Iterator[tuple[Line, list[Setting]]]:
    """This study's lines of a row, each with the settings it shows."""
    if row.selects is None:
        return
    if any(measure.selects for measure in published.measures):
        found = [_first(settings, {**row.selects, **m.selects}, m) for m in published.measures]
        values = tuple(
            None if setting is None else _value(setting, measure, of_base=False)
            for setting, measure in zip(found, published.measures, strict=True)
        )
        if any(values):
            used = [setting for setting in found if setting is not None]
            yield Line(label=row.label, source=HERE, values=values), used
        return
    lines: list[tuple[Line, Setting]] = []
    for setting in settings:
        if _matches(setting.config, row.selects):
            line = _line(published, row.label, setting, of_base=row.of_base)
            lines += [] if line is None else [(line, setting)]
    if row.of_base:  # all cells of a model have the same one
        lines = lines[:1]
    for own, setting in lines:
        label = row.label if len(lines) == 1 else f"{row.label}: {setting.label}"
        yield dataclasses.replace(own, label=label), [] if row.of_base else [setting]


def _first(
    settings: Sequence[Setting], selects: Mapping[str, Any], measure: Measure
) -> Setting | None:
    for setting in settings:
        if _matches(setting.config, selects) and _value(setting, measure, of_base=False):
            return setting
    return None


def _matches(config: Mapping[str, Any], selects: Mapping[str, Any]) -> bool:
    blind = bool(value_at(config, "resolution.blind"))
    return not blind and all(value_at(config, key) == value for key, value in selects.items())


def _line(published: Published, label: str, setting: Setting, *, of_base: bool) -> Line | None:
    """A setting's own line; None where it has none of the table's numbers."""
    values = tuple(_value(setting, m, of_base=of_base) for m in published.measures)
    if not any(values):
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
            line = _line(published, f"{model} before tuning", setting, of_base=True)
            if line is not None:
                yield line


def _value(setting: Setting, measure: Measure, *, of_base: bool) -> Value | None:
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


def _part(result: BenchmarkResult, measure: Measure) -> BenchmarkResult | CategoryResult | None:
    if measure.part is None:
        return result
    # Official files say "llava_bench_conv".
    return result.part(measure.part) or result.part(f"{measure.benchmark}_{measure.part}")


def _notes(published: Published, report: StudyReport) -> Iterator[str]:
    """What a reader must know of this study's numbers to compare them."""
    benchmarks = list(dict.fromkeys(measure.benchmark for measure in published.measures))
    yield "here: ± is one standard error of the questions (of parts: --format csv or json)."
    for benchmark in benchmarks:
        results = [
            (f"{setting.label}{' before tuning' if of_base else ''}", result)
            for setting in report.settings
            for of_base in (False, True)
            for result in _results(setting, benchmark, of_base)
        ]
        for rule in dict.fromkeys(result.rule for _, result in results):
            if rule:
                yield f"{benchmark}: {rule}."
        judges = sorted({r.judge_model for _, r in results if r.judge_model})
        if judges:
            counts = sorted({len(result.runs) for _, result in results})
            runs = " or ".join(map(str, counts))
            yield f"{benchmark}: judged by {', '.join(judges)}, {runs} judge run(s)."
        for label, result in results:
            if result.run_spread is not None:
                runs = ", ".join(f"{run:.1f}" for run in result.runs)
                yield f"{benchmark}, {label}: judge runs {runs} (spread {result.run_spread:.1f})."
            for name, value in result.also.items():
                if value is not None and benchmark == "vicuna80":
                    yield f"{benchmark}, {label}: {name} {value:.1f}."
            lost = [
                f"{count} {what}"
                for count, what in (
                    (result.num_missing, "missing"),
                    (result.num_unparsable, "unparsable"),
                )
                if count
            ]
            if lost:
                yield (
                    f"{benchmark}, {label}: {', '.join(lost)} of {result.num_questions} questions."
                )
    if report.has_seeds:
        yield "here: means over the seeds of a setting."
