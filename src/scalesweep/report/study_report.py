"""A report before it is rendered: results, comparisons and what follows from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from scalesweep.report.best_under import BestUnder, Ceiling, best_under
from scalesweep.report.collect import StudyResults
from scalesweep.report.cost_unit import CostUnit
from scalesweep.report.distinguishable import Pair, all_pairs
from scalesweep.report.findings import FINDINGS
from scalesweep.report.labels import flattened
from scalesweep.report.marginal import Step, neighbour_steps, shown_steps
from scalesweep.report.pareto import pareto_front
from scalesweep.report.seeds_record import SeedsRecord
from scalesweep.report.settings import ErrorParts, Setting, settings_of
from scalesweep.report.statistics import Contrast, Estimate, Spread, Term, contrast
from scalesweep.report.verdicts import Judged, KnownSpread, judge_findings, known_spreads

MOST_PAIRED = 100
"""Settings that are all compared with each other: 4,950 pairs take seconds."""


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    results: StudyResults
    settings: tuple[Setting, ...]
    spreads: Mapping[str, KnownSpread]
    """Benchmark -> spread between seeds."""
    findings: tuple[Judged, ...]
    """Empty where the study has the cells of none of them."""
    front: tuple[Setting, ...]
    """Settings on the Pareto front of standalone cost and score, by rising cost."""
    ceiling: Ceiling | None = None
    """What one run may cost, where it was asked for the best under it."""
    target_size: float | None = None
    """Parameters of a size that was asked for, to be extrapolated to from smaller ones."""

    @property
    def primary(self) -> str:
        return self.results.primary

    @property
    def has_prices(self) -> bool:
        """Otherwise dollars say nothing and node-hours stand for cost."""
        return any(price.usd_per_node_hour > 0 for price in self.results.prices)

    @property
    def unit(self) -> CostUnit:
        return CostUnit.usd if self.has_prices else CostUnit.node_hours

    @property
    def has_seeds(self) -> bool:
        return any(len(setting.cells) > 1 for setting in self.settings)

    def spread(self, benchmark: str) -> Spread | None:
        known = self.spreads.get(benchmark)
        return known.spread if known is not None else None

    def standard_error(self, setting: Setting, benchmark: str | None = None) -> float | None:
        name = benchmark or self.primary
        return setting.standard_error(name, self.spread(name))

    def error_parts(self, setting: Setting) -> ErrorParts | None:
        """Of the score on the primary benchmark: what its ± holds."""
        return setting.error_parts(self.primary, self.spread(self.primary))

    @cached_property
    def _terms(self) -> Mapping[int, Term]:
        """Place of a setting -> its answers to the primary benchmark, averaged over its seeds."""
        found = ((i, s.term(self.primary, weight=1.0)) for i, s in enumerate(self.settings))
        return {i: term for i, term in found if term is not None}

    @cached_property
    def _places(self) -> Mapping[int, int]:
        """Settings are told apart by identity: they have no other."""
        return {id(setting): place for place, setting in enumerate(self.settings)}

    def _term(self, setting: Setting) -> Term | None:
        return self._terms.get(self._places[id(setting)])

    def interval(self, setting: Setting) -> Estimate | None:
        """Score on the primary benchmark with its 95 % interval."""
        term = self._term(setting)
        if term is None or len(term.items) < 2:
            return None
        return contrast([term], spread=self.spread(self.primary)).estimate

    def difference(self, one: Setting, other: Setting) -> Contrast | None:
        """Score of one minus that of the other; None without two questions that both answered."""
        first, second = self._term(one), self._term(other)
        if first is None or second is None:
            return None
        try:
            terms = [first, dataclasses.replace(second, weight=-1.0)]
            return contrast(terms, spread=self.spread(self.primary))
        except ValueError:
            return None

    def blind_twin(self, setting: Setting) -> Setting | None:
        """The same setting with every pixel zero."""
        for other in self.settings:
            if other.is_blind and not setting.is_blind and _same_but_blind(setting, other):
                return other
        return None

    def cost(self, setting: Setting) -> float:
        """Standalone cost with judges in dollars, or in node-hours where there are no prices."""
        return self.unit.of(setting.mean_cost("whole"))

    @cached_property
    def by_score(self) -> tuple[Setting, ...]:
        """Comparable settings, the highest score first."""
        found = sorted(comparable_settings(self), key=lambda s: -(s.score(self.primary) or 0.0))
        return tuple(found)

    @cached_property
    def paired(self) -> tuple[Setting, ...]:
        """Of by_score, those that are all compared with each other: of very many the highest, and
        those on the front."""
        on_front = {id(setting) for setting in self.front}
        return tuple(
            setting
            for place, setting in enumerate(self.by_score)
            if place < MOST_PAIRED or id(setting) in on_front
        )

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Every two of these, the one that scores higher first."""
        return all_pairs(self.paired, self.difference, num_pairs=self._num_pairs)

    @property
    def _num_pairs(self) -> int | None:
        """To correct for where not all are compared; None where all are."""
        count = len(self.by_score)
        return None if len(self.paired) == count else count * (count - 1) // 2

    @cached_property
    def _pairs(self) -> Mapping[tuple[int, int], Pair]:
        return {(id(pair.one), id(pair.other)): pair for pair in self.pairs}

    def pair(self, one: Setting, other: Setting) -> Pair | None:
        """Seen from one; None where the two cannot be compared."""
        found = self._pairs.get((id(one), id(other))) or self._pairs.get((id(other), id(one)))
        if found is None and self._num_pairs is not None:  # one that is not compared with all
            found = next(
                iter(all_pairs([one, other], self.difference, num_pairs=self._num_pairs)), None
            )
        return None if found is None else found.seen_from(one)

    @cached_property
    def front_steps(self) -> tuple[Step, ...]:
        """From each setting of the front to the next dearer one."""
        return neighbour_steps(self.front, cost=self.cost, pair=self.pair)

    @cached_property
    def shown_steps(self) -> tuple[Step, ...]:
        """Along the front, from each setting to the next that is told apart from it."""
        return shown_steps(self.front, cost=self.cost, pair=self.pair)

    @property
    def best_under(self) -> BestUnder | None:
        """None where no ceiling was asked for."""
        if self.ceiling is None:
            return None
        return best_under(
            comparable_settings(self),
            self.ceiling,
            score=lambda setting: setting.score(self.primary) or 0.0,
            pair=self.pair,
        )


