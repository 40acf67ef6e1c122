"""What is known of the tokens that a stage works on; counts are kept in a store's cache.

Written by whoever has read the data (a training or generate stage, the check before a study), once;
a plan that finds none samples the files, or takes what is declared. Like all of the cache it may be
deleted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scalesweep.cost_model.declared_tokens import declared_questions, declared_training
from scalesweep.cost_model.sampled_tokens import sampled_training
from scalesweep.cost_model.token_statistics import (
    TokenStatistics,
    questions_key,
    training_data_key,
)
from scalesweep.errors import StoreError
from scalesweep.records import StageKind, StageRef, StageSpec
from scalesweep.rundir import read_json, write_json
from scalesweep.specs import DataSpec, GenerateSpec, JudgeSpec, TrainingSpec


def stage_tokens(
    stage: StageSpec,
    *,
    dataset: Callable[[StageRef], DataSpec | None],
    caches: Sequence[Path] = (),
    roots: Mapping[str, Path] | None = None,
) -> TokenStatistics | None:
    """Of the samples a training stage learns from, each once; of the questions that a generate
    stage asks or a judge stage reads the answers to. Its source says whether they were counted.

    dataset: what a data stage draws or indexes (None: not known). caches: Store.cache of the
    stores that are asked, the first that knows wins. roots: folders of data sets that lie here, by
    name: files that nobody has counted are sampled. None: nothing is known, and of a data stage.
    """
    data = {
        role.removeprefix("data:"): drawn
        for role, ref in stage.inputs.items()
        if role.startswith("data:") and (drawn := dataset(ref)) is not None
    }
    if stage.kind is StageKind.data:
        return None
    if stage.kind is StageKind.judge:
        benchmarks = JudgeSpec.from_identity(stage.identity).benchmarks
        return declared_questions(benchmarks, data, asks=None)
    if stage.kind is StageKind.generate:
        asks = GenerateSpec.from_identity(stage.identity)
        return _kept(caches, questions_key(stage)) or declared_questions(
            asks.benchmarks, data, asks=asks
        )
    spec = TrainingSpec.from_identity(stage.identity)
    return (
        _kept(caches, training_data_key(stage))
        or sampled_training(spec, roots or {})
        or declared_training(spec, data)
    )


def _kept(caches: Sequence[Path], key: str) -> TokenStatistics | None:
    found = (kept_statistics(cache, key) for cache in caches)
    return next((one for one in found if one is not None), None)


def tokens_file(cache: Path, key: str) -> Path:
    return cache / f"tokens-{key}.json"


def keep_statistics(cache: Path, key: str, sums: Mapping[str, int]) -> None:
    """Write statistics, unless the same are there; what cannot be written is left."""
    found = TokenStatistics.from_json(sums)
    if kept_statistics(cache, key) == found:
        return
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        write_json(tokens_file(cache, key), found.to_json())


def kept_statistics(cache: Path, key: str) -> TokenStatistics | None:
    """Those of a key (cost_model.token_statistics), or None where there are none to be read."""
    with contextlib.suppress(OSError, StoreError, KeyError, TypeError, ValueError):
        data: dict[str, Any] = read_json(tokens_file(cache, key))
        return TokenStatistics.from_json(data)
    return None
