"""What the paper's table 4 shows beside a score: what a study's settings cost and train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scalesweep.report.paper.published import Quantity
from scalesweep.report.settings import Setting
from scalesweep.report.stage_results import StageState
from scalesweep.report.study_report import StudyReport

PAPER_NODE_DEVICES = 8


@dataclass(frozen=True, kw_only=True)
class Value:
    """One number: a score in percent, node-hours, or billions of parameters."""

    value: float
    error: float | None = None
    """Here: one standard error of the questions. Published: as the paper's ± is."""
    is_growing: bool = False
    """A cost of stages that are not all done: a lower bound."""


def beside_score(setting: Setting, quantity: Quantity, report: StudyReport) -> Value | None:
    """A cost, mean over its seeds, or the trained parameters; None where nothing was spent."""
    if quantity is Quantity.trainable_billions:
        return Value(value=setting.cells[0].cell.num_trainable_params / 1e9)
    is_tune = quantity is Quantity.tune_node_hours
    node_hours = setting.mean_cost("tune" if is_tune else "standalone").node_hours
    if not node_hours:
        return None
    if is_tune:
        refs = [cell.cell.stages.get("tune") for cell in setting.cells]
        is_whole = all(
            ref is not None and report.results.stages[ref].state is StageState.done for ref in refs
        )
    else:
        is_whole = setting.costs_are_whole
    return Value(value=node_hours, is_growing=not is_whole)


def cost_notes(benchmarks: Sequence[str], report: StudyReport) -> Iterator[str]:
    """What is in this study's node-hours that is not in the paper's, or otherwise."""
    yield (
        "here: every attempt counts, also failed ones and start-up; alone is all stages of a "
        "cell, which the paper does not give. ≥: not finished yet."
    )
    devices = {price.node_devices for price in report.results.prices} - {PAPER_NODE_DEVICES}
    if devices:
        of = " or ".join(map(str, sorted(devices)))
        yield f"here: nodes of {of} devices, the paper's have {PAPER_NODE_DEVICES}."
    if not any(set(benchmarks) & cell.scores.keys() for cell in report.results.cells):
        yield f"here: this study has no score of {', '.join(benchmarks)}."
