"""Verbs about a study on disk: their words on the command line. What they do: study_verbs.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from scalesweep.errors import ConfigError


def default_store() -> str:
    return os.environ.get("SCALESWEEP_STORE", "store")


def _study_arguments(
    verb: str, words: Sequence[str], *, flags: Sequence[str] = (), options: Sequence[str] = ()
) -> tuple[str | None, dict[str, str]]:
    """[STUDY] [--flag] [--option VALUE] -> study and what was given.

    Raises:
        ConfigError: anything else stands on the line.
    """
    study: str | None = None
    given: dict[str, str] = {}
    todo = list(words)
    options = (*options, "--store")
    while todo:
        word = todo.pop(0)
        name, equals, value = word.partition("=")
        if word in flags:
            given[word] = "true"
        elif name in options:
            if not equals:
                if not todo:
                    raise ConfigError(f"{name}: needs a value")
                value = todo.pop(0)
            if not value:
                raise ConfigError(f"{name}: empty value")
            given[name] = value
        elif name == "store" and equals:
            given["--store"] = value
        elif name == "study" and equals:
            study = value
        elif word.startswith("-") or equals:
            allowed = ", ".join((*flags, *options))
            raise ConfigError(f"{word}: {verb} takes a study's name and {allowed}")
        elif study is not None:
            raise ConfigError(f"{word}: {verb} takes one study; {study} was named already")
        else:
            study = word
    return study, given


def _store(given: dict[str, str]) -> Path:
    return Path(given.get("--store", default_store())).absolute()


def _status(words: Sequence[str]) -> int:
    study, given = _study_arguments("status", words, flags=("--json",))
    from scalesweep import study_verbs

    return study_verbs.status(_store(given), study, as_json="--json" in given)


_OWN_REPORTS = {
    "--predictions",
    "--ledger",
    "--paper",
    "--seed-record",
    "--under",
    "--table",
    "--size",
}
"""Options of which none goes with --predictions or --ledger."""


def _report(words: Sequence[str]) -> int:
    study, given = _study_arguments(
        "report",
        words,
        flags=("--predictions", "--ledger", "--predict"),
        options=(
            "--format",
            "--output",
            "--seed-record",
            "--paper",
            "--under",
            "--table",
            "--size",
            "--price",
        ),
    )
    for alone in ("--predictions", "--ledger"):
        if alone in given and (other := (_OWN_REPORTS - {alone}) & given.keys()):
            raise ConfigError(f"{alone}: is a report of its own; leave {min(other)} out")
    if "--paper" in given and (other := {"--table", "--under", "--size"} & given.keys()):
        raise ConfigError(f"--paper: is one table by itself; leave {min(other)} out")
    if "--table" in given and "--under" in given:
        raise ConfigError("--table: is one table by itself; leave --under out")
    if "--predict" in given and given.get("--paper") != "table4":
        raise ConfigError("--predict: goes with --paper table4")
    if "--price" in given and (other := {"--predictions", "--seed-record"} & given.keys()):
        raise ConfigError(f"--price: {min(other)} has no costs; leave one out")
    from scalesweep import study_verbs

    if "--predict" in given:
        other = given.keys() - {"--predict", "--paper", "--format", "--output", "--store"}
        if word := study or min(other, default=""):
            raise ConfigError(f"--predict: the paper's rows alone, of no study; leave {word} out")
        return study_verbs.predicted_table4(
            given.get("--format", "terminal"), given.get("--output")
        )
    return study_verbs.report(
        _store(given),
        study,
        format_=given.get("--format", "terminal"),
        output=given.get("--output"),
        seed_record=given.get("--seed-record"),
        paper=given.get("--paper"),
        predictions="--predictions" in given,
        under=given.get("--under"),
        table=given.get("--table"),
        ledger="--ledger" in given,
        size=given.get("--size"),
        price=given.get("--price"),
    )


def _cancel(words: Sequence[str]) -> int:
    study, given = _study_arguments("cancel", words)
    from scalesweep import study_verbs

    return study_verbs.cancel(_store(given), study)


def _watch(words: Sequence[str]) -> int:
    study, given = _study_arguments("watch", words)
    from scalesweep import study_verbs

    return study_verbs.watch(_store(given), study)


def _judge(words: Sequence[str]) -> int:
    if words and words[0] == "calibrate":
        from scalesweep import judge_command

        return judge_command.calibrate(
            judge_command.parse(words[1:], default_store=Path(default_store()).absolute())
        )
    study, given = _study_arguments("judge", words)
    from scalesweep import study_verbs

    return study_verbs.judge(_store(given), study)


def _logs(words: Sequence[str]) -> int:
    if not words or words[0].startswith("-"):
        raise ConfigError("logs: name a cell (its number or its name in `status`)")
    study, given = _study_arguments(
        "logs", words[1:], flags=("--follow",), options=("--stage", "--lines")
    )
    lines = given.get("--lines", "20")
    if not lines.isdigit():
        raise ConfigError(f"--lines={lines}: must be a whole number")
    from scalesweep import study_verbs

    return study_verbs.logs(
        _store(given),
        study,
        words[0],
        kind=given.get("--stage"),
        num_lines=int(lines),
        follow="--follow" in given,
    )


def _export(words: Sequence[str]) -> int:
    if len(words) < 2 or words[0].startswith("-") or words[1].startswith("-"):
        raise ConfigError("export: name a cell (its number or name in `status`) and a directory")
    study, given = _study_arguments(
        "export", words[2:], flags=("--merge", "--no-base"), options=("--dtype",)
    )
    from scalesweep import study_export

    lines = study_export.export(
        _store(given),
        study,
        study_export.Wanted(
            cell=words[0],
            folder=Path(words[1]),
            merge="--merge" in given,
            with_base="--no-base" not in given,
            dtype=given.get("--dtype"),
        ),
    )
    for line in lines:
        print(line)
    return 0


def _sync(words: Sequence[str]) -> int:
    study, given = _study_arguments(
        "sync",
        words,
        flags=("--live",),
        options=("--every", "--limit", "--project", "--entity"),
    )
    if "--every" in given and "--live" not in given:
        raise ConfigError("--every: goes with --live")
    import time

    from scalesweep import study_sync

    wanted = study_sync.Wanted(
        live="--live" in given,
        every_s=_seconds(given, "--every", 120.0),
        limit_s=_seconds(given, "--limit", 180.0),
        project=given.get("--project"),
        entity=given.get("--entity"),
    )
    return study_sync.sync(_store(given), study, wanted, sleep=time.sleep)


def _seconds(given: dict[str, str], name: str, default: float) -> float:
    text = given.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name}={text}: must be a number of seconds above 0")
    return value


def _dashboard(words: Sequence[str]) -> int:
    study, given = _study_arguments(
        "dashboard", words, flags=("--dry-run", "--push"), options=("--project", "--entity")
    )
    if len({"--dry-run", "--push"} & given.keys()) != 1:
        raise ConfigError(
            "dashboard: say --dry-run (print what would be sent) or --push (send it to W&B)"
        )
    from scalesweep import study_sync

    return study_sync.dashboard(
        _store(given),
        study,
        push="--push" in given,
        project=given.get("--project"),
        entity=given.get("--entity"),
    )


STUDY_VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "status": _status,
    "watch": _watch,
    "logs": _logs,
    "judge": _judge,
    "report": _report,
    "export": _export,
    "cancel": _cancel,
    "sync": _sync,
    "dashboard": _dashboard,
}
