"""Verbs about a study on disk: status, report, cancel. None of them composes or imports torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scalesweep.report.command import check_format, load_plan, record_seeds
from scalesweep.report.command import report as report_text
from scalesweep.rundir import Store


def status(root: Path, study: str | None, *, as_json: bool) -> int:
    """Print where each stage stands."""
    from scalesweep.launch.status import print_status, status_json

    store = Store(root)
    plan = load_plan(store, study)
    if as_json:
        print(json.dumps(status_json(plan, store), indent=2))
    else:
        print_status(plan, store)
    return 0


def report(
    root: Path,
    study: str | None,
    *,
    format_: str,
    output: str | None,
    seed_record: str | None,
    paper: str | None,
    predictions: bool = False,
    under: str | None = None,
    table: str | None = None,
    ledger: bool = False,
    size: str | None = None,
    price: str | None = None,
) -> int:
    """Print or write a study's report.

    Raises:
        ConfigError: no such format or study, or output where there is none to write.
    """
    store = Store(root)
    if seed_record is not None:
        name = load_plan(store, study).study
        print(record_seeds(store, name, Path(seed_record)))
        return 0
    from scalesweep.launch.accounting import refresh

    check_format(format_)
    refresh(store, load_plan(store, study))
    text = report_text(
        store,
        study,
        format=format_,
        output=None if output is None else Path(output),
        width=terminal_width(),
        color=sys.stdout.isatty() and output is None,
        paper=paper,
        predictions=predictions,
        under=under,
        table=table,
        ledger=ledger,
        size=size,
        price=price,
    )
    print(text, end="" if text.endswith("\n") else "\n")
    return 0


def predicted_table4(format_: str, output: str | None) -> int:
    """Print or write the paper's table 4 beside what the declared model predicts.

    Raises:
        ConfigError: no such format.
    """
    from scalesweep.report.command import delivered
    from scalesweep.report.paper.predicted import predicted_table4 as made

    to_terminal = sys.stdout.isatty() and output is None
    text = delivered(
        made(format_, width=terminal_width(), color=to_terminal),
        None if output is None else Path(output),
    )
    print(text, end="" if text.endswith("\n") else "\n")
    return 0


def watch(root: Path, study: str | None) -> int:
    """Follow a study's jobs to their end; then report, and write its W&B runs."""
    from scalesweep.launch.budget_guard import budget_lines
    from scalesweep.launch.watch import Watcher
    from scalesweep.study_run import CELL_FAILED, DONE, finish

    store = Store(root)
    plan = load_plan(store, study)
    watched = Watcher(plan=plan, store=store).run()
    finish(plan, store)
    for stage in watched.status.values():
        if stage.state not in ("done", "waiting", "blocked", "left out"):
            log = f"; log: {stage.log}" if stage.log else ""
            print(f"{stage.state}: {stage.label}: {stage.detail}{log}")
    for line in budget_lines(plan, store):
        print(line)
    if not watched.all_done:
        print("type the study's line again to continue")
    return DONE if watched.all_done else CELL_FAILED


def judge(root: Path, study: str | None) -> int:
    """Do the judge stages whose answers are there and that wait for this machine."""
    from scalesweep.launch.queue import look
    from scalesweep.launch.status import study_status
    from scalesweep.launch.summary import summary_lines
    from scalesweep.launch.watch import ready_on_login, run_on_login
    from scalesweep.study_run import exit_status

    store = Store(root)
    plan = load_plan(store, study)
    ready = ready_on_login(plan, study_status(plan, store, look(plan, store)))
    if ready is None:
        print(f"study {plan.study}: no judge stage waits for this machine now")
        return 0
    result = run_on_login(ready, store)
    for line in summary_lines(ready, result):
        print(line)
    return exit_status(result)


def logs(
    root: Path, study: str | None, cell: str, *, kind: str | None, num_lines: int, follow: bool
) -> int:
    """Print the last lines of a cell's logs.

    Raises:
        ConfigError: there is no such cell or kind of stage, or nothing was logged.
    """
    from scalesweep.errors import ConfigError
    from scalesweep.launch.logs import cell_logs, find_cell, followed, last_lines

    store = Store(root)
    plan = load_plan(store, study)
    found = cell_logs(plan, store, find_cell(plan, cell), kind=kind)
    if not found:
        raise ConfigError(f"logs {cell}: nothing of it has run yet")
    for log in found:
        print(f"== {log.title}\n   {log.path}")
        print("".join(last_lines(log.path, num_lines)).rstrip("\n"))
    if follow:
        print(f"== following {found[-1].path}", flush=True)
        for text in followed(found[-1].path):
            print(text, end="", flush=True)
    return 0


def cancel(root: Path, study: str | None) -> int:
    """Stop the commands that work on a study."""
    from scalesweep.launch.cancel import cancel as cancel_study

    store = Store(root)
    for line in cancel_study(store, load_plan(store, study).study):
        print(line)
    return 0


def terminal_width() -> int:
    """Columns of the terminal, at least 60; 80 where there is none."""
    import shutil

    return max(60, shutil.get_terminal_size((80, 24)).columns)
