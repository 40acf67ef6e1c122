"""The weights that a plan's stages read from this machine, and what is wrong with them.

Files alone are looked at; what takes a tokenizer or the network is passed in or done in preflight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scalesweep.errors import StageError
from scalesweep.models.hub import HubId, hub_id, snapshot, tokenizer_defect, weights_defect
from scalesweep.models.weights import check_language_model, check_vision_tower
from scalesweep.specs import GenerateSpec, LanguageModelSpec, TrainingSpec, VisionTowerSpec

Ask = Callable[[Sequence[HubId]], Mapping[HubId, str]]
"""What the hub says against downloads of repositories: gated, unknown. Nothing where all is well,
or where it does not answer."""


@dataclass(frozen=True)
class Wanted:
    """One folder that a stage reads."""

    setting: str
    """model.path | model.tokenizer_path | resolution.path"""
    declared: str
    path: str | None
    name: str
    spec: LanguageModelSpec | VisionTowerSpec | None
    """What the weights must be; None for a tokenizer."""

    @property
    def missing_from_cache(self) -> HubId | None:
        """The repository to fetch, where no folder is set and none is in the cache."""
        return hub_id(self.declared) if self.path is None else None

    @property
    def subject(self) -> str:
        """Key and value, as they stand first in a message."""
        wanted = hub_id(self.declared)
        cached = wanted is not None and self.path in (None, str(snapshot(wanted)))
        declared = self.setting.replace("tokenizer_path", "tokenizer").replace("path", "weights")
        return f"{declared}={self.declared}" if cached else f"{self.setting}={self.path or 'null'}"


def wanted_weights(spec: TrainingSpec | GenerateSpec, paths: Mapping[str, str]) -> Iterable[Wanted]:
    """What a stage reads besides what other stages made; external checkpoints were looked at when
    they were named (models/external.py)."""
    if isinstance(spec, GenerateSpec) and spec.checkpoint == "external":
        return
    model, tower = spec.model, spec.tower
    if model is not None:
        path = paths.get("language_model")
        if model.weights not in ("stage", "random"):
            yield Wanted("model.path", model.weights, path, model.name, model)
        if model.tokenizer != "stage":
            path = paths.get("tokenizer")
            yield Wanted("model.tokenizer_path", model.tokenizer, path, model.name, None)
    if tower is not None and tower.weights not in ("stage", "random"):
        path = paths.get("vision_tower")
        yield Wanted("resolution.path", tower.weights, path, tower.name, tower)


def weight_faults(wanted: Sequence[Wanted], *, ask: Ask | None) -> dict[Wanted, str]:
    """One line for each folder that is not here, not whole, or another architecture's.

    ask: looks why what is not in the cache might not be downloaded; None leaves it out.
    """
    # A tokenizer mostly comes with the weights: one download, one line.
    fetched = {one.missing_from_cache for one in wanted if one.spec}
    wanted = [one for one in wanted if one.spec or one.missing_from_cache not in fetched - {None}]
    to_fetch = dict.fromkeys(one.missing_from_cache for one in wanted)
    ids = [one for one in to_fetch if one is not None]
    said = ask(ids) if ask and ids else {}
    found = {one: _fault(one, said) for one in wanted}
    return {one: f"{one.subject}: {fault}" for one, fault in found.items() if fault is not None}


def _fault(wanted: Wanted, said: Mapping[HubId, str]) -> str | None:
    what = (
        f"the weights of {wanted.name} are" if wanted.spec else f"the tokenizer of {wanted.name} is"
    )
    set_it = f"set {wanted.setting}=DIR"
    fetch = hub_id(wanted.declared)
    if wanted.path is None:
        if fetch is None:
            return f"{what} not here ({wanted.declared}); {set_it}"
        if fetch in said:
            return f"{said[fetch]}; or {set_it}"
        return f"{what} not here; `{fetch.download}`, or {set_it}"
    folder = Path(wanted.path)
    if not folder.is_dir():
        return f"{what} not here: no such folder; give theirs, or leave it null for the hub's cache"
    defect = weights_defect(folder) if wanted.spec else tokenizer_defect(folder)
    if defect is not None:
        again = f"`{fetch.download}` again" if fetch else "fetch them again"
        return f"{what} not whole: {folder}: {defect}; {again}, or {set_it} to a whole folder"
    try:
        if isinstance(wanted.spec, LanguageModelSpec):
            check_language_model(wanted.spec, folder)
        elif wanted.spec is not None:
            check_vision_tower(wanted.spec, folder)
    except StageError as error:
        return f"{error}; {set_it} to the right ones, or choose the model that they are"
    return None
