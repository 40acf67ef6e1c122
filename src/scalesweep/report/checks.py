"""What a reader of a comparison must know: cells that were not made or asked alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scalesweep.records import StageRef

if TYPE_CHECKING:
    from scalesweep.report.collect import CellResult
    from scalesweep.report.stage_results import StageResult

_COMPARED = (
    "cluster",
    "num_nodes",
    "devices_per_node",
    "zero_stage",
    "micro_batch_size",
    "micro_batch_tokens",
    "gradient_checkpointing",
    "attention",
    "compile",
    "threads_per_rank",
    "usd_per_node_hour",
)
"""Fields of the execution that change what a tune stage costs."""


def report_warnings(
    stages: Mapping[StageRef, StageResult], cells: Sequence[CellResult]
) -> list[str]:
    """One line each, most serious first."""
    return [
        *_stale(cells),
        *_questions(cells),
        *_records(stages),
        *_execution(stages, cells),
        *_versions(stages),
    ]


def _stale(cells: Sequence[CellResult]) -> list[str]:
    return [
        f"{cell.cell.name} is stale ({cell.cause}); run the line again"
        for cell in cells
        if cell.state == "stale"
    ]


def _questions(cells: Sequence[CellResult]) -> list[str]:
    lines = []
    asked: dict[str, dict[frozenset[str], list[str]]] = {}
    for cell in cells:
        for name, result in cell.scores.items():
            if result.num_missing:
                lines.append(
                    f"{cell.cell.name}: {result.num_missing} of {result.num_questions} "
                    f"verdicts of {name} are missing"
                )
            asked.setdefault(name, {}).setdefault(frozenset(result.items), []).append(
                cell.cell.name
            )
    for name, sets in asked.items():
        if len(sets) > 1:
            common = frozenset.intersection(*sets)
            lines.append(
                f"not all cells were asked the same questions of {name}; "
                f"comparisons use those in common ({len(common)} for all cells)"
            )
    return lines


def _records(stages: Mapping[StageRef, StageResult]) -> list[str]:
    silent = sum(a.charged is None for stage in stages.values() for a in stage.attempts)
    if not silent:
        return []
    return [f"{silent} attempt(s) died before they recorded anything: costs leave them out"]


def _execution(stages: Mapping[StageRef, StageResult], cells: Sequence[CellResult]) -> list[str]:
    lines = []
    for field in _COMPARED:
        values: dict[str, int] = {}
        for cell in cells:
            attempts = stages[tune].attempts if (tune := cell.cell.stages.get("tune")) else ()
            for value in sorted(
                {str(a.execution[field]) for a in attempts if field in a.execution}
            ):
                values[value] = values.get(value, 0) + 1
        if len(values) > 1:
            said = ", ".join(f"{value} ({count} cells)" for value, count in values.items())
            lines.append(f"tune stages differ in {field}: {said}")
    return lines


def _versions(stages: Mapping[StageRef, StageResult]) -> list[str]:
    found: dict[str, set[str]] = {}
    for stage in stages.values():
        for attempt in stage.attempts:
            versions = attempt.execution.get("versions")
            if isinstance(versions, Mapping):
                for package, version in versions.items():
                    found.setdefault(str(package), set()).add(str(version))
    return [
        f"stages were run with several versions of {package}: {', '.join(sorted(versions))}"
        for package, versions in sorted(found.items())
        if len(versions) > 1
    ]
