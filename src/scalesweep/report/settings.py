"""Settings: cells that differ in their seed alone, taken together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalesweep.cost_model.cost import Cost
from scalesweep.report.collect import CellResult, StudyResults
from scalesweep.report.labels import setting_key
from scalesweep.report.statistics import (
    Spread,
    Term,
    VariancePart,
    mean_items,
    pooled_spread,
)


@dataclass(frozen=True, kw_only=True)
class ErrorParts:
    """Variance of a setting's mean score by where it comes from."""

    questions: float
    """Another draw of as many questions."""
    seeds: float | None
    """None: the spread between seeds is not known."""
    judging: float | None
    """Another round of judge runs; None: no judge, or asked once only."""

    @property
    def standard_error(self) -> float:
        return math.sqrt(self.questions + (self.seeds or 0.0) + (self.judging or 0.0))

    @property
    def by_source(self) -> dict[str, float | None]:
        return {"questions": self.questions, "seeds": self.seeds, "judge_runs": self.judging}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One combination of points with all its seeds."""

    label: str
    cells: tuple[CellResult, ...]

    @property
    def config(self) -> Mapping[str, Any]:
        return self.cells[0].config

    @property
    def is_blind(self) -> bool:
        return self.cells[0].is_blind

    def scored(self, benchmark: str) -> list[CellResult]:
        """Its cells that have a score."""
        return [cell for cell in self.cells if benchmark in cell.scores]

    def score(self, benchmark: str) -> float | None:
        """Mean over its seeds."""
        scores = [cell.scores[benchmark].score for cell in self.scored(benchmark)]
        return statistics.fmean(scores) if scores else None

    def category_score(self, benchmark: str, category: str) -> float | None:
        scores = [
            cell.scores[benchmark].categories[category].score
            for cell in self.scored(benchmark)
            if category in cell.scores[benchmark].categories
        ]
        return statistics.fmean(scores) if scores else None

    def before(self, benchmark: str) -> float | None:
        """Score of its language model before tuning."""
        scores = [cell.before[benchmark].score for cell in self.cells if benchmark in cell.before]
        return statistics.fmean(scores) if scores else None

    def standard_error(self, benchmark: str, spread: Spread | None) -> float | None:
        """Of the mean score, all that is known of it; None unknown."""
        parts = self.error_parts(benchmark, spread)
        return parts.standard_error if parts is not None else None

    def error_parts(self, benchmark: str, spread: Spread | None) -> ErrorParts | None:
        """What the error of the mean score is made of; None unknown.

        The error of the questions is that of one run: all seeds answer the same ones.
        """
        found = [cell.scores[benchmark].standard_error for cell in self.scored(benchmark)]
        errors = [error for error in found if error is not None]
        if not found or len(errors) < len(found):
            return None
        judging = self.judging(benchmark)
        return ErrorParts(
            questions=statistics.fmean(error**2 for error in errors),
            seeds=spread.standard_deviation**2 / len(found) if spread is not None else None,
            judging=judging.variance if judging is not None else None,
        )

    def judging(self, benchmark: str) -> VariancePart | None:
        """Variance of the mean score from the spread of its judge runs; None unknown.

        Known where every seed's cell was judged more than once.
        """
        cells = [cell.scores[benchmark].runs for cell in self.scored(benchmark)]
        if not cells or min(map(len, cells)) < 2:
            return None
        # Runs are percent. Cells are judged independently: variances of their means add.
        each = [statistics.variance(runs) / len(runs) / 100**2 for runs in cells]
        return VariancePart(
            variance=math.fsum(each) / len(each) ** 2, df=sum(len(runs) - 1 for runs in cells)
        )

    def term(self, benchmark: str, *, weight: float, before: bool = False) -> Term | None:
        """Its answers as a term of a contrast; None when it has none."""
        if before:
            runs = [c.before[benchmark].items for c in self.cells if benchmark in c.before]
            return Term(weight=weight, items=runs[0], num_seeds=0) if runs else None
        runs = [cell.scores[benchmark].items for cell in self.scored(benchmark)]
        if not runs:
            return None
        return Term(
            weight=weight,
            items=mean_items(runs),
            num_seeds=len(runs),
            judging=self.judging(benchmark),
        )

    def mean_cost(self, name: str) -> Cost:
        """Mean over its runs of one of the costs ("tune", "standalone", "judging", "whole")."""
        costs: list[Cost] = [getattr(cell.costs, name) for cell in self.cells]
        return Cost(
            device_ms=round(statistics.fmean(cost.device_ms for cost in costs)),
            node_ms=round(statistics.fmean(cost.node_ms for cost in costs)),
            micro_usd=round(statistics.fmean(cost.micro_usd for cost in costs)),
        )

    @property
    def costs_are_whole(self) -> bool:
        return all(cell.costs_are_whole for cell in self.cells)


def settings_of(results: StudyResults) -> tuple[Setting, ...]:
    """In the order of the plan."""
    groups: dict[str, list[CellResult]] = {}
    for cell in results.cells:
        groups.setdefault(setting_key(cell.cell), []).append(cell)
    return tuple(
        Setting(label=cells[0].label, cells=tuple(sorted(cells, key=lambda cell: cell.seed)))
        for cells in groups.values()
    )


def own_spread(settings: Sequence[Setting], benchmark: str) -> Spread | None:
    """Spread between seeds in this study itself; None where every setting has one seed."""
    return pooled_spread(
        [cell.scores[benchmark].score for cell in setting.scored(benchmark)] for setting in settings
    )
