"""The answer as numbers: flat rows for CSV and JSON. null or an empty field: not known."""

from __future__ import annotations

import math
from typing import Any

from scalesweep.report.best_under import BestUnder
from scalesweep.report.settings import Setting
from scalesweep.report.size_groups import size_extrapolations
from scalesweep.report.statistics import Estimate
from scalesweep.report.study_report import StudyReport

Row = dict[str, Any]


def front_rows(report: StudyReport) -> list[Row]:
    """One per setting of the Pareto front, by rising cost; steps are from the row before."""
    rows = []
    for setting, step in zip(report.front, (None, *report.front_steps), strict=False):
        price = step.per_point if step is not None else None
        gain = step.gain if step is not None else None
        pair = step.pair if step is not None else None
        parts = report.error_parts(setting)
        rows.append(
            {
                "setting": setting.label,
                "score": setting.score(report.primary),
                "standard_error": report.standard_error(setting),
                **_errors(parts.by_source if parts is not None else {}),
                "cost": report.cost(setting),
                "cost_unit": str(report.unit),
                "extra_cost": step.extra_cost if step is not None else None,
                **_estimate("gain", gain),
                "corrected_p": pair.corrected_p if pair is not None else None,
                "is_told_apart": pair.is_told_apart if pair is not None else None,
                "cost_per_point": price.value if price is not None else None,
                "cost_per_point_low": step.at_least if step is not None else None,
                "cost_per_point_high": price.high if price is not None else None,
            }
        )
    return rows


def pair_rows(report: StudyReport) -> list[Row]:
    """Every two comparable settings, the better one first."""
    return [
        {
            "setting": pair.one.label,
            "other": pair.other.label,
            **_estimate("difference", pair.difference),
            "p": pair.p,
            "corrected_p": pair.corrected_p,
            "is_told_apart": pair.is_told_apart,
        }
        for pair in report.pairs
    ]


def size_rows(report: StudyReport) -> list[Row]:
    """Two for each extrapolation in size: score, and cost of the tune stage."""
    return [
        {
            "setting": one.target,
            "from": ", ".join(one.smaller_models),
            "of": name,
            "form": found.form if name == "score" else f"{found.form} to {one.cost_basis}",
            **_estimate("expected", found.interval),
            "expected": found.value,
            "why_no_interval": found.why_no_interval or None,
            "measured": found.measured,
            "is_inside": found.is_inside,
        }
        for one in size_extrapolations(report)
        for name, found in (("score", one.score), (f"tune_{report.unit}", one.cost))
        if found is not None
    ]


def best_under_json(report: StudyReport, found: BestUnder) -> Row:
    unit = found.ceiling.unit

    def priced(setting: Setting) -> Row:
        return {
            "setting": setting.label,
            "score": setting.score(report.primary),
            "standard_error": report.standard_error(setting),
            "cost": unit.of(setting.mean_cost("whole")),
        }

    return {
        "ceiling": found.ceiling.value,
        "cost_unit": str(unit),
        "best": priced(found.best) if found.best is not None else None,
        "cheaper_and_not_told_apart": [priced(setting) for setting in found.alike],
        "affordable": [setting.label for setting in found.affordable],
    }


def _errors(by_source: dict[str, float | None]) -> Row:
    names = ("questions", "seeds", "judge_runs")
    values = {name: by_source.get(name) for name in names}
    return {
        f"standard_error_{name}": None if value is None else math.sqrt(value)
        for name, value in values.items()
    }


def _estimate(name: str, value: Estimate | None) -> Row:
    """A value with its error and 95 % interval; df null: infinitely many."""
    return {
        name: value.value if value is not None else None,
        f"{name}_standard_error": value.standard_error if value is not None else None,
        f"{name}_df": value.df if value is not None and math.isfinite(value.df) else None,
        f"{name}_low": value.low if value is not None else None,
        f"{name}_high": value.high if value is not None else None,
    }
