"""Our composing equals Hydra's own, cell by cell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from scalesweep.config.sweep import expand, load_sweep, sweep_names
from tests.config.composing import composed

PROBE = """
import json, sys
from omegaconf import OmegaConf
import scalesweep.study_command as study_command
from scalesweep.cli import run
found = []
def handle(cells):
    found.extend([o, OmegaConf.to_container(c, resolve=True)] for o, c in cells)
    return [None] * len(cells)
study_command.handle = handle
status = run(sys.argv[1:])
print(json.dumps(found))
sys.exit(status)
"""


@pytest.mark.parametrize(
    "words",
    [
        "plan -m +sweep=quickstart",
        "plan -m model=33b,65b tuning=lora,full nodes=1,2 +align.optim.extra=1",
    ],
    ids=["quickstart", "grid"],
)
def test_each_cell_equals_hydras_own_composition(words: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROBE, *words.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    cells = json.loads(result.stdout)
    assert len(cells) in (8, 11)
    for overrides, ours in cells:
        theirs = OmegaConf.to_container(composed(overrides), resolve=True)
        assert ours == theirs


@pytest.mark.parametrize("name", sweep_names())
def test_every_shipped_sweep_has_a_question_and_cells(name: str) -> None:
    sweep = load_sweep(name)

    assert sweep.question
    assert expand(sweep, {})
