"""Take towers and bases from a finished `miniature` study into this package.

    python -m scalesweep.miniature.ship STORE

`make miniature` runs the study and then this. Only files that a model is loaded from are taken; the
manifest says which stages they come from, what made them, and the identity that conf/ declares.
"""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scalesweep.config.paths import miniature_dir
from scalesweep.errors import ScaleSweepError
from scalesweep.models.weights import folder_digest
from scalesweep.plan.graph import Plan
from scalesweep.records import SCHEMA, StageRef
from scalesweep.rundir import Store, read_json, write_json

STUDY = "miniature"
SHIPPED = ("config.json", "generation_config.json", "model.safetensors")
PACKAGES = ("torch", "transformers", "deepspeed", "numpy", "pillow")


def ship(store: Store, folder: Path) -> dict[str, Any]:
    """Copy the weights of a finished study and write manifest.json; returns it.

    Raises:
        StoreError: the study is not finished.
    """
    plan = Plan.from_json(read_json(store.study(STUDY) / "plan.json"))
    stages: dict[str, StageRef] = {}
    for cell in plan.cells:
        stages[cell.config["model"]["name"]] = cell.stages["base"]
        stages[f"tower_{cell.config['resolution']['name']}"] = cell.stages["tower"]
    folders = {}
    for name, ref in sorted(stages.items()):
        output = store.stage(ref).output()
        _copy(output, folder / name)
        folders[name] = {
            "identity": f"sha256:{folder_digest(folder / name)}",
            "stage": str(ref),
            "training": read_json(output / "training.json"),
        }
    folders["tokenizer"] = {"identity": f"sha256:{folder_digest(folder / 'tokenizer')}"}
    manifest = {
        "schema": SCHEMA,
        "command": "make miniature",
        "versions": {name: version(name) for name in PACKAGES},
        "folders": folders,
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def _copy(output: Path, folder: Path) -> None:
    """Replace a folder by the files that a model is loaded from."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in SHIPPED:
        if (output / name).exists():
            shutil.copyfile(output / name, folder / name)  # without the source's private mode


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m scalesweep.miniature.ship STORE", file=sys.stderr)
        return 2
    try:
        manifest = ship(Store(Path(arguments[0])), miniature_dir())
    except (ScaleSweepError, FileNotFoundError) as error:
        print(f"scalesweep: {error}", file=sys.stderr)
        return 2
    for name, entry in manifest["folders"].items():
        print(f"{name}: {entry['identity']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
