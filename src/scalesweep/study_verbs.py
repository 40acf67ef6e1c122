"""Verbs about a study on disk: status, report, cancel. None of them composes or imports torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scalesweep.report.command import load_plan, record_seeds
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

    refresh(store, load_plan(store, study))
    text = report_text(
        store,
        study,
        format=format_,
        output=None if output is None else Path(output),
        width=terminal_width(),
        color=sys.stdout.isatty() and output is None,
    )
    print(text, end="" if text.endswith("\n") else "\n")
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
