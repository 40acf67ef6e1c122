"""Verbs about checkpoints and scores, outside any study: their words on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from scalesweep.errors import ConfigError


def _score(words: Sequence[str]) -> int:
    """BENCHMARK FILES... [--data DIR] [--option NAME=VALUE]... [--ignore IDS] [--json]."""
    names: list[str] = []
    options: dict[str, str] = {}
    ignore: list[str] = []
    data: Path | None = None
    as_json = False
    todo = list(words)
    while todo:
        word = todo.pop(0)
        flag, equals, value = word.partition("=")
        if word == "--json":
            as_json = True
        elif flag in ("--data", "--option", "--ignore"):
            if not equals:
                if not todo:
                    raise ConfigError(f"{flag}: needs a value")
                value = todo.pop(0)
            if not value:
                raise ConfigError(f"{flag}: empty value")
            if flag == "--data":
                data = Path(value)
            elif flag == "--ignore":
                ignore += [item.strip() for item in value.split(",")]
            else:
                name, sign, chosen = value.partition("=")
                if not name or not sign or not chosen:
                    raise ConfigError(f"--option {value}: write --option NAME=VALUE")
                options[name] = chosen
        elif word.startswith("-"):
            raise ConfigError(
                f"{word}: score takes a benchmark, files, --data DIR, --option NAME=VALUE, "
                "--ignore IDS and --json"
            )
        else:
            names.append(word)
    if not names:
        raise ConfigError("score: name a benchmark and files of one model")
    from scalesweep.evaluate import score_command

    wanted = score_command.Wanted(
        benchmark=names[0],
        files=[Path(name) for name in names[1:]],
        data=data,
        options=options,
        ignore=frozenset(ignore),
    )
    print(score_command.run(wanted, as_json=as_json), end="")
    return 0


EVALUATE_VERBS: dict[str, Callable[[Sequence[str]], int]] = {"score": _score}
