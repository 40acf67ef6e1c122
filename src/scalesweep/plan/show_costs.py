"""Expected cost, memory and time of a plan, laid out for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from scalesweep.cost_model.cost import Cost
from scalesweep.cost_model.judge_pay import unpriced_models
from scalesweep.plan.critical_path import WallTime, wall_time
from scalesweep.plan.device_fit import cell_fits
from scalesweep.plan.estimate import CellEstimate, PlanEstimate, plan_estimate
from scalesweep.plan.graph import Cell, Plan, PlannedStage
from scalesweep.records import StageKind, StageRef
from scalesweep.specs import JudgeSpec


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a plan is expected to take."""

    plan: Plan
    done: Set[StageRef]
    num_nodes: int | None = None
    """Nodes at a time; None: on Slurm as many as can be used, else this machine."""

    @cached_property
    def estimate(self) -> PlanEstimate:
        return plan_estimate(self.plan, self.done)

    @cached_property
    def wall(self) -> WallTime:
        """Raises PlanError: a stage alone takes more nodes than there are."""
        return wall_time(self.plan, self.done, num_devices=self._num_devices)

    @property
    def _num_devices(self) -> int | None:
        whole = self.plan.stages[0].execution.node_devices
        if self.num_nodes is not None:
            return self.num_nodes * whole
        # What this machine could never run is planned all the same.
        largest = max(stage.execution.num_held_devices for stage in self.plan.stages)
        return whole if self._is_local and largest <= whole else None

    @property
    def _is_local(self) -> bool:
        cluster = self.plan.cells[0].config.get("cluster") or {}
        return cluster.get("kind") == "local"

    @cached_property
    def fits(self) -> Mapping[str, str]:
        return cell_fits(self.plan)

    @cached_property
    def unknown(self) -> Set[StageRef]:
        return frozenset(self.estimate.unknown)

    @property
    def at_least(self) -> str:
        """What goes before sums of what is left to run, where a part of it is not known."""
        return "at least " if self.unknown - self.done else ""

    @property
    def is_known(self) -> bool:
        """Whether anything at all could be predicted."""
        return len(self.unknown) < len(self.plan.stages)

    @property
    def has_price(self) -> bool:
        return any(stage.execution.usd_per_node_hour for stage in self.plan.stages)

    @cached_property
    def has_gpus(self) -> bool:
        found = (stage.execution.predicted for stage in self.plan.stages)
        return any(p.device_bytes for p in found if p is not None)

    def of(self, cell: Cell) -> CellEstimate:
        return self.estimate.cells[cell.name]

    def is_whole(self, cell: Cell) -> bool:
        """Whether all its stages could be predicted."""
        return not self.unknown & set(cell.stages.values())

    def device_bytes(self, cell: Cell) -> float:
        """Of its stage that takes most on one device; 0 without a GPU."""
        found = (self.plan.stage(ref).execution.predicted for ref in cell.stages.values())
        return max((p.device_bytes for p in found if p is not None), default=0.0)

    @property
    def bases(self) -> Sequence[str]:
        """Where speeds are from ("declared: ...", "measured: ..."), the most often taken first."""
        counts: dict[str, int] = {}
        for stage in self.plan.stages:
            if (found := stage.execution.predicted) is not None and found.flops:
                counts[found.basis] = counts.get(found.basis, 0) + 1
        return sorted(counts, key=lambda basis: -counts[basis])


def amount(value: float) -> str:
    """Hours or dollars in three digits, or whole ones: 0.0034, 1.25, 18.7, 143, 1,284."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """45 s, 12 min, 7.5 h, 3.2 days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _range(least_s: float, most_s: float) -> str:
    """Seconds as "0.29-2.37 h", in the unit of the longer."""
    size, unit = next((n, u) for n, u in _UNITS if most_s >= 1.5 * n or n == 1)
    least, most = amount(least_s / size), amount(most_s / size)
    return f"{most} {unit}" if least == most else f"{least}-{most} {unit}"


