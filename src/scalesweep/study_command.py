"""What happens to the composed cells of one command: check all, plan, and then show or run.

Hydra's launcher plugin calls handle(); the command line says before what is asked for, and reads
the exit status afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from scalesweep.config.compose import Composed
from scalesweep.config.load import assumed_cluster_note, load
from scalesweep.config.run import RunConfig
from scalesweep.config.schema import Parts
from scalesweep.config.sweep import Sweep, bare
from scalesweep.errors import ConfigError
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.checkpoint import Checkpoint
from scalesweep.plan.graph import Plan
from scalesweep.plan.known import predicted
from scalesweep.rundir import Store

RUNNING = ("run", "evaluate")
"""Verbs that start something."""
NO_AXIS = ("study", "store", "until", "cluster", "budget", "tracking", "judge", "datasets")
"""Settings that are one for a whole study: cells that differ in them would not compare."""


@dataclass(kw_only=True)
class Request:
    """What the command line asks for."""

    verb: str
    as_json: bool = False
    num_nodes: int | None = None
    """plan: nodes at a time, for the wall time; None: this machine, or as many as can be used."""
    each_stage: bool = False
    """plan: a row for every stage."""
    hash_all: bool = False
    """doctor: hash and count what is large too."""
    sweep: Sweep | None = None
    command: str = ""
    asked_cluster: str = "auto"
    exit_status: int = 0
    checkpoint: Checkpoint | None = None
    """evaluate: all cells ask this one."""
    waits: bool = False
    """A sweeper asked that chooses further cells by the scores of these."""
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


def handle(cells: Iterable[tuple[Sequence[str], Composed]]) -> list[float | None]:
    """Plan all cells; print the plan, or run it. Returns the primary score of each, if it has one.

    cells: overrides, and the config composed of them; looked at once, one after the other.

    Raises:
        ConfigError: settings are wrong; every fault of every cell is named, nothing was started.
    """
    request = current()
    plan, first, num_cells = planned(cells, request)
    if request.interrupted:
        raise KeyboardInterrupt
    store = Store(Path(first.store).absolute())
    if request.verb != "doctor":
        plan = predicted(plan, store)
    if request.verb == "plan":
        _print_plan(plan, store, request)
        return [None] * num_cells
    if request.verb == "doctor":
        from scalesweep.doctor.command import doctor

        request.exit_status = doctor(
            store.root, plan, as_json_text=request.as_json, hash_all=request.hash_all
        )
        return [None] * num_cells
    from scalesweep.study_run import run_plan

    if request.checkpoint is None:
        outcome = run_plan(plan, store, first, wait=request.waits)
    else:
        from scalesweep.study_evaluate import files, results

        outcome = run_plan(plan, store, first, wait=request.waits, shown=results)
        for line in files(plan, store):
            print(line)
    request.exit_status = outcome.exit_status
    by_name = outcome.scores
    return [by_name.get(cell.name) for cell in plan.cells][:num_cells] + [None] * (
        num_cells - len(plan.cells)
    )


def planned(
    cells: Iterable[tuple[Sequence[str], Composed]], request: Request
) -> tuple[Plan, RunConfig, int]:
    """The plan of composed cells, the config of the first, and their number; equal ones are one."""
    values, parts = _Values(), Parts()
    points: list[dict[str, Any]] = []
    configs: list[RunConfig | None] = []
    faults: dict[str, None] = {}
    for overrides, composed in cells:
        points.append(values.of(overrides))
        try:
            planning = request.verb not in RUNNING
            loaded = load(composed, planning=planning, parts=parts)
            if request.checkpoint is not None:
                loaded = request.checkpoint.adapted(loaded)
            configs.append(loaded)
        except ConfigError as error:
            configs.append(None)
            faults[str(error)] = None
    varied = [key for key in _keys(points) if len({p.get(key) for p in points}) > 1]
    _check_axes(varied)
    if faults:
        raise ConfigError("\nscalesweep: ".join(faults))
    requests: dict[tuple[object, ...], CellRequest] = {}
    for config, point in zip(configs, points, strict=True):
        assert config is not None
        content = _content(config)
        if content not in requests:
            shown = {bare(key): point[key] for key in varied if key in point}
            requests[content] = CellRequest(point=shown, config=config)
    distinct = list(requests.values())
    first = distinct[0].config
    plan = build_plan(
        distinct,
        study=first.study or (request.sweep.name if request.sweep else None),
        question=request.sweep.question if request.sweep else "",
        command=request.command,
        notes=_notes(distinct, request),
        checkpoint=request.checkpoint,
    )
    return plan, first, len(points)


def _content(config: RunConfig) -> tuple[object, ...]:
    """Equal for equal configs that were built with the same parts."""
    return tuple(
        value if value is None or isinstance(value, bool | int | float | str) else id(value)
        for value in vars(config).values()
    )


class _Values:
    """Overrides, each distinct one parsed once."""

    def __init__(self) -> None:
        self._parser = OverridesParser.create()
        self._known: dict[str, tuple[str, Any] | None] = {}

    def of(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Override key -> value of one cell; deletions have none."""
        return dict(value for text in overrides if (value := self._value(text)) is not None)

    def _value(self, text: str) -> tuple[str, Any] | None:
        if text not in self._known:
            (override,) = self._parser.parse_overrides([text])
            value = override.get_key_element(), _plain(override.value())
            self._known[text] = None if override.is_delete() else value
        return self._known[text]


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
    if cluster.counts_example and cluster.counted_usd_per_node_hour is not None:
        notes.append(
            f"cluster={cluster.name}: ${cluster.counted_usd_per_node_hour:g} per node-hour is an "
            "example price; set yours with cluster.usd_per_node_hour"
        )
    asked = request.checkpoint
    if asked is not None and asked.stored_dtype == "float16":
        computed = requests[0].config.precision
        notes.append(f"{asked.source}: weights are float16; they are computed in {computed}")
    declared = {r.config.model.weights for r in requests}
    declared |= {r.config.resolution.weights for r in requests}
    moving = sorted(name for name in declared if name.startswith("hub:") and name.endswith("@main"))
    if moving:
        notes.append(
            "keys are provisional: @main can change; pin a revision in model.weights and "
            f"resolution.weights ({', '.join(name[4:] for name in moving)})"
        )
    return notes


def _print_plan(plan: Plan, store: Store, request: Request) -> None:
    from scalesweep.plan.show import plan_json_text, print_plan

    if request.as_json:
        for text in plan_json_text(plan, store, num_nodes=request.num_nodes):
            print(text, end="")
        print()
    else:
        print_plan(plan, store, num_nodes=request.num_nodes, each_stage=request.each_stage)
