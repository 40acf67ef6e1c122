"""What happens to the composed cells of one command: check all, plan, and then show or run.

Hydra's launcher plugin calls handle(); the command line says before what is asked for, and reads
the exit status afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from scalesweep.config.load import assumed_cluster_note, load
from scalesweep.config.run import RunConfig
from scalesweep.config.sweep import Sweep, bare
from scalesweep.errors import ConfigError
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.graph import Plan
from scalesweep.rundir import Store

NO_AXIS = ("study", "store", "until", "cluster", "budget", "tracking", "judge", "datasets")
"""Settings that are one for a whole study: cells that differ in them would not compare."""


@dataclass(kw_only=True)
class Request:
    """What the command line asks for."""

    verb: str
    as_json: bool = False
    sweep: Sweep | None = None
    command: str = ""
    asked_cluster: str = "auto"
    exit_status: int = 0
    interrupted: bool = False
    """Ctrl-C came while the cells were composed."""


_current: Request | None = None


def begin(request: Request) -> None:
    """Set what the next handle() is for."""
    global _current
    _current = request


def current() -> Request:
    """The request of this process; a plain one when Hydra was started by other code."""
    global _current
    if _current is None:
        _current = Request(verb="run")
    return _current


def handle(cells: Sequence[tuple[Sequence[str], DictConfig]]) -> list[float | None]:
    """Plan all cells; print the plan, or run it. Returns the primary score of each, if it has one.

    Raises:
        ConfigError: settings are wrong; every fault of every cell is named, nothing was started.
    """
    request = current()
    plan, first = planned(cells, request)
    if request.interrupted:
        raise KeyboardInterrupt
    store = Store(Path(first.store).absolute())
    if request.verb == "plan":
        _print_plan(plan, store, as_json=request.as_json)
        return [None] * len(cells)
    from scalesweep.study_run import run_plan

    outcome = run_plan(plan, store, first)
    request.exit_status = outcome.exit_status
    by_name = outcome.scores
    return [by_name.get(cell.name) for cell in plan.cells][: len(cells)] + [None] * (
        len(cells) - len(plan.cells)
    )


def planned(
    cells: Sequence[tuple[Sequence[str], DictConfig]], request: Request
) -> tuple[Plan, RunConfig]:
    """The plan of composed cells, and the config of the first; equal cells become one."""
    points = [_values(overrides) for overrides, _ in cells]
    varied = [key for key in _keys(points) if len({p.get(key) for p in points}) > 1]
    _check_axes(varied)
    requests: list[CellRequest] = []
    faults: dict[str, None] = {}
    for (_, composed), point in zip(cells, points, strict=True):
        try:
            config = load(composed, planning=request.verb == "plan")
        except ConfigError as error:
            faults[str(error)] = None
            continue
        if all(config != other.config for other in requests):
            shown = {bare(key): point[key] for key in varied if key in point}
            requests.append(CellRequest(point=shown, config=config))
    if faults:
        raise ConfigError("\nscalesweep: ".join(faults))
    study = requests[0].config.study or (request.sweep.name if request.sweep else None)
    plan = build_plan(
        requests,
        study=study,
        question=request.sweep.question if request.sweep else "",
        command=request.command,
        notes=_notes(requests, request),
    )
    return plan, requests[0].config


def _values(overrides: Sequence[str]) -> dict[str, Any]:
    """Override key -> value of one cell."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {o.get_key_element(): _plain(o.value()) for o in parsed if not o.is_delete()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _keys(points: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for point in points for key in point))


def _check_axes(varied: Sequence[str]) -> None:
    for key in varied:
        head = bare(key).partition(".")[0].partition("@")[0]
        if head in NO_AXIS:
            raise ConfigError(f"{key}: is one for a whole study; give a single value")


def _notes(requests: Sequence[CellRequest], request: Request) -> list[str]:
    """What a reader must know: assumed cluster, example price, weights that are not pinned."""
    notes = []
    cluster = requests[0].config.cluster
    assumed = assumed_cluster_note(cluster, asked=request.asked_cluster)
    if assumed:
        notes.append(assumed)
    if cluster.price_is_example:
        notes.append(
            f"cluster={cluster.name}: ${cluster.usd_per_node_hour:g} per node-hour is an example "
            "price; set yours with cluster.usd_per_node_hour"
        )
    declared = {r.config.model.weights for r in requests}
    declared |= {r.config.resolution.weights for r in requests}
    moving = sorted(name for name in declared if name.startswith("hub:") and name.endswith("@main"))
    if moving:
        notes.append(
            "keys are provisional: @main can change; pin a revision in model.weights and "
            f"resolution.weights ({', '.join(name[4:] for name in moving)})"
        )
    return notes


def _print_plan(plan: Plan, store: Store, *, as_json: bool) -> None:
    from scalesweep.plan.show import plan_json, print_plan

    if as_json:
        print(json.dumps(plan_json(plan, store), indent=2, allow_nan=False))
    else:
        print_plan(plan, store)
