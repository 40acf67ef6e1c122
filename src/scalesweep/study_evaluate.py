"""The verb `evaluate`: one checkpoint answers benchmarks, outside any study.

What stands on the line is made into settings of an ordinary cell, which Hydra composes; the plan
then holds only the questions, the answers and the scores. It runs as any other plan does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scalesweep.cli_study import default_store
from scalesweep.config.paths import conf_dir
from scalesweep.errors import ConfigError
from scalesweep.models.external import describe, find
from scalesweep.plan.checkpoint import Checkpoint, of_external, of_store, stage_folder
from scalesweep.plan.graph import Plan
from scalesweep.rundir import Store, read_json

USAGE = (
    "evaluate: name a checkpoint: a folder in Hugging Face's layout (LLaVA, LLaMA, or adapters "
    "over one), what `export` wrote, or a tune or base stage of a store"
)
OWN = ("template", "load_4bit", "base_model", "num_beams", "max_new_tokens", "batch_size")
"""Words that only this verb has, besides groups and settings."""
_SHORT = {name: f"evaluation.{name}" for name in ("num_beams", "max_new_tokens", "batch_size")}
ALLOWED = ("evaluation", "judge", "datasets", "cluster", "precision", "store", "study", "until",
           "tracking", "budget", "tuning")  # fmt: skip
"""Settings and groups that say something about answering and judging."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the line says: the checkpoint, and words for Hydra."""

    checkpoint: Checkpoint
    words: list[str]


def asked(words: Sequence[str]) -> Asked:
    """CHECKPOINT [key=value ...], read; the checkpoint's small files are looked at.

    Raises:
        ConfigError: there is no such checkpoint, it cannot be asked, or a word has no meaning here.
    """
    if not words or words[0].startswith("-") or "=" in words[0]:
        raise ConfigError(USAGE)
    source, rest = words[0], list(words[1:])
    own = {}
    settings: list[str] = []
    for word in rest:
        key, equals, value = word.partition("=")
        if word.startswith("-"):
            settings.append(word)
        elif key in _SHORT and equals:
            settings.append(f"{_SHORT[key]}={value}")
        elif key in OWN and equals:
            if not value:
                raise ConfigError(f"{key}=: empty value")
            own[key] = value
        else:
            _check_allowed(word, key)
            settings.append(word)
    found = _checkpoint(source, own, settings)
    return Asked(checkpoint=found, words=[*_composing(found, settings), *settings])


def _check_allowed(word: str, key: str) -> None:
    head = key.lstrip("+~").partition(".")[0].partition("@")[0]
    if head not in ALLOWED:
        raise ConfigError(
            f"{word}: says nothing about evaluating a checkpoint; evaluate takes "
            f"{', '.join((*ALLOWED, *OWN))}"
        )


def _given(settings: Sequence[str], key: str) -> str | None:
    values = [word.partition("=")[2] for word in settings if word.partition("=")[0] == key]
    return values[-1] if values else None


def _checkpoint(source: str, own: dict[str, str], settings: Sequence[str]) -> Checkpoint:
    folder = find(source)
    tuning = _given(settings, "tuning")
    in_4_bit = _flag("load_4bit", own.get("load_4bit"))
    stage = stage_folder(folder)
    if stage is not None:
        for key in ("template", "load_4bit", "base_model"):
            if key in own:
                raise ConfigError(
                    f"{key}={own[key]}: {source} is a stage of a store, which says how it was made "
                    "and is asked; leave it out"
                )
        checkpoint = of_store(stage, named=folder, source=source)
        _check_store(settings, checkpoint)
    else:
        found = describe(
            folder,
            cache=_store(settings).cache,
            base=own.get("base_model"),
            template=own.get("template"),
            in_4_bit=in_4_bit or tuning == "qlora",
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        )
        checkpoint = of_external(found, source=source)
    method = str(checkpoint.method or "full")
    if tuning is not None and tuning != method:
        raise ConfigError(
            f"tuning={tuning}: {source} is asked as {method}; leave it out"
            + ("" if tuning == "qlora" else ", or give load_4bit=true for 4-bit weights")
        )
    return checkpoint


def _flag(key: str, value: str | None) -> bool:
    if value is None:
        return False
    if value.lower() not in ("true", "false"):
        raise ConfigError(f"{key}={value}: must be true or false")
    return value.lower() == "true"


def _store(settings: Sequence[str]) -> Store:
    return Store(Path(_given(settings, "store") or default_store()).expanduser().absolute())


def _check_store(settings: Sequence[str], checkpoint: Checkpoint) -> None:
    given = _given(settings, "store")
    assert checkpoint.store is not None
    if given is not None and _store(settings).root.resolve() != checkpoint.store.resolve():
        raise ConfigError(
            f"store={given}: the checkpoint lies in the store {checkpoint.store}, where its "
            "answers belong; leave it out, or `export` the model and evaluate that"
        )


def _composing(checkpoint: Checkpoint, settings: Sequence[str]) -> list[str]:
    """Settings that the checkpoint itself says, for Hydra; those on the line come after."""
    template = checkpoint.model.template
    known = (conf_dir() / "model" / f"{checkpoint.model.name}.yaml").is_file()
    model = checkpoint.model.name if known else "mini_s" if template == "mini" else "7b"
    words = [f"model={model}", "base=none", f"precision={checkpoint.precision}"]
    if _given(settings, "tuning") is None:
        words.append(f"tuning={checkpoint.method or 'full'}")
    if checkpoint.store is not None and _given(settings, "store") is None:
        words.append(f"store={checkpoint.store}")
    return words


# ---------------------------------------------------------------- what is shown


def results(plan: Plan, store: Store) -> str:
    """The scores of each cell as `score` shows them."""
    from scalesweep.evaluate.benchmarks.registry import benchmark_class
    from scalesweep.evaluate.score_command import to_terminal
    from scalesweep.evaluate.scores import BenchmarkScore

    pages = []
    for cell in plan.cells:
        ref = cell.stages.get("judge")
        if ref is None or store.stage(ref).done() is None:
            continue
        if len(plan.cells) > 1:
            pages.append(f"== {cell.name}\n")
        for name, found in read_json(store.stage(ref).output() / "scores.json")[
            "benchmarks"
        ].items():
            pages.append(
                to_terminal(benchmark_class(name).title, BenchmarkScore.from_json(name, found))
            )
    return "\n".join(pages)


def files(plan: Plan, store: Store) -> Iterator[str]:
    """Where the answers and the scores lie."""
    for role, word in (("generate", "answers"), ("judge", "scores")):
        for cell in plan.cells:
            ref = cell.stages.get(role)
            if ref is not None and store.stage(ref).done() is not None:
                yield f"{word}: {store.stage(ref).output()}"
