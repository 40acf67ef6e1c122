"""The verb `export`: a cell's model as a directory that plain transformers or peft loads.

What torch is needed for is done by scalesweep.models.export, in a process of its own; the card and
the facts beside the weights are written here. The directory appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalesweep.errors import ConfigError, StoreError
from scalesweep.launch.accounting import refresh
from scalesweep.launch.logs import find_cell
from scalesweep.plan.graph import Cell, Plan
from scalesweep.records import Done, StageRef
from scalesweep.report.command import load_plan, study_report
from scalesweep.report.labels import value_at
from scalesweep.report.model_card import model_card, provenance
from scalesweep.rundir import (
    Store,
    fsync_directory,
    output_files,
    sha256_of,
    write_atomic,
    write_json,
)

DTYPES = ("bfloat16", "float16", "float32")
FACTS = "scalesweep.json"
_REFUSED = 2
"""Exit status of models.export when it says why."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The words after the verb."""

    cell: str
    folder: Path
    merge: bool = False
    with_base: bool = True
    dtype: str | None = None
    shard_bytes: int | None = None


def export(root: Path, study: str | None, wanted: Wanted) -> list[str]:
    """Write the directory; lines that say what it is.

    Raises:
        ConfigError: no such cell, it is not done, or the words do not go with it or the directory.
        StoreError: what the store holds of it is not what was published.
    """
    store = Store(root)
    plan = load_plan(store, study)
    cell = find_cell(plan, wanted.cell, verb="export")
    folder = wanted.folder.absolute()
    form = _form(plan, cell, wanted)
    _check_folder(folder, store)
    _check_packages()
    request = _request(plan, store, cell, wanted, form)
    refresh(store, plan)
    facts = provenance(study_report(store, plan.study), store, cell)
    with _beside(folder) as partial:
        made = {**_shown(request, wanted), **_written(partial, request)}
        write_atomic(partial / "README.md", model_card(facts, made))
        files = {name: _json(file) for name, file in output_files(partial).items()}
        write_json(partial / FACTS, {**facts, "export": made, "files": files})
        _flush(partial)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return [f"{cell.name}: {_FORMS[form]}, {_size(size)}", f"{folder}", *_how(form, wanted)]


_FORMS = {"full": "whole model", "adapter": "adapters", "merged": "merged model"}


def _size(num_bytes: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes / 1024:.0f} KiB"


def _how(form: str, wanted: Wanted) -> list[str]:
    if form != "adapter":
        return ["load: LlavaForConditionalGeneration.from_pretrained(DIR); see its README.md"]
    base = "DIR/base" if wanted.with_base else "its base"
    return [f"load: PeftModel.from_pretrained({base}, DIR); see its README.md"]


# ---------------------------------------------------------------- what is asked for


def _form(plan: Plan, cell: Cell, wanted: Wanted) -> str:
    if wanted.dtype is not None and wanted.dtype not in DTYPES:
        raise ConfigError(f"--dtype={wanted.dtype}: choose one of {', '.join(DTYPES)}")
    if "tune" not in cell.stages:
        until = value_at(cell.config, "until")
        raise ConfigError(f"export {cell.name}: until={until} ends before tune; there is no model")
    method = str(plan.stage(cell.stages["tune"]).spec.identity["method"])
    if method == "full":
        for word, given in (("--merge", wanted.merge), ("--no-base", not wanted.with_base)):
            if given:
                raise ConfigError(f"{word}: {cell.name} was tuned in full and has no adapters")
        return "full"
    if wanted.merge and not wanted.with_base:
        raise ConfigError("--no-base: a merged model is its base; leave one of the two out")
    return "merged" if wanted.merge else "adapter"


def _check_folder(folder: Path, store: Store) -> None:
    if folder.resolve().is_relative_to(store.root.resolve()):
        raise ConfigError(f"export {folder}: lies in the store; name a directory outside it")
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        what = "is not empty" if folder.is_dir() else "is a file"
        raise ConfigError(f"export {folder}: {what}; name a new directory")


def _check_packages() -> None:
    needed = ("torch", "transformers", "peft", "bitsandbytes", "safetensors")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export needs {', '.join(missing)}, not installed here; "
            "pip install 'scalesweep[train]'"
        )


def _request(plan: Plan, store: Store, cell: Cell, wanted: Wanted, form: str) -> dict[str, Any]:
    tune = plan.stage(cell.stages["tune"])
    checkpoint = _verified(store, tune.ref, cell)
    inputs: dict[str, str] = {}
    if form != "full":
        for role in ("align", "language_model", "vision_tower"):
            if role in tune.spec.inputs:
                inputs[role] = str(_verified(store, tune.spec.inputs[role], cell))
    request = {
        "form": form,
        "with_base": wanted.with_base,
        "spec": dict(tune.spec.identity),
        "checkpoint": str(checkpoint),
        "inputs": inputs,
        "paths": dict(tune.execution.paths),
        "dtype": wanted.dtype,
        "answers": {
            name: value_at(cell.config, f"evaluation.{name}")
            for name in ("num_beams", "max_new_tokens")
        },
    }
    if wanted.shard_bytes is not None:
        request["shard_bytes"] = wanted.shard_bytes
    return request


def _verified(store: Store, ref: StageRef, cell: Cell) -> Path:
    """Output of a done stage, every file hashed.

    Raises:
        ConfigError: the stage is not done.
        StoreError: a file is missing or has other bytes.
    """
    stage = store.stage(ref)
    done: Done | None = stage.done()
    if done is None:
        raise ConfigError(
            f"export {cell.name}: {ref} is not done yet; `status` says where it stands"
        )
    output = stage.attempt(done.attempt).output
    for name, file in done.files.items():
        path = output / name
        defect = None
        if not path.is_file():
            defect = "is missing"
        elif path.stat().st_size != file.size:
            defect = f"has {path.stat().st_size} bytes, not {file.size}"
        elif sha256_of(path) != file.sha256:
            defect = "has other bytes than were published"
        if defect:
            raise StoreError(f"{path} {defect}; delete {stage.path} and run the study's line again")
    return output


def _shown(request: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    """What the card says of the request; no places."""
    spec = request["spec"]
    return {
        "form": request["form"],
        "with_base": wanted.with_base,
        "method": spec["method"],
        "template": spec["template"],
        "blind": spec["blind"],
        "compute_dtype": "float32" if spec["precision"] == "fp32" else "bfloat16",
        "answers": request["answers"],
    }


# ---------------------------------------------------------------- writing it


def _written(partial: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "scalesweep.models.export"],
        input=json.dumps({**request, "folder": str(partial)}),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == 0:
        facts: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return facts
    said = ended.stderr.strip().splitlines() or [f"ended with status {ended.returncode}"]
    if ended.returncode == _REFUSED:
        raise ConfigError(f"export: {said[-1]}")
    raise StoreError(f"export could not be made: {said[-1]}")


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A directory that becomes the wanted one at the end, and vanishes when that is not reached."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        partial.mkdir()
    except OSError as error:
        raise ConfigError(f"export {folder}: cannot be made ({error.strerror})") from error
    try:
        yield partial
        try:
            partial.replace(folder)
        except OSError as error:
            raise ConfigError(f"export {folder}: {error.strerror}; name a new directory") from error
        fsync_directory(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            fsync_directory(path)
    fsync_directory(folder)


def _json(file: Any) -> dict[str, Any]:
    return {"size": file.size, "sha256": file.sha256}
