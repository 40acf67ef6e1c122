"""The verb `report`: a study as text, as data, or as a page to show around."""

from __future__ import annotations

import dataclasses
import enum
import shlex
from pathlib import Path

from scalesweep.errors import ConfigError, StoreError
from scalesweep.plan.graph import Plan
from scalesweep.report.best_under import parsed_ceiling
from scalesweep.report.collect import StudyResults, collect
from scalesweep.report.pricing import Pricing, parsed_pricing
from scalesweep.report.seeds_record import SHIPPED, load_seed_record, write_seed_record
from scalesweep.report.study_report import StudyReport, build_report
from scalesweep.rundir import Store, read_json, write_atomic


class Format(enum.StrEnum):
    terminal = "terminal"
    md = "md"
    csv = "csv"
    json = "json"
    html = "html"


def report(
    store: Store,
    study: str | None,
    *,
    format: str = "terminal",
    output: Path | None = None,
    width: int = 80,
    color: bool = False,
    record: Path = SHIPPED,
    paper: str | None = None,
    predictions: bool = False,
    under: str | None = None,
    table: str | None = None,
    ledger: bool = False,
    size: str | None = None,
    price: str | None = None,
) -> str:
    """The report of a study as text; where a file was written, its path.

    study: None takes the one that was launched last.
    output: file to write; None returns the text, but html goes to
        <store>/studies/<name>/report.html.
    width, color: of the terminal.
    record: file of the spread between seeds.
    paper: one of the paper's tables instead of the whole report.
    predictions: what was predicted of each stage beside what it took, instead of the report.
    size: parameters of a size to be extrapolated to, which need not be in the study.
    table: one table of the answer by itself instead of the whole report.
    under: what one run may cost: also says which setting is the best under it.
    ledger: every attempt and what it cost, instead of the report.
    price: own, cloud, free or dollars per node-hour, instead of what counted when attempts ran.

    Raises:
        ConfigError: no such format, table, ceiling, size or study, no study at all, or output
            cannot be written.
        StoreError: the study's plan cannot be read.
    """
    check_format(format)
    if predictions:
        return delivered(_predictions(store, study, format, width=width, color=color), output)
    pricing = parsed_pricing(price) if price is not None else None
    made = study_report(store, study, record=record, pricing=pricing)
    if ledger:
        from scalesweep.report.render_ledger import render as render_ledger

        return delivered(render_ledger(made, format, width=width, color=color), output)
    if under is not None:
        ceiling = parsed_ceiling(under, has_prices=made.has_prices)
        made = dataclasses.replace(made, ceiling=ceiling)
    if size is not None:
        from scalesweep.report.size_groups import parsed_size

        made = dataclasses.replace(made, target_size=parsed_size(size))
    if table is not None:
        from scalesweep.report.one_table import render_one_table

        text = render_one_table(table, made, format, width=width, color=color)
    elif paper is not None:
        from scalesweep.report.paper.build import paper_table
        from scalesweep.report.paper.render import render

        text = render(paper_table(paper, made), format, width=width, color=color)
    elif output is None and format == Format.html:
        return str(write_page(store, made))
    else:
        text = _render(made, Format(format), width=width, color=color)
    return delivered(text, output)


def _predictions(store: Store, study: str | None, format: str, *, width: int, color: bool) -> str:
    from scalesweep.report.predictions import prediction_report
    from scalesweep.report.render_predictions import render
    from scalesweep.report.stage_accounts import StageAccounts
    from scalesweep.report.stage_results import read_stages

    plan = load_plan(store, study)
    stages = read_stages(store, plan, StageAccounts(store)).values()
    return render(prediction_report(plan.study, stages), format, width=width, color=color)


def delivered(text: str, output: Path | None) -> str:
    """The text, or the path of the file that it was written to."""
    if output is None:
        return text
    try:
        write_atomic(output, text)
    except OSError as error:
        raise ConfigError(f"--output={output}: cannot be written ({error.strerror})") from error
    return str(output)


def check_format(format: str) -> None:
    """Refuse a word that is no format."""
    if format not in set(Format):
        raise ConfigError(f"--format={format}: no such format; choose {', '.join(Format)}")


def study_report(
    store: Store, study: str | None, *, record: Path = SHIPPED, pricing: Pricing | None = None
) -> StudyReport:
    """Everything a report says, not yet rendered. Errors: see report."""
    return build_report(study_results(store, study, pricing=pricing), load_seed_record(record))


def study_results(
    store: Store, study: str | None, *, pricing: Pricing | None = None
) -> StudyResults:
    """What the store knows of a study. Errors: see report."""
    return collect(store, load_plan(store, study), pricing=pricing)


def load_plan(store: Store, study: str | None) -> Plan:
    """The plan of a study, or of the one launched last."""
    known = store.study_names()
    if not known:
        raise ConfigError(
            f"no study in the store {store.root} yet; run one, for instance "
            "`python -m scalesweep -m +sweep=quickstart`, or name another store=FOLDER"
        )
    if study is None:
        study = known[-1]
    elif study not in known:
        raise ConfigError(
            f"study={study}: not in the store {store.root}; known are {', '.join(sorted(known))}"
        )
    path = store.study(study) / "plan.json"
    try:
        return Plan.from_json(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{path} is damaged ({type(error).__name__}: {error}); run the study's line again"
        ) from error


def write_page(store: Store, made: StudyReport) -> Path:
    """Writes <store>/studies/<name>/report.html, whole or not at all; its path."""
    path = store.study(made.results.plan.study) / "report.html"
    write_atomic(path, _render(made, Format.html, width=80, color=False))
    return path


def record_seeds(store: Store, study: str | None, path: Path) -> str:
    """Writes the record of the spread between a study's seeds; one line about it.

    Raises:
        ConfigError: the study is not finished, or has one seed per cell.
    """
    results = study_results(store, study)
    made = write_seed_record(results, path, without_store(results.plan.command))
    spreads = ", ".join(
        f"{name} {found.spread.standard_deviation:.4f} ({found.spread.df} df)"
        for name, found in made.benchmarks.items()
    )
    return f"Standard deviation between seeds: {spreads}. Written to {path}."


def without_store(command: str) -> str:
    """A command line without where its store lies, which is this machine's business."""
    return shlex.join(word for word in shlex.split(command) if not word.startswith("store="))


def _render(made: StudyReport, format: Format, *, width: int, color: bool) -> str:
    if format is Format.md:
        from scalesweep.report.render_markdown import render_markdown

        return render_markdown(made)
    if format is Format.csv:
        from scalesweep.report.render_csv import render_csv

        return render_csv(made)
    if format is Format.html:
        from scalesweep.report.html import render_html

        return render_html(made)
    if format is Format.json:
        from scalesweep.report.render_json import render_json

        return render_json(made)
    from scalesweep.report.render_terminal import render_terminal

    return render_terminal(made, width=width, color=color)
