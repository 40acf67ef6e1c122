"""A report's cells as CSV, one row each, exact numbers and plain column names."""

from __future__ import annotations

import csv
import io
from typing import Any

from scalesweep.report import formatting as fmt
from scalesweep.report.best_under import BestUnder
from scalesweep.report.collect import CellResult
from scalesweep.report.labels import value_at
from scalesweep.report.settings import Setting
from scalesweep.report.study_report import StudyReport

_CONFIG = {
    "model": "model.name",
    "resolution_pixels": "resolution.pixels",
    "blind": "resolution.blind",
    "data_mix": "data_mix.name",
    "tuning": "tuning.method",
    "lora_rank": "lora.rank",
    "lora_alpha": "lora.alpha",
    "learning_rate": "optim.lr",
}
_COSTS = ("tune", "standalone", "share", "startup", "lost", "evaluation")


def render_csv(report: StudyReport) -> str:
    rows = [_row(report, cell) for cell in report.results.cells]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(report: StudyReport, cell: CellResult) -> dict[str, Any]:
    results = report.results
    on_front = any(cell in setting.cells for setting in report.front)
    row: dict[str, Any] = {
        "study": results.plan.study,
        "cell": cell.cell.name,
        "setting": cell.label,
        "seed": cell.seed,
        "state": str(cell.state),
        "cause": fmt.public(cell.cause),
        **{name: _plain(value_at(cell.config, key)) for name, key in _CONFIG.items()},
        "trainable_params": cell.cell.num_trainable_params,
        "params": cell.cell.num_params,
        "nodes": cell.cell.num_nodes,
        "pareto": int(on_front),
    }
    if (under := report.best_under) is not None:
        row["under_ceiling"] = _under_ceiling(under, cell)
    for name in sorted({name for other in results.cells for name in other.scores}):
        scored, before = cell.scores.get(name), cell.before.get(name)
        row[f"score_{name}"] = _number(scored.score if scored else None)
        row[f"standard_error_{name}"] = _number(scored.standard_error if scored else None)
        row[f"missing_{name}"] = scored.num_missing if scored else ""
        if any(name in other.before for other in results.cells):
            row[f"before_{name}"] = _number(before.score if before else None)
        for category, part in sorted(scored.categories.items()) if scored else ():
            row[f"score_{name}_{category}"] = _number(part.score)
    for name in _COSTS:
        cost = getattr(cell.costs, name)
        row[f"{name}_node_hours"] = _number(cost.node_hours)
        row[f"{name}_usd"] = f"{cost.usd:.6f}"
        row[f"{name}_device_seconds"] = f"{cost.device_seconds:.3f}"
    if results.judging is not None:
        row["judge_usd"] = _number(cell.costs.judge.usd)
        row["judge_unsure_usd"] = _number(cell.costs.judge.unsure_usd)
        row["judge_share_usd"] = _number(cell.costs.judge_share.usd)
    if results.account is not None:
        row["queued_s"] = "" if cell.queued_s is None else cell.queued_s
    row["costs_are_whole"] = int(cell.costs_are_whole)
    row["usd_per_node_hour"] = " ".join(f"{p.usd_per_node_hour:g}" for p in results.prices)
    row["price_is_example"] = int(any(price.is_example for price in results.prices))
    return row


def _under_ceiling(under: BestUnder, cell: CellResult) -> str:
    """best | not told apart (from it, and cheaper) | other | nothing: not to be had for so much."""

    def is_of(*settings: Setting) -> bool:
        return any(cell in setting.cells for setting in settings)

    if under.best is not None and is_of(under.best):
        return "best"
    if is_of(*under.alike):
        return "not told apart"
    return "other" if is_of(*under.affordable) else ""


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else "" if value is None else value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
