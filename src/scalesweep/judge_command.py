"""The verb `judge calibrate`: its words, its judge composed as in a study, its page."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalesweep.config.checks import positive
from scalesweep.config.judge import JudgeConfig
from scalesweep.errors import ConfigError
from scalesweep.rundir import Store
from scalesweep.stages import StopFlag

DEFAULT = "llava_bench"


@dataclass(kw_only=True)
class Words:
    """Of the command line, told apart."""

    store: Path
    benchmark: str = DEFAULT
    answers: Path | None = None
    published: float | None = None
    as_json: bool = False
    settings: list[str] = field(default_factory=list)
    """judge=NAME, judge.key=value."""


def parse(words: Sequence[str], *, default_store: Path) -> Words:
    """[BENCHMARK] [--answers FILE --published N] judge=NAME [judge.key=value ...] [--json].

    Raises:
        ConfigError: anything else stands on the line, or no judge.
    """
    found = Words(store=default_store)
    names: list[str] = []
    todo = list(words)
    while todo:
        word = todo.pop(0)
        flag, equals, value = word.partition("=")
        if word == "--json":
            found.as_json = True
        elif flag in ("--answers", "--published", "--store", "store"):
            if not equals and flag != "store":
                if not todo:
                    raise ConfigError(f"{flag}: needs a value")
                value = todo.pop(0)
            if not value:
                raise ConfigError(f"{flag}: empty value")
            _take(found, flag, value)
        elif equals and flag.lstrip("+").partition(".")[0] == "judge":
            found.settings.append(word)
        elif word.startswith("-") or equals:
            raise ConfigError(
                f"{word}: judge calibrate takes a benchmark, --answers FILE, --published N, "
                "--json, --store DIR, judge=NAME and judge.key=value"
            )
        else:
            names.append(word)
    if len(names) > 1:
        raise ConfigError(f"{names[1]}: judge calibrate takes one benchmark; {names[0]} was named")
    found.benchmark = names[0] if names else DEFAULT
    if not any(word.startswith("judge=") for word in found.settings):
        raise ConfigError("judge calibrate: name the judge, as in judge=gpt4o")
    return found


def _take(found: Words, flag: str, value: str) -> None:
    if flag == "--answers":
        found.answers = Path(value)
    elif flag == "--published":
        try:
            found.published = float(value)
        except ValueError:
            raise ConfigError(f"--published={value}: must be a number, a percent") from None
        positive("--published", found.published)
    else:
        found.store = Path(value).expanduser().absolute()


def composed_judge(settings: Sequence[str]) -> JudgeConfig:
    """The judge that these words choose in a study.

    Raises:
        ConfigError: there is no such judge or setting.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from scalesweep.config.load import register_resolvers
    from scalesweep.config.messages import from_hydra
    from scalesweep.config.paths import conf_dir
    from scalesweep.config.schema import build

    register_resolvers()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            tree = compose("config", overrides=list(settings))
        plain = OmegaConf.to_container(tree.judge, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise from_hydra(error) from error
    return build(JudgeConfig, plain, "judge")


def calibrate(words: Words) -> int:
    """Judge published answers again, and print how far off the judge is."""
    from scalesweep.evaluate import calibrate as calibration
    from scalesweep.evaluate.judging.ask import Panel
    from scalesweep.evaluate.judging.store import ReplyStore

    judge = composed_judge(words.settings)
    if judge.scorer == "exact_match" or judge.model is None:
        raise ConfigError(f"judge={judge.name}: asks no model, there is nothing to calibrate")
    published = calibration.chosen(
        words.benchmark, answers=words.answers, published=words.published
    )
    model = judge.models.get(words.benchmark, judge.model)
    stop = StopFlag()

    def panel(record: Callable[..., None]) -> Panel:
        return Panel(
            title=words.benchmark,
            replies=ReplyStore(Store(words.store).judge_replies),
            settings=judge.execution(),
            model=model,
            source=judge.source or "openai",
            num_runs=judge.runs.get(words.benchmark, judge.num_runs),
            temperature=judge.temperature,
            stop_requested=stop,
            record=record,
        )

    with _told(), _stoppable(stop):
        found = calibration.calibrate(words.benchmark, published, panel)
    print(calibration.as_json(found) if words.as_json else calibration.as_text(found), end="")
    return 0


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What is asked, its price, and what goes wrong, on standard error as it happens."""
    log = logging.getLogger("scalesweep.evaluate.judging")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before


@contextlib.contextmanager
def _stoppable(stop: StopFlag) -> Iterator[None]:
    """Ctrl-C and SIGTERM end it in order: replies under way, which are paid for, are kept."""

    def asked(*_: Any) -> None:
        stop.event.set()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
