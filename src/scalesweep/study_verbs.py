"""Verbs about a study on disk: status, report, cancel. None of them composes or imports torch."""

from __future__ import annotations

from pathlib import Path

from scalesweep.errors import ConfigError
from scalesweep.plan.graph import Plan
from scalesweep.rundir import Store, read_json


def load_plan(root: Path, study: str | None) -> tuple[Store, Plan]:
    """The plan that a study was launched with; the study launched last when none is named.

    Raises:
        ConfigError: the store has no such study.
    """
    store = Store(root)
    known = store.study_names()
    if not known:
        raise ConfigError(f"store={root}: holds no study yet; run one, or give --store DIR")
    name = study or known[-1]
    if name not in known:
        raise ConfigError(f"{name}: no such study in {root}; known are {', '.join(known)}")
    return store, Plan.from_json(read_json(store.study(name) / "plan.json"))
