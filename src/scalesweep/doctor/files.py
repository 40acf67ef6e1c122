"""Every data file and weight that a plan needs: where it lies, whether it is whole, whose it is.

Nothing is parsed beyond counting; what a conversation looks like is checked before a study starts
(preflight.py).
"""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scalesweep.errors import ScaleSweepError
from scalesweep.models.hub import tokenizer_defect, weights_defect
from scalesweep.models.weights import check_language_model, check_vision_tower, folder_digest
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.records import StageKind
from scalesweep.rundir import sha256_of
from scalesweep.specs import DataSpec, GenerateSpec, TrainingSpec

HASHED_BYTES = 64 << 20
"""Files up to here are hashed without being asked to."""
COUNTED_BYTES = 1 << 30
"""JSON arrays up to here are read to be counted."""


class Presence(enum.StrEnum):
    there = "there"
    missing = "missing"
    broken = "broken"
    made = "made"
    """Drawn or trained by a stage; nothing to fetch."""


@dataclass(kw_only=True)
class File:
    """One file or folder."""

    path: str
    presence: Presence
    is_folder: bool = False
    size: int | None = None
    """Bytes; None where it was not added up."""
    items: int | None = None
    """Of a JSON array, lines of JSONL, rows of a table, files of a folder; None: not counted."""
    declared: str = ""
    """sha256 that the config declares, or empty."""
    found: str = ""
    """sha256 of what is there, or empty: not computed."""
    said: str = ""
    """What is wrong, or left undone."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "presence": str(self.presence)}


@dataclass(kw_only=True)
class Group:
    """What comes from one place: a data set, or the weights of one model."""

    name: str
    kind: str
    """data | weights"""
    source: str
    licence: str
    needed_by: int
    """Cells."""
    way_to_get: str = ""
    files: list[File] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return all(file.presence in (Presence.there, Presence.made) for file in self.files)

    def to_json(self) -> dict[str, Any]:
        files = [file.to_json() for file in self.files]
        return {**asdict(self), "files": files, "is_whole": self.is_whole}


def plan_files(plan: Plan, *, hash_all: bool) -> list[Group]:
    """Each data set and each folder of weights once, in the order in which stages need them."""
    return [*_weights(plan, hash_all=hash_all), *_data(plan, hash_all=hash_all)]


# ---------------------------------------------------------------- data


def _data(plan: Plan, *, hash_all: bool) -> Iterator[Group]:
    read = _read_of(plan)
    for stage in plan.stages:
        if stage.spec.kind is not StageKind.data:
            continue
        spec = DataSpec.from_identity(stage.spec.identity)
        cells = plan.cells_of(stage.ref)
        config: Mapping[str, Any] = cells[0].config["datasets"].get(spec.dataset) or {}
        group = Group(
            name=spec.dataset,
            kind="data",
            source=" ".join(filter(None, (config.get("source"), config.get("url")))),
            licence=config.get("licence") or "",
            needed_by=len(cells),
        )
        if spec.generator is not None:
            group.source = f"drawn by `{spec.generator}` from seeds; nothing to fetch"
            group.files.append(File(path=spec.dataset, presence=Presence.made))
        else:
            root = stage.execution.paths.get(f"data:{spec.dataset}", "")
            group.way_to_get = (
                f"fetch it to {root}, or set datasets.{spec.dataset}.root"
                if root
                else f"set datasets.{spec.dataset}.root"
            )
            declared: Mapping[str, str] = spec.parameters.get("files") or {}
            names = dict.fromkeys([*declared, *read.get(spec.dataset, ())])
            group.files += [
                look_at(Path(root) / name, declared=declared.get(name, ""), hash_all=hash_all)
                for name in names or ("",)
            ]
        yield group


def _read_of(plan: Plan) -> dict[str, dict[str, None]]:
    """Data set -> files and folders below its root that stages read."""
    found: dict[str, dict[str, None]] = {}
    for stage in plan.stages:
        identity = stage.spec.identity
        for source in identity.get("data", ()):
            names = found.setdefault(source["dataset"], {})
            names[source["file"]] = None
            if source.get("image_folder") not in (None, "", "."):
                names[source["image_folder"]] = None
        for benchmark in identity.get("benchmarks", ()):
            found.setdefault(benchmark["dataset"], {})[benchmark["file"]] = None
    return found


def look_at(path: Path, *, declared: str = "", hash_all: bool) -> File:
    """One file or folder as it lies there."""
    shown = str(path)
    if path.is_dir():
        return _folder(path, hash_all=hash_all)
    if not path.is_file():
        what = "is not there"
        if path.is_symlink():
            what = "is a link to nothing"
        return File(path=shown, presence=Presence.missing, declared=declared, said=what)
    try:
        size = path.stat().st_size
        file = File(path=shown, presence=Presence.there, size=size, declared=declared)
        if size <= HASHED_BYTES or hash_all:
            file.found = f"sha256:{sha256_of(path)}"
        else:
            file.said = "not hashed (--hash does)"
        file.items = _count(path, size)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        said = f"cannot be read ({str(error).splitlines()[0]})"
        return File(path=shown, presence=Presence.broken, declared=declared, said=said)
    if declared and file.found and file.found != declared:
        file.presence, file.said = Presence.broken, "is not the declared file"
    elif size == 0 or file.items == 0:
        file.presence, file.said = Presence.broken, "is empty"
    return file


def _count(path: Path, size: int) -> int | None:
    if path.suffix == ".json" and size <= COUNTED_BYTES:
        content = json.loads(path.read_text(encoding="utf-8"))
        return len(content) if isinstance(content, list | dict) else None
    if path.suffix == ".jsonl":
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())
    return None


def _folder(path: Path, *, hash_all: bool) -> File:
    """A folder of pictures or tables: that it is not empty; counted when asked to."""
    file = File(path=str(path), presence=Presence.there, is_folder=True)
    if next(path.iterdir(), None) is None:
        file.presence, file.said = Presence.broken, "is empty"
    elif hash_all:
        counted = [len(files) for _, _, files in os.walk(path)]
        file.items = sum(counted)
    else:
        file.said = "not counted (--hash does)"
    return file


# ---------------------------------------------------------------- weights


def _weights(plan: Plan, *, hash_all: bool) -> list[Group]:
    groups: dict[tuple[str, str], Group] = {}
    looked: set[tuple[str, str, str]] = set()
    cells: dict[tuple[str, str], set[str]] = {}
    for stage in plan.stages:
        if stage.spec.kind in (StageKind.data, StageKind.judge):
            continue
        for role, name, declared, config in _declared(plan, stage):
            path = stage.execution.paths.get(role, "")
            key = declared, path
            cells.setdefault(key, set()).update(cell.name for cell in plan.cells_of(stage.ref))
            if key not in groups:
                groups[key] = Group(
                    name=f"{name} ({_ROLES[role]})",
                    kind="weights",
                    source=config.get("source") or declared,
                    licence=config.get("licence") or "",
                    needed_by=0,
                    way_to_get=_way_to_get(role, declared, path),
                    files=[_weights_folder(declared, path, hash_all=hash_all)],
                )
            file = groups[key].files[0]
            if (role, *key) not in looked and file.presence is Presence.there:
                looked.add((role, *key))
                if defect := _defect(stage, role, Path(path)):
                    file.presence, file.said = Presence.broken, defect
    for key, group in groups.items():
        group.needed_by = len(cells[key])
    return list(groups.values())


_ROLES = {"language_model": "language model", "vision_tower": "tower", "tokenizer": "tokenizer"}
_SETTINGS = {
    "language_model": "model.path",
    "vision_tower": "resolution.path",
    "tokenizer": "model.tokenizer_path",
}


def _declared(plan: Plan, stage: PlannedStage) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Role, name, declared identity and config of weights that come from outside the graph."""
    spec = _typed(stage)
    config = plan.cells_of(stage.ref)[0].config
    if spec.model is not None:
        found = [("language_model", spec.model.weights), ("tokenizer", spec.model.tokenizer)]
        for role, declared in found:
            if declared not in ("stage", "random"):
                yield role, spec.model.name, declared, config["model"]
    if spec.tower is not None and spec.tower.weights not in ("stage", "random"):
        yield "vision_tower", spec.tower.name, spec.tower.weights, config["resolution"]


