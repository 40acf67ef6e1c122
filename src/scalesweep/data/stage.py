"""Stages of kind data: draw a miniature data set, or take stock of one that lies somewhere.

output/ of an external data set is external.json: what its files were when it was indexed. Where it
lies is no part of that (moving a data set changes no result), so it stands beside output/, in
location.json of the attempt.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from scalesweep.data.readers import read_json_file
from scalesweep.errors import DataError, Interrupted
from scalesweep.rundir import read_json, sha256_of, write_json
from scalesweep.specs import DataSpec
from scalesweep.stages import StageContext
from scalesweep.tracking.metric_names import PROGRESS_DONE, PROGRESS_TOTAL, PROGRESS_UNIT

_LOG_INTERVAL_S = 0.5
_LOCATION = "location.json"


def run(context: StageContext) -> None:
    """Make or index the data set that the stage's DataSpec names.

    Raises:
        DataError: a parameter is wrong, or a file is missing, cut or not the declared one.
        Interrupted: a signal asked to stop; the next attempt begins anew.
    """
    if not context.is_main:
        return
    spec = DataSpec.from_identity(context.spec.identity)
    context.attempt.output.mkdir(parents=True, exist_ok=True)
    if spec.generator is None:
        _index(context, spec)
    else:
        _generate(context, spec.generator, spec)


def dataset_root(context: StageContext, dataset: str) -> Path:
    """Folder that a data set of this stage is read from, generated or external.

    Raises:
        DataError: the stage has no such input.
    """
    role = f"data:{dataset}"
    if role in context.execution.paths:
        return Path(context.execution.paths[role])
    if role not in context.inputs:
        known = ", ".join(r.removeprefix("data:") for r in context.inputs if r.startswith("data:"))
        raise DataError(f"the stage has no data set {dataset!r}; it has {known or 'none'}")
    output = context.inputs[role]
    location = output.parent / _LOCATION
    return Path(read_json(location)["root"]) if location.exists() else output


class _Progress:
    """Tells metrics.jsonl how far the stage is, and stops it when asked to."""

    def __init__(self, context: StageContext, *, total: int, unit: str) -> None:
        self._context = context
        self._row = {PROGRESS_TOTAL: total, PROGRESS_UNIT: unit}
        self._total = total
        self._logged_at = float("-inf")

    def __call__(self, done: int) -> None:
        if self._context.stop_requested():
            raise Interrupted(f"stopped after {done} of {self._total}; nothing is kept of it")
        now = time.monotonic()
        if done == self._total or now - self._logged_at >= _LOG_INTERVAL_S:
            self._context.log_metrics({PROGRESS_DONE: done, **self._row})
            self._logged_at = now


def _generate(context: StageContext, generator: str, spec: DataSpec) -> None:
    # Here, because whoever only asks for dataset_root needs neither numpy nor Pillow.
    from scalesweep.data.miniature import check_parameters, generate, num_units

    check_parameters(generator, spec.parameters)
    total, unit = num_units(generator, spec.parameters)
    progress = _Progress(context, total=total, unit=unit)
    generate(generator, spec.parameters, context.attempt.output, tick=progress)


def _index(context: StageContext, spec: DataSpec) -> None:
    name = spec.dataset
    root = _external_root(context, name)
    declared: dict[str, str] = spec.parameters.get("files") or {}
    names = sorted(declared) or sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()
    )
    if not names:
        raise DataError(f"data set {name}: {root} holds no files")
    progress = _Progress(context, total=len(names), unit="file")
    files = {}
    for done, file in enumerate(names):
        files[file] = take_stock(root / file, declared.get(file, ""), dataset=name)
        progress(done + 1)
    write_json(context.attempt.output / "external.json", {"dataset": name, "files": files})
    write_json(context.attempt.path / _LOCATION, {"root": str(root)})


def _external_root(context: StageContext, dataset: str) -> Path:
    path = context.execution.paths.get(f"data:{dataset}")
    setting = f"set datasets.{dataset}.root"
    if path is None:
        raise DataError(f"data set {dataset} has no generator and no folder; {setting}")
    root = Path(path).absolute()
    if not root.is_dir():
        raise DataError(f"data set {dataset}: {root} is not a folder; {setting} to where it lies")
    return root


def take_stock(path: Path, declared: str, *, dataset: str) -> dict[str, Any]:
    """Size, hash and number of items of a file, as it must be."""
    if not path.is_file():
        raise DataError(
            f"data set {dataset}: {path} is missing; fetch it, or set datasets.{dataset}.root"
        )
    digest = f"sha256:{sha256_of(path)}"
    if declared and digest != declared:
        raise DataError(
            f"data set {dataset}: {path} is not the declared file: {digest}, declared {declared}; "
            f"fetch it again, or declare what it is in datasets.{dataset}.files"
        )
    stock: dict[str, Any] = {"sha256": digest.removeprefix("sha256:"), "size": path.stat().st_size}
    if path.suffix == ".json":
        content = read_json_file(path)
        if isinstance(content, list | dict):
            stock["num_items"] = len(content)
    elif path.suffix == ".jsonl":
        with path.open("rb") as file:
            stock["num_items"] = sum(1 for line in file if line.strip())
    return stock
