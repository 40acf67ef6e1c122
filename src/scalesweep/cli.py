"""The command line: verbs, our own flags, and one clear message for whatever is wrong.

    python -m scalesweep [VERB] [-m] [key=value ...]

Hydra does the composing and refuses words that it does not know, so the verb and our flags are
taken off before it sees the line.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from scalesweep import __version__
from scalesweep.cli_evaluate import EVALUATE_VERBS
from scalesweep.cli_study import STUDY_VERBS, default_store
from scalesweep.errors import ConfigError, Interrupted, ScaleSweepError

if TYPE_CHECKING:
    from scalesweep.study_command import Request

DONE, CELL_FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses."""

HELP = """\
scalesweep: what does the next point of benchmark score cost?

  python -m scalesweep [VERB] [-m] [key=value ...]

A grid (-m: every combination of the comma-separated values is a cell):
  python -m scalesweep -m +sweep=quickstart        the miniature, on a laptop
  python -m scalesweep -m model=mini_s,mini_m tuning=lora,full
  python -m scalesweep plan -m model=33b,65b tuning=lora,qlora,full
One cell:
  python -m scalesweep model=mini_s tuning=lora

Verbs
  run        (or no verb) run what is missing, then report; on Slurm: submit it
  plan       cells, stages, what is shared and done, hours, dollars and memory;
             runs nothing                       [--json] [--nodes N] [--stages]
  evaluate   a checkpoint of any study or of anyone, on benchmarks   CHECKPOINT
             [evaluation=...] [judge=...] [template=...] [num_beams=5]
             [load_4bit=true]
  doctor     what this machine uses; with settings: every file they need
             [-m] [key=value ...] [--hash] [--json]
  status     where each stage of a study stands       [STUDY] [--json]
  watch      follow a study on Slurm to its end, then report            [STUDY]
  logs       last lines of a cell's logs  CELL [STUDY] [--stage KIND]
             [--follow]
  judge      do the judge stages that wait for this machine             [STUDY]
  judge calibrate   how far off a judge is on published answers  judge=NAME
             [--answers FILE --published N] [judge.key=value ...] [--json]
  report     cost beside score     [STUDY] [--format terminal|md|csv|json|html]
             [--paper table1|table2|table3a|table3b|table4|table5: the paper's]
             [--under 150|node_hours=6.5: the best that one run can be had for]
             [--size 65b: what smaller sizes foretell of so many parameters]
             [--table front|pairs|sizes: of the answer, by itself]
             [--predictions: time and memory, predicted and measured]
             [--ledger: every attempt, what it cost and who paid]
             [--paper table4 --predict: the paper's hours, of no study]
             [--price own|cloud|free|NUMBER: as if a node-hour cost that]
  export     a cell's model for plain transformers or peft    CELL DIR [STUDY]
             [--merge] [--no-base] [--dtype bfloat16|float16|float32]
  cancel     stop the commands and jobs that work on a study            [STUDY]
  sync       a study to W&B; again: what is new since                   [STUDY]
             [--live: until it ends] [--every S] [--project P] [--entity E]
  dashboard  a study's workspace and report on W&B                      [STUDY]
             --dry-run (print them) or --push [--project P] [--entity E]
  score      score saved reviews, grades, answers of anyone  BENCHMARK FILES...
             [--data DIR] [--option NAME=VALUE] [--ignore IDS] [--json]

Settings (conf/): {groups}
Sweeps (sweeps/): {sweeps}
Options of a group: --info defaults, or a wrong one (model=?).

Hydra's own: --cfg job, --info defaults, --config-dir DIR, --hydra-help,
  --shell-completion (eval "$(python -m scalesweep -sc install=bash)")
Folder of everything: store=DIR, --store DIR for the other verbs, or
  SCALESWEEP_STORE (now: {store})
Exit status: 0 all done, 1 a cell failed, 2 refused, 130 interrupted.
"""