def _typed(stage: PlannedStage) -> TrainingSpec | GenerateSpec:
    if stage.spec.kind is StageKind.generate:
        return GenerateSpec.from_identity(stage.spec.identity)
    return TrainingSpec.from_identity(stage.spec.identity)


def _way_to_get(role: str, declared: str, path: str) -> str:
    kind, _, rest = declared.partition(":")
    if kind != "hub":
        return f"restore the folder, or set {_SETTINGS[role]}"
    name, _, revision = rest.partition("@")
    at = f" --revision {revision}" if revision not in ("", "main") else ""
    if not path:  # the cache is looked into
        return f"hf download {name}{at}, or {_SETTINGS[role]}=DIR"
    return f"hf download {name}{at} --local-dir {path}, and {_SETTINGS[role]}={path}"


def _weights_folder(declared: str, path: str, *, hash_all: bool) -> File:
    if not path:
        said = f"{declared} has no folder on this machine"
        return File(path="", presence=Presence.missing, is_folder=True, said=said)
    folder = Path(path)
    if not folder.is_dir():
        return File(path=path, presence=Presence.missing, is_folder=True, said="is not there")
    files = [file for file in folder.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    found = File(path=path, presence=Presence.there, is_folder=True, size=size, items=len(files))
    if declared.startswith("sha256:"):
        found.declared = declared
        if size <= HASHED_BYTES or hash_all:
            found.found = f"sha256:{folder_digest(folder)}"
            if found.found != declared:
                found.presence, found.said = Presence.broken, "is not what was declared"
        else:
            found.said = "not hashed (--hash does)"
    return found


def _defect(stage: PlannedStage, role: str, folder: Path) -> str:
    """What is wrong with a folder by its config, index and headers; empty where nothing is seen."""
    spec = _typed(stage)
    try:
        if role == "language_model" and spec.model is not None:
            check_language_model(spec.model, folder)
        elif role == "vision_tower" and spec.tower is not None:
            check_vision_tower(spec.tower, folder)
        elif role == "tokenizer":
            return tokenizer_defect(folder) or ""
    except ScaleSweepError as error:
        return str(error).removeprefix(f"{folder}: ")
    return weights_defect(folder) or ""