def build_report(results: StudyResults, record: SeedsRecord | None) -> StudyReport:
    """record: of the spread between seeds; None where there is none."""
    settings = settings_of(results)
    spreads = known_spreads(results, settings, record)
    findings = judge_findings(settings, results, spreads)
    report = StudyReport(
        results=results,
        settings=settings,
        spreads=spreads,
        findings=findings if _can_judge(settings) else (),
        front=(),
    )
    comparable = comparable_settings(report)
    points = [(report.cost(s), s.score(report.primary) or 0.0) for s in comparable]
    front = tuple(comparable[i] for i in pareto_front(points))
    return dataclasses.replace(report, front=front)


def comparable_settings(report: StudyReport) -> list[Setting]:
    """Sighted settings with a score whose cost will not grow."""
    return [
        setting
        for setting in report.settings
        if not setting.is_blind
        and setting.costs_are_whole
        and setting.score(report.primary) is not None
    ]


def _can_judge(settings: tuple[Setting, ...]) -> bool:
    """The study scores, and has all sides of one finding at least."""
    return any("judge" in cell.cell.stages for s in settings for cell in s.cells) and any(
        all(any(side.selects(s.config) for s in settings) for side in finding.sides)
        for finding in FINDINGS
    )


def _same_but_blind(one: Setting, other: Setting) -> bool:
    mine, its = flattened(one.config), flattened(other.config)
    keys = mine.keys() | its.keys()
    return all(mine.get(key) == its.get(key) for key in keys if key != "resolution.blind")