_UNITS = ((3600, "h"), (60, "min"), (1, "s"))


def add_cost_columns(table: Any, outlook: Outlook) -> None:
    """tune h: node-hours of the tune stage, as in the paper; node-h and $: of all stages of a cell,
    whole, as if it were run alone; GB: on one device, at most."""
    if not outlook.is_known:
        return
    titles = ["tune h", "node-h", *(["$"] if outlook.has_price else [])]
    for title in [*titles, *(["GB"] if outlook.has_gpus else [])]:
        table.add_column(title, justify="right", no_wrap=True)


def cost_entries(outlook: Outlook, cell: Cell) -> list[str]:
    """Entries of these columns; "+" where a part could not be predicted, "!" where none fits."""
    if not outlook.is_known:
        return []
    cost = outlook.of(cell).standalone
    more = "" if outlook.is_whole(cell) else "+"
    tune = (
        "?"
        if cell.stages.get("tune") in outlook.unknown
        else amount(outlook.of(cell).tune.node_hours)
    )
    entries = [tune, amount(cost.node_hours) + more]
    if outlook.has_price:
        entries.append(amount(cost.usd) + more)
    if not outlook.has_gpus:
        return entries
    size = outlook.device_bytes(cell)
    too_much = "!" if "does not fit" in outlook.fits.get(cell.name, "") else ""
    return [*entries, f"{size / 1e9:.3g}{too_much}" if size else ""]


def stage_costs(stages: Sequence[PlannedStage], outlook: Outlook) -> list[str]:
    """Of a group of stages: time of one ("3.1-5.0 h"), then the sums in node-hours and dollars,
    with "+" where one of them could not be predicted."""
    if not outlook.is_known:
        return []
    found = [p for stage in stages if (p := stage.execution.predicted) is not None]
    if not found:
        return ["?"] * (3 if outlook.has_price else 2)
    times = [p.wall_s for p in found]
    more = "" if len(found) == len(stages) else "+"
    entries = [_range(min(times), max(times)), amount(sum(p.node_hours for p in found)) + more]
    return [*entries, amount(sum(p.usd for p in found)) + more] if outlook.has_price else entries


def total_lines(outlook: Outlook) -> list[str]:
    """What is left to pay and to wait for, and where the numbers are from."""
    estimate = outlook.estimate
    if not outlook.is_known:
        return [_why_unknown(outlook)]
    lines = [
        f"to run: {outlook.at_least}{_cost(outlook, estimate.to_run)}"
        + (f"; of {_cost(outlook, estimate.total)} with what is done" if outlook.done else "")
    ]
    if estimate.judge_micro_usd:
        lines[0] += f"; judges besides about ${amount(estimate.judge_micro_usd / 1e6)}"
    if models := _unpriced_judges(outlook.plan):
        lines[0] += f"; and {', '.join(models)}, whose price is not known (judge.prices)"
    if estimate.saved_by_sharing > 0:
        lines.append(
            f"shared stages save {estimate.saved_by_sharing:.0%} of "
            f"{_cost(outlook, estimate.unshared)}"
        )
    lines.append(_wall_line(outlook))
    bases = outlook.bases
    if bases:
        more = f"; and {len(bases) - 3} more" if len(bases) > 3 else ""
        lines.append(f"speed {'; '.join(bases[:3])}{more}")
    if outlook.unknown:
        lines.append(_why_unknown(outlook))
    return lines


def expected_line(plan: Plan, done: Set[StageRef]) -> str:
    """What is left of a study, in one line before it begins; empty where nothing can be said."""
    outlook = Outlook(plan=plan, done=done)
    if not outlook.is_known or len(done) == len(plan.stages):
        return ""
    judges = outlook.estimate.judge_micro_usd / 1e6
    words = [
        f"about {duration(outlook.wall.wall_s)}",
        _cost(outlook, outlook.estimate.to_run),
        *([f"judges ${amount(judges)}"] if judges else []),
    ]
    missing = len(outlook.unknown - done)
    more = f"; {missing} stages could not be predicted" if missing else ""
    return f"expected: {', '.join(words)}{more}"


