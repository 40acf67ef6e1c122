"""Settings that differ in nothing but the size of their model, and what their sizes foretell."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scalesweep.errors import ConfigError
from scalesweep.records import canonical_json
from scalesweep.report import formatting as fmt
from scalesweep.report.extrapolation import Extrapolated, extrapolated_cost, extrapolated_score
from scalesweep.report.labels import flattened, value_at
from scalesweep.report.settings import Setting
from scalesweep.report.study_report import StudyReport

LARGEST_SIZE = 1e15
"""Parameters that may be asked for; more is a slip of the pen."""
_MUST_BE_EQUAL = (
    "resolution",
    "data_mix",
    "tuning",
    "lora",
    "evaluation.benchmarks",
    "evaluation.num_beams",
    "judge.model",
)
"""Keys and groups. What is not here follows the model (learning rate, batch, ZeRO, nodes)."""

FLOPS, PARAMETERS = "FLOPs of the tune stage", "parameters"


@dataclass(frozen=True, kw_only=True)
class SizeExtrapolation:
    """The largest of a group of sizes from the smaller ones, or one that was asked for."""

    target: str
    """Label of the largest setting, or the parameters that were asked for and the rest of it."""
    smaller: tuple[Setting, ...]
    """By size; all have a score."""
    score: Extrapolated
    cost: Extrapolated | None
    """Of the tune stage, in the unit of the report; None: not measured."""
    cost_basis: str
    """What the cost, or its part, is in proportion to: FLOPS | PARAMETERS."""
    is_asked: bool
    """A size that was asked for and need not be in the study."""

    @property
    def smaller_models(self) -> list[str]:
        return [_model(setting) for setting in self.smaller]


def parsed_size(text: str) -> float:
    """Parameters of `--size`: "65b", "700m" or a plain number.

    Raises:
        ConfigError: it is none of them.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)([kmb]?)", text.strip().lower())
    size = float(found[1]) * {"": 1, "k": 1e3, "m": 1e6, "b": 1e9}[found[2]] if found else 0.0
    if not 0 < size <= LARGEST_SIZE:
        raise ConfigError(
            f"--size={text}: takes a number of parameters from 1 to {LARGEST_SIZE:g}: 65b, 700m or "
            "65.2e9"
        )
    return size


def size_groups(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Sighted settings of two sizes or more that are otherwise equal, each group by size.

    A recipe that differs from the usual of its model and method (a learning rate tried out) is in
    the label, so it has a group of its own. A group with one size twice cannot be put in order
    and is left out.
    """
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        if setting.is_blind or not _model(setting):
            continue
        equal = {
            key: value
            for key, value in flattened(setting.config).items()
            if any(key == name or key.startswith(f"{name}.") for name in _MUST_BE_EQUAL)
        }
        groups.setdefault(canonical_json([_rest(setting), equal]), []).append(setting)
    return [
        sorted(group, key=_size)
        for group in groups.values()
        if len(group) > 1 and len({_size(setting) for setting in group}) == len(group)
    ]


def size_extrapolations(report: StudyReport) -> tuple[SizeExtrapolation, ...]:
    """The largest of every group from the smaller ones, two of which are scored at least.

    The largest need have no score yet. Where a size was asked for, that one as well, from all
    that are smaller.
    """
    found = []
    for group in size_groups(report.settings):
        found += _extrapolated(report, group[:-1], _size(group[-1]), group[-1])
        if report.target_size is not None:
            smaller = [setting for setting in group if _size(setting) < report.target_size]
            found += _extrapolated(report, smaller, report.target_size, None)
    return tuple(found)


def why_no_extrapolation(report: StudyReport) -> str:
    """Empty where there is one, or where all settings are of one size and none was asked for."""
    found = size_extrapolations(report)
    if report.target_size is not None:
        if any(one.is_asked for one in found):
            return ""
        return (
            f"Nothing here foretells {fmt.count(round(report.target_size))} parameters: that takes "
            "two scored smaller sizes that differ in nothing else."
        )
    if found or len({_size(setting) for setting in report.settings}) < 2:
        return ""
    return (
        "No size is extrapolated from smaller ones: that takes three sizes that differ in nothing "
        "else, the smaller ones with a score."
    )


def _model(setting: Setting) -> str:
    return str(value_at(setting.config, "model.name") or "")


def _rest(setting: Setting) -> str:
    """The label without its model."""
    return setting.label.removeprefix(_model(setting)).strip()


def _size(setting: Setting) -> int:
    return setting.cells[0].cell.num_params


def _extrapolated(
    report: StudyReport, group: Sequence[Setting], size: float, largest: Setting | None
) -> list[SizeExtrapolation]:
    smaller = [setting for setting in group if setting.score(report.primary) is not None]
    if len(smaller) < 2:
        return []
    cost, basis = _cost(report, smaller, size, largest)
    target = (
        largest.label
        if largest is not None
        else f"{fmt.count(round(size))} {_rest(smaller[0])}".strip()
    )
    return [
        SizeExtrapolation(
            target=target,
            smaller=tuple(smaller),
            score=extrapolated_score(
                [(_size(s), s.score(report.primary) or 0.0) for s in smaller],
                size,
                known_error=_known_error(report, smaller),
                measured=largest.score(report.primary) if largest is not None else None,
            ),
            cost=cost,
            cost_basis=basis,
            is_asked=largest is None,
        )
    ]


def _known_error(report: StudyReport, settings: Sequence[Setting]) -> float:
    """Of one score: root mean square over settings; 0 where nothing is known."""
    errors = [report.standard_error(setting) or 0.0 for setting in settings]
    return math.sqrt(statistics.fmean(error**2 for error in errors))


def _cost(
    report: StudyReport, smaller: Sequence[Setting], size: float, largest: Setting | None
) -> tuple[Extrapolated | None, str]:
    known = [s for s in smaller if s.costs_are_whole and _tune_cost(report, s) > 0]
    flops = {s.label: _tune_flops(report, s) for s in known}
    target_flops = _tune_flops(report, largest) if largest is not None else 0.0
    by_flops = target_flops > 0 and all(flops.values())
    if not known:
        return None, PARAMETERS
    found = extrapolated_cost(
        [(flops[s.label] if by_flops else float(_size(s)), _tune_cost(report, s)) for s in known],
        target_flops if by_flops else size,
        measured=_tune_cost(report, largest)
        if largest is not None and largest.costs_are_whole
        else None,
    )
    return found, FLOPS if by_flops else PARAMETERS


def _tune_cost(report: StudyReport, setting: Setting) -> float:
    return report.unit.of(setting.mean_cost("tune"))


def _tune_flops(report: StudyReport, setting: Setting) -> float:
    """As planned; 0 where the plan does not say, as those of the first versions."""
    ref = setting.cells[0].cell.stages.get("tune")
    if ref is None:
        return 0.0
    predicted = report.results.plan.stage(ref).execution.predicted
    return predicted.flops if predicted is not None else 0.0
