"""The verb `score`: saved reviews, grades or answers of anyone, scored by the official rule."""

from __future__ import annotations

import difflib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalesweep.benchmark_options import OPTIONS, option_values
from scalesweep.errors import ConfigError, DataError
from scalesweep.evaluate.benchmarks.registry import benchmark_class
from scalesweep.evaluate.scores import BenchmarkScore, PartScore

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the command line asks for."""

    benchmark: str
    files: Sequence[Path]
    data: Path | None = None
    """Folder of the official files, or the question file itself."""
    options: Mapping[str, str] = field(default_factory=dict)
    ignore: frozenset[str] = frozenset()
    """question_ids that are left out."""


def run(wanted: Wanted, *, as_json: bool) -> str:
    """What the verb prints.

    Raises:
        ConfigError: benchmark, option or an ignored question is unknown, or there is nothing to
            score.
        DataError: a file is missing or not in the official format.
    """
    chosen = option_values(wanted.benchmark, parsed_options(wanted.benchmark, wanted.options))
    rules = benchmark_class(wanted.benchmark)
    _refuse_without_effect(wanted, rules.score_options(chosen))
    _refuse_missing(wanted)
    found = rules.score_files(wanted.files, chosen, data=wanted.data, ignore=wanted.ignore)
    page = to_json(found) if as_json else to_terminal(rules.title, found)
    try:
        page.encode()
    except UnicodeEncodeError as error:
        around = ascii(page[max(0, error.start - 20) : error.end + 20])
        raise DataError(
            f"{', '.join(map(str, wanted.files))}: a name has half a character, a lone surrogate, "
            f"which cannot be shown: {around}"
        ) from error
    return page


def parsed_options(benchmark: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Words of the command line as values of the options' kinds.

    Raises:
        ConfigError: unknown benchmark or option, or a value that it cannot have.
    """
    if benchmark not in OPTIONS:
        near = difflib.get_close_matches(benchmark, OPTIONS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"score {benchmark}: no such benchmark; {hint}choose one of {', '.join(OPTIONS)}"
        )
    known = OPTIONS[benchmark]
    values: dict[str, Any] = {}
    for name, word in given.items():
        if name not in known:
            has = ", ".join(known) or "none"
            raise ConfigError(
                f"--option {name}={word}: {benchmark} has no such option; it has {has}"
            )
        values[name] = _value(word, known[name].default)
        if (fault := known[name].fault(values[name])) is not None:
            raise ConfigError(f"--option {name}={word}: {fault}")
    return values


def _value(word: str, default: str | int | bool) -> str | int | bool:
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(word, word)
    if isinstance(default, int) and word.removeprefix("-").isdecimal():
        return int(word)
    return word


def _refuse_without_effect(wanted: Wanted, taken: Sequence[str]) -> None:
    for name, word in wanted.options.items():
        if name not in taken:
            raise ConfigError(
                f"--option {name}={word}: changes nothing about saved files; score "
                f"{wanted.benchmark} takes {', '.join(taken) or 'no option'}"
            )


def _refuse_missing(wanted: Wanted) -> None:
    if not wanted.files:
        raise ConfigError(
            f"score {wanted.benchmark}: name the files of one model; of reviews and grades several "
            "files are several judge runs"
        )
    seen = set()
    for file in wanted.files:
        if not file.is_file():
            raise ConfigError(f"{file}: is no file")
        if file.resolve() in seen:
            raise ConfigError(f"{file}: is named twice; several files are several judge runs")
        seen.add(file.resolve())
    if wanted.data is not None and not wanted.data.exists():
        raise ConfigError(f"--data={wanted.data}: is not there")


# ---------------------------------------------------------------- shown


def to_json(found: BenchmarkScore) -> str:
    """All of a score, with what every question adds to it."""
    value = {"benchmark": found.benchmark, **found.to_json(), "items": dict(found.items)}
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_terminal(title: str, found: BenchmarkScore, *, width: int = 80) -> str:
    """A page for people, readable without colours."""
    from rich.console import Console
    from rich.text import Text

    console = Console(
        file=io.StringIO(),
        width=width,
        no_color=True,
        color_system=None,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    console.print(Text(f"{title}: {_with_error(found.whole)}"))
    console.print()
    _print_facts(console, _facts(found))
    for division, parts in {
        "": {"whole": found.whole, **found.categories},
        **found.other_parts,
    }.items():
        console.print()
        _print_parts(console, division, parts)
    if found.also:
        console.print()
        _print_also(console, found)
    output = console.file
    assert isinstance(output, io.StringIO)
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    return "\n".join(lines).rstrip("\n") + "\n"


def _with_error(whole: PartScore) -> str:
    if whole.standard_error is None:
        return percent(whole.official)
    return (
        f"{percent(whole.official)} ± {100 * whole.standard_error:.1f} "
        "(standard error over questions)"
    )


def _facts(found: BenchmarkScore) -> Iterator[tuple[str, str]]:
    yield "Rule", f"{found.rule}."
    if found.options:
        yield "Chosen", ", ".join(f"{name}={value}" for name, value in found.options.items())
    if found.judge_model:
        yield "Judge", found.judge_model
    if found.runs:
        several = len(found.runs) > 1
        spread = ""
        if found.run_spread is not None:
            spread = f"; spread {found.run_spread:.2f} (population standard deviation)"
        runs = ", ".join(percent(run) for run in found.runs)
        yield f"{len(found.runs)} judge run{'s' * several}", f"{runs}{spread}"
    whole = found.whole
    counted = (
        f"{whole.num_questions} questions, {whole.num_missing} missing, "
        f"{whole.num_unparsable} unparsable"
    )
    if found.num_empty is not None:
        counted += f", {found.num_empty} empty answers"
    yield "Counted", counted
    for note in found.notes:
        yield "Note", f"{note}."


def _print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in facts:
        grid.add_row(Text(name), Text(text))
    console.print(grid)


def _print_table(
    console: Console, first: str, columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(Text(first), overflow="fold")
    for column in columns:
        table.add_column(Text(column), justify="right")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _print_parts(console: Console, division: str, parts: Mapping[str, PartScore]) -> None:
    _print_table(
        console,
        division,
        ("score", "± s.e.", "questions", "missing", "unparsable"),
        (
            (
                name,
                percent(part.official),
                "" if part.standard_error is None else f"{100 * part.standard_error:.1f}",
                str(part.num_questions),
                str(part.num_missing or "-"),
                str(part.num_unparsable or "-"),
            )
            for name, part in parts.items()
        ),
    )


def _print_also(console: Console, found: BenchmarkScore) -> None:
    """Numbers of the whole and of categories ("conv, reference mean x 10") in one table."""
    parts = [
        name for name in found.categories if any(key.startswith(f"{name}, ") for key in found.also)
    ]
    columns = [key for key in found.also if not any(key.startswith(f"{name}, ") for name in parts)]
    rows = [["whole", *(percent(found.also[key]) for key in columns)]]
    for name in parts:
        cells = (found.also.get(f"{name}, {key}") for key in columns)
        rows.append([name, *("" if cell is None else percent(cell) for cell in cells)])
    _print_table(console, "also", columns, rows)


def percent(value: float | None) -> str:
    """With one decimal, or as many as it has."""
    if value is None:
        return "no score"
    return f"{value:.1f}" if value == round(value, 1) else f"{value:.2f}"