def _unpriced_judges(plan: Plan) -> Sequence[str]:
    """Judge models that are asked and have no price."""
    found: dict[str, None] = {}
    for stage in plan.stages:
        if stage.spec.kind is StageKind.judge:
            spec = JudgeSpec.from_identity(stage.spec.identity)
            prices = stage.execution.judge.get("prices") or {}
            found |= dict.fromkeys(unpriced_models(spec, prices))
    return list(found)


def _cost(outlook: Outlook, cost: Cost) -> str:
    text = f"{amount(cost.node_hours)} node-hours"
    return f"{text}, ${amount(cost.usd)}" if outlook.has_price else text


def _wall_line(outlook: Outlook) -> str:
    wall = outlook.wall
    alone = f"{outlook.at_least}{duration(wall.critical_path_s)} on as many nodes as it can use"
    if wall.num_devices is None:
        return f"without a queue it takes {alone}; --nodes N: on so many"
    nodes = outlook.num_nodes or 1
    where = f"{nodes} {'node' if nodes == 1 else 'nodes'}"
    here = f"{outlook.at_least}{duration(wall.wall_s)}"
    return f"without a queue it takes {here} on {where}, {alone}"


def _why_unknown(outlook: Outlook) -> str:
    count = len(outlook.unknown)
    stages = [stage for stage in outlook.plan.stages if stage.ref in outlook.unknown]
    if all(not stage.execution.device for stage in stages):
        return "no time or price: cluster.device names no device"
    first = next(stage for stage in stages if stage.execution.device)
    return (
        f"{count} stages could not be predicted ({first.spec.label} first): nothing is known of "
        "their data yet; they count as nothing here"
    )


def unfit_lines(outlook: Outlook, most: int) -> list[str]:
    """Cells that their devices cannot hold, with why and the nearest setting that fits."""
    numbers = {cell.name: i + 1 for i, cell in enumerate(outlook.plan.cells)}
    unfit = [(numbers[name], text) for name, text in outlook.fits.items() if "does not" in text]
    lines = [f"{number}: {text}" for number, text in unfit[:most]]
    if len(unfit) > most:
        lines.append(f"and {len(unfit) - most:,} more cells that do not fit; --json has all")
    return lines


def cell_json(outlook: Outlook, cell: Cell) -> dict[str, Any]:
    """{"tune": {"node_hours", "usd"}, "standalone", "share", "to_run", ...}."""
    found = outlook.of(cell)
    return {
        **{
            name: _cost_json(getattr(found, name))
            for name in ("tune", "standalone", "share", "to_run")
        },
        "judge_usd": found.judge_micro_usd / 1e6,
        "device_bytes": outlook.device_bytes(cell),
        "memory": outlook.fits.get(cell.name),
        "is_whole": outlook.is_whole(cell),
    }


def plan_cost_json(outlook: Outlook) -> dict[str, Any]:
    estimate, wall = outlook.estimate, outlook.wall
    return {
        **{name: _cost_json(getattr(estimate, name)) for name in ("total", "to_run", "unshared")},
        "saved_by_sharing": estimate.saved_by_sharing,
        "judge_usd": estimate.judge_micro_usd / 1e6,
        "judges_without_price": list(_unpriced_judges(outlook.plan)),
        "critical_path_s": wall.critical_path_s,
        "wall_s": wall.wall_s,
        "num_devices": wall.num_devices,
        "bases": list(outlook.bases),
        "unknown_stages": [str(ref) for ref in estimate.unknown],
    }


def _cost_json(cost: Cost) -> dict[str, float]:
    return {"node_hours": cost.node_hours, "usd": cost.usd}