def run(argv: Sequence[str]) -> int:
    """Run one command line; returns the exit status."""
    try:
        return _dispatch(list(argv))
    except ScaleSweepError as error:
        if isinstance(error, Interrupted):
            print(f"scalesweep: {error}", file=sys.stderr)
            return INTERRUPTED
        print(f"scalesweep: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("scalesweep: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `| head` closed the pipe; nobody reads what is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return DONE
    if argv[0] == "--version":
        print(f"scalesweep {__version__}")
        return DONE
    verb, rest = split_verb(argv)
    if verb in PLAIN_VERBS:
        if "-h" in rest or "--help" in rest:
            print(help_text(), end="")
            return DONE
        return PLAIN_VERBS[verb](rest)
    if "-h" in rest or "--help" in rest:
        print(help_text(), end="")
        return DONE
    return _compose(verb, rest, argv)


def split_verb(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The verb ("run" when there is none) and the words after it.

    Raises:
        ConfigError: the first word is neither a verb nor an override nor a flag.
    """
    first = argv[0]
    if first in (*COMPOSING_VERBS, *PLAIN_VERBS):
        return first, list(argv[1:])
    if first.startswith(("-", "~")) or "=" in first:
        return "run", list(argv)
    verbs = (*COMPOSING_VERBS, *PLAIN_VERBS)
    near = difflib.get_close_matches(first, verbs, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"{first}: no such verb; {hint}choose one of {', '.join(verbs)}")


def help_text() -> str:
    from scalesweep.config.paths import conf_dir
    from scalesweep.config.sweep import sweep_names

    hidden = {"datasets", "recipe"}
    groups = [p.name for p in sorted(conf_dir().iterdir()) if p.is_dir() and p.name not in hidden]
    return HELP.format(
        groups=_wrapped(groups), sweeps=_wrapped(sweep_names()), store=default_store()
    )


def _wrapped(words: Sequence[str]) -> str:
    import textwrap

    return textwrap.fill(" ".join(words), width=78, initial_indent=" " * 20)[20:].replace(
        "\n", "\n  "
    )


# ---------------------------------------------------------------- verbs that compose a grid


def _compose(verb: str, words: list[str], argv: Sequence[str]) -> int:
    """Let Hydra compose the cells; the launcher hands them to study_command."""
    from scalesweep import study_command
    from scalesweep.config.load import register_resolvers
    from scalesweep.config.sweep import load_sweep

    words, as_json = _take_flag(words, "--json")
    if as_json and verb not in ("plan", "doctor"):
        raise ConfigError("--json: goes with plan, doctor and status; run and report write files")
    words, num_nodes = _take_nodes(words)
    if num_nodes is not None and verb != "plan":
        raise ConfigError("--nodes: goes with plan; nodes=N is the setting of a cell")
    words, each_stage = _take_flag(words, "--stages")
    if each_stage and verb != "plan":
        raise ConfigError("--stages: goes with plan")
    words, hash_all = _take_flag(words, "--hash")
    if hash_all and verb != "doctor":
        raise ConfigError("--hash: goes with doctor")
    if verb == "doctor" and not words:
        from scalesweep.doctor.command import doctor

        return doctor(
            Path(default_store()).absolute(), None, as_json_text=as_json, hash_all=hash_all
        )
    checkpoint = None
    if verb == "evaluate":
        from scalesweep.study_evaluate import asked

        found = asked(words)
        checkpoint, words = found.checkpoint, found.words
    words, sweep_names = _take_sweeps(words)
    own = {"--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc"}
    hydra_only = any(word.partition("=")[0] in own for word in words)
    multirun = "-m" in words or "--multirun" in words
    if sweep_names and not multirun:
        raise ConfigError(f"+sweep={sweep_names[0]}: a sweep has many cells; add -m")
    if len(sweep_names) > 1:
        raise ConfigError(f"+sweep={','.join(sweep_names)}: one sweep at a time")
    _check_words(words)
    words = [_plain_store(word) for word in words]
    register_resolvers()
    study_command.begin(
        study_command.Request(
            verb=verb,
            as_json=as_json,
            num_nodes=num_nodes,
            each_stage=each_stage,
            hash_all=hash_all,
            sweep=load_sweep(sweep_names[0]) if sweep_names else None,
            checkpoint=checkpoint,
            command=command_line(argv),
            asked_cluster=_asked_cluster(words),
        )
    )
    if "COMP_LINE" in os.environ:
        os.environ["COMP_LINE"] = without_verb(os.environ["COMP_LINE"])
    if not multirun and not hydra_only:
        _refuse_axes(words)
        words = ["--multirun", *words]  # one cell and many take the same way
    if not hydra_only:
        words = _flags_first(words)
    _run_hydra(words)
    return study_command.current().exit_status


def without_verb(line: str) -> str:
    """A line to be completed by Hydra, which knows no verbs."""
    return re.sub(rf"^(.*?scalesweep)\s+({'|'.join(COMPOSING_VERBS)})(?=\s)", r"\1", line)


def _take_flag(words: list[str], flag: str) -> tuple[list[str], bool]:
    return [word for word in words if word != flag], flag in words


def _take_nodes(words: list[str]) -> tuple[list[str], int | None]:
    """Words without --nodes N or --nodes=N, and N."""
    left, number = [], None
    todo = iter(words)
    for word in todo:
        name, equals, value = word.partition("=")
        if name != "--nodes":
            left.append(word)
            continue
        value = value if equals else next(todo, "")
        if not value.isdecimal() or int(value) < 1:
            raise ConfigError(f"--nodes={value}: must be a whole number of nodes, at least 1")
        number = int(value)
    return left, number


def _take_sweeps(words: list[str]) -> tuple[list[str], list[str]]:
    """Words without +sweep=NAME, and the names."""
    pattern = re.compile(r"\+{0,2}sweep=(.*)", re.DOTALL)
    names = [m.group(1) for word in words if (m := pattern.fullmatch(word))]
    if "" in names:
        raise ConfigError("+sweep=: empty; name a sweep")
    split = [part for name in names for part in name.split(",")]
    return [word for word in words if not pattern.fullmatch(word)], split


FLAGS_WITH_VALUE = {"--cfg", "-c", "--config-dir", "-cd", "--config-name", "-cn",
                    "--config-path", "-cp", "--package", "-p", "--info", "-i"}  # fmt: skip
HYDRA_FLAGS = FLAGS_WITH_VALUE | {"-m", "--multirun", "--resolve", "--hydra-help",
                                  "--shell-completion", "-sc", "--version"}  # fmt: skip


def _check_words(words: Sequence[str]) -> None:
    """Refuse what Hydra would take for something else, or answer with many lines."""
    from scalesweep.config.paths import conf_dir

    for word in words:
        if word.startswith("-"):
            if word.partition("=")[0] not in HYDRA_FLAGS:
                raise ConfigError(f"{word}: no such flag; see python -m scalesweep --help")
            continue
        if word.startswith("~") and (conf_dir() / word[1:].partition("=")[0]).is_dir():
            raise ConfigError(f"{word}: every cell needs the group; choose an option instead")
        key, equals, value = word.partition("=")
        if not equals and not word.startswith("~") and not _is_flag_value(words, word):
            raise ConfigError(f"{word}: not a setting; write key=value")
        if equals and not key.lstrip("+~"):
            raise ConfigError(f"{word}: no key before '='; write key=value")
        if equals and not value and key.lstrip("+") != "store":
            raise ConfigError(f"{key}=: empty value; give one, or null")


def _plain_store(word: str) -> str:
    """store=PATH quoted for Hydra, whose grammar stops at é, ( and the like; ~ is the home."""
    key, equals, value = word.partition("=")
    if key != "store" or not equals or value[:1] in ("", "'", '"') or "${" in value:
        return word
    path = str(Path(value).expanduser()).replace("\\", "\\\\").replace("'", "\\'")
    return f"store='{path}'"


def _flags_first(words: Sequence[str]) -> list[str]:
    """The same line in an order that Hydra takes: it knows no settings behind a later flag."""
    flags: list[str] = []
    settings: list[str] = []
    todo = iter(words)
    for word in todo:
        (flags if word.startswith("-") else settings).append(word)
        if word in FLAGS_WITH_VALUE:
            flags += [value for value in [next(todo, None)] if value is not None]
    return [*flags, *settings]


def _is_flag_value(words: Sequence[str], word: str) -> bool:
    at = list(words).index(word)
    return at > 0 and words[at - 1] in FLAGS_WITH_VALUE


def _refuse_axes(words: Sequence[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from scalesweep.config.messages import from_hydra

    overrides = [word for word in words if not word.startswith("-") and "=" in word]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise from_hydra(error) from error
    for override in parsed:
        if override.is_sweep_override():
            raise ConfigError(f"{override.input_line}: several values are a grid; add -m")


def _asked_cluster(words: Sequence[str]) -> str:
    chosen = [w.partition("=")[2] for w in words if w.startswith("cluster=")]
    return chosen[-1] if chosen else "auto"


def command_line(argv: Sequence[str]) -> str:
    """The line to type again."""
    return shlex.join(["python", "-m", "scalesweep", *argv])


def _run_hydra(words: Sequence[str]) -> None:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from scalesweep import study_command
    from scalesweep.config.messages import from_hydra
    from scalesweep.config.paths import conf_dir

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us; nothing is printed, no exit
    saved, sys.argv = sys.argv, ["scalesweep", *words]
    try:
        decorate = hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")
        with _interrupts_noted(study_command.current()):
            decorate(_never_called)()
    except ScaleSweepError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if study_command.current().interrupted:
            raise KeyboardInterrupt from error
        raise from_hydra(error) from error
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # rich's answer to a closed pipe
            raise stop.__context__ from stop
        if stop.code not in (0, None):
            raise ConfigError("command line: see python -m scalesweep --help") from stop
    finally:
        sys.argv = saved


@contextlib.contextmanager
def _interrupts_noted(request: Request) -> Iterator[None]:
    """Ctrl-C is raised and noted: a library at work may wrap it, a destructor swallows it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        request.interrupted = True
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _never_called(config: object) -> None:
    raise AssertionError(f"every run goes through the launcher, got {type(config)}")


COMPOSING_VERBS = ("run", "plan", "doctor", "evaluate")
PLAIN_VERBS = STUDY_VERBS | EVALUATE_VERBS
"""Verbs that compose no grid."""
