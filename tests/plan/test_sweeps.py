"""Plans of whole sweeps: keys stay what they were, sharing changes nothing, big ones are quick."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from scalesweep.config.sweep import Sweep, expand, load_sweep, parse_sweep, sweep_names
from scalesweep.plan.graph import Plan
from scalesweep.plan.show import MOST_ROWS, plan_json, plan_json_text, print_plan
from scalesweep.rundir import Store
from scalesweep.study_command import Request, planned
from tests.config.composing import composed
from tests.config.hydra_command import started

# Cells, stages, and a hash of all stages' kinds and keys in the order of the plan. Another hash
# means that what users have in their stores is not found again: raise a recipe version knowingly.
KEYS = {
    "lora_hyperparameters": (4, 22, "a66b646b8093885e"),
    "miniature": (4, 7, "076b493fcf17286a"),
    "quickstart": (11, 46, "f178a27f68044742"),
    "quickstart_seeds": (33, 122, "6f326aff46890794"),
    "smollm2": (2, 4, "627071ef2da7cac6"),
    "table1": (6, 39, "15246857a4d097da"),
    "table2": (4, 27, "d42e618ff14c7277"),
    "table3a": (10, 55, "dfcbc3fb1ad8c621"),
    "table3b": (3, 27, "8f182bc9123cc716"),
    "table4": (9, 48, "c0b045a538783f2e"),
    "table5": (6, 39, "f8c9aeecffcf0ca4"),
}


def request(sweep: Sweep) -> Request:
    return Request(verb="plan", sweep=sweep, command="python -m scalesweep")


def plan_of(sweep: Sweep) -> Plan:
    """As the command makes it."""
    with started() as command:
        composer = command.composer()
        cells = ((cell, composer.compose(cell)) for cell in expand(sweep, {}))
        plan, _, _ = planned(cells, request(sweep))
        assert composer.num_by_hydra == 0
    return plan


def unshared(sweep: Sweep) -> Plan:
    """Of configs that Hydra composed one by one and that have nothing in common."""
    cells: Sequence[Sequence[str]] = expand(sweep, {})
    plan, _, _ = planned(((cell, composed(cell)) for cell in cells), request(sweep))
    return plan


@pytest.mark.parametrize("name", sweep_names())
def test_stages_of_shipped_sweeps_keep_their_keys(name: str) -> None:
    plan = plan_of(load_sweep(name))

    refs = [str(stage.spec.ref) for stage in plan.stages]
    digest = hashlib.sha256("\n".join(refs).encode()).hexdigest()[:16]
    assert (len(plan.cells), len(refs), digest) == KEYS[name]


def test_a_plan_of_shared_parts_is_that_of_cells_composed_alone(tmp_path: Path) -> None:
    sweep, store = load_sweep("quickstart"), Store(tmp_path)

    ours, theirs = plan_of(sweep), unshared(sweep)

    assert json.dumps(plan_json(ours, store)) == json.dumps(plan_json(theirs, store))
    assert ours == theirs


def test_the_text_of_a_plan_is_that_of_its_json(tmp_path: Path) -> None:
    plan, store = plan_of(load_sweep("table3b")), Store(tmp_path)

    text = "".join(plan_json_text(plan, store))

    assert text == json.dumps(plan_json(plan, store), indent=2)


BIG = """\
# Many cells of plain values, and of choices.
fixed: {model: mini_s}
grids:
  - {seed: [SEEDS], lora.rank: [4, 8, 16, 32], optim.lr: [0.001, 0.002], tuning: lora}
  - {seed: [SEEDS], resolution: [32px, 48px], data_mix: [mini, mini_text], tuning: [lora, full]}
""".replace("SEEDS", ", ".join(str(seed) for seed in range(63)))


def test_a_thousand_cells_take_less_than_6_ms_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = parse_sweep("big", BIG)
    with started() as command:
        begin = time.process_time()
        composer = command.composer()
        cells = ((cell, composer.compose(cell)) for cell in expand(sweep, {}))
        plan, _, num_cells = planned(cells, request(sweep))
        print_plan(plan, Store(tmp_path))
        cpu_s = time.process_time() - begin

    assert num_cells == len(plan.cells) == 1008
    assert cpu_s / num_cells < 0.006
    assert f"and {1008 - MOST_ROWS} more cells" in capsys.readouterr().out


def test_cells_that_come_to_the_same_are_planned_once() -> None:
    sweep = parse_sweep(
        "x", "grids: [{tuning: lora, lora.rank: [8, 4], optim.lr: [0.015, 1.5e-2]}]"
    )

    with started() as command:
        composer = command.composer()
        cells = [(cell, composer.compose(cell)) for cell in expand(sweep, {})]
        plan, _, num_cells = planned([*cells, *cells], request(sweep))

    assert num_cells == 4
    assert len(plan.cells) == 2
