"""How fast stages ran here, and which of those runs a stage to come is most like. Pure.

The time of a step (or question) of a stage to come is that of the most alike runs, times

    (its FLOPs / theirs) ** exponent

A device that computes most of the time has exponent 1: its efficiency is the same at every size.
Where steps are short, part of their time does not grow with them, and the exponent is lower; it is
the slope over all runs of the kind on this hardware, where they have several sizes, and 1 where
not. The median of a group stands for it: a run that shared its machine with something else is an
outlier, and nothing written down tells which one that was.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from scalesweep.records import Execution, StageKind, StageRef, StageSpec

NEAR = math.log(1.25)
"""Sizes that differ by less say nothing of how time grows."""
FEWEST_SIZES = 3
MOST_COMPARED = 100
"""Runs of which every two are compared."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What makes one stage run like another."""

    kind: StageKind
    method: str = ""
    """Of training and of an answering checkpoint; a data stage's generator; a judge's scorer."""
    model: str = ""
    """Its name with its shape; a data stage's data set; the model of a judge that is asked."""
    tower: str = ""
    """Name with shape; empty where nothing is seen."""
    device: str = ""
    """As the cluster names it ("A100-80GB", "cpu"); empty in records from before it was written
    down, which are then told apart by their cluster."""
    cluster: str = ""
    num_devices: int = 1

    @classmethod
    def of(cls, spec: StageSpec, execution: Execution) -> Self:
        """Traits of a stage run so."""
        identity = spec.identity
        return cls(
            kind=spec.kind,
            method=str(_first(identity, "method", "generator", "scorer")),
            model=_shape(identity.get("model")) or str(identity.get("dataset") or ""),
            tower=_shape(identity.get("tower")),
            device=execution.device,
            cluster=execution.cluster,
            num_devices=execution.world_size,
        )

    def is_on_the_hardware_of(self, other: Traits) -> bool:
        if self.device and other.device:
            return self.device == other.device
        return self.cluster == other.cluster


def _first(identity: Any, *names: str) -> str:
    return next((identity[name] for name in names if identity.get(name)), "")


def _shape(part: Any) -> str:
    """Name and shape of a model or tower: a name alone may be given to two."""
    if part is None or isinstance(part, str):
        return part or ""
    sides = [part.get(name) for name in ("image_size", "num_layers", "hidden_size") if name in part]
    return f"{part['name']}:{'x'.join(map(str, sides))}"


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """One attempt that did its work undisturbed, as far as can be seen."""

    ref: StageRef
    traits: Traits
    flops: float
    """Of the work it did, all devices together; 0 where none are counted."""
    units: float
    """Steps, questions or items it worked through."""
    startup_s: float
    work_s: float
    share: float = 1.0
    """Of its stage's work that it did; less where other attempts did the rest."""

    @property
    def device_s(self) -> float:
        return self.work_s * self.traits.num_devices

    @property
    def device_s_per_unit(self) -> float | None:
        return self.device_s / self.units if self.units else None


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What a group of alike runs says of a stage."""

    group: Sequence[MeasuredRun]
    exponent: float
    basis: str
    """For people: "measured: 4 tune lora runs of mini_m 32px here"."""

    @property
    def startup_s(self) -> float:
        return statistics.median(run.startup_s for run in self.group)

    def work_s(self, *, flops: float, units: float, num_devices: int) -> float:
        """Expected of a stage with this much to do, on so many devices.

        flops, units: of the whole stage; 0 where they are not counted. Where a group has none of
        them either, its runs as a whole are all there is to go by.
        """
        expected = [
            seconds
            for run in self.group
            if (seconds := self._device_s(run, flops=flops, units=units)) is not None
        ]
        if expected:
            return statistics.median(expected) / num_devices
        return statistics.median(run.work_s / run.share for run in self.group)

    def _device_s(self, run: MeasuredRun, *, flops: float, units: float) -> float | None:
        """Seconds of one device that the work would take at the speed of one run."""
        if units and run.device_s_per_unit is not None:
            if flops and run.flops:
                ratio = (flops / units) / (run.flops / run.units)
                return float(units * run.device_s_per_unit * ratio**self.exponent)
            return units * run.device_s_per_unit
        if flops and run.flops:
            return flops * run.device_s / run.flops
        return None

    def efficiency(self, peak_flops: float) -> float | None:
        """Share of a device's peak that was reached (eta); peak_flops: FLOP/s of one device."""
        rates = [run.flops / run.device_s for run in self.group if run.flops]
        return statistics.median(rates) / peak_flops if rates else None


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """All measured runs of a store."""

    runs: Sequence[MeasuredRun] = ()
    _known: dict[Traits, Speed | None] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def declared(cls) -> Self:
        """Nothing was measured: declared constants are all there is."""
        return cls()

    def without(self, ref: StageRef) -> Speeds:
        """As if a stage had never run here: what its prediction is to be judged by."""
        return Speeds(runs=tuple(run for run in self.runs if run.ref != ref))

    def of(self, traits: Traits) -> Speed | None:
        """What the most alike runs on the same hardware say; None where nothing like it ran.

        Alike are, from the best on: the same method, model, resolution and number of devices; on
        any number of them; the same method of any model; any of the kind.
        """
        if traits not in self._known:
            self._known[traits] = self._found(traits)
        return self._known[traits]

    def _found(self, traits: Traits) -> Speed | None:
        here = [
            run
            for run in self.runs
            if run.traits.kind is traits.kind and run.traits.is_on_the_hardware_of(traits)
        ]
        for key, words in _LEVELS:
            if group := [run for run in here if key(run.traits) == key(traits)]:
                noun = "run" if len(group) == 1 else "runs"
                return Speed(
                    group=group,
                    exponent=_exponent(here),
                    basis=f"measured: {len(group)} {words(traits, noun)} here",
                )
        return None


_Key = Callable[[Traits], object]
_Words = Callable[[Traits, str], str]


def _alike(traits: Traits, noun: str) -> str:
    subject = _subject(traits)
    return f"{_like(traits, noun)} of {subject}" if subject else _like(traits, noun)


def _like(traits: Traits, noun: str) -> str:
    return " ".join(filter(None, (str(traits.kind), traits.method, noun)))


def _of_kind(traits: Traits, noun: str) -> str:
    return f"{traits.kind} {noun}"


_LEVELS: Sequence[tuple[_Key, _Words]] = (
    (lambda traits: (traits.method, traits.model, traits.tower, traits.num_devices), _alike),
    (lambda traits: (traits.method, traits.model, traits.tower), _alike),
    (lambda traits: traits.method, _like),
    (lambda _: None, _of_kind),
)
"""From the most alike on: what must be equal, and how the group is called."""


def _subject(traits: Traits) -> str:
    """ "mini_m 32px" of "mini_m:3x64" and "clip_32px:32x4x64"."""
    names = [traits.model.partition(":")[0]]
    if traits.tower:
        names.append(f"{traits.tower.partition(':')[2].partition('x')[0]}px")
    return " ".join(filter(None, names))


def _exponent(runs: Sequence[MeasuredRun]) -> float:
    """How the time of a unit grows with its FLOPs: the median slope between runs of two sizes
    (Theil and Sen), both as logarithms, between 0 and 1; 1 where there are too few sizes."""
    points = [
        (math.log(run.flops / run.units), math.log(run.device_s_per_unit))
        for run in runs[:MOST_COMPARED]
        if run.flops and run.device_s_per_unit
    ]
    slopes = [
        (y2 - y1) / (x2 - x1)
        for (x1, y1), (x2, y2) in itertools.combinations(points, 2)
        if abs(x2 - x1) > NEAR
    ]
    sizes = {round(x / NEAR) for x, _ in points}
    if len(sizes) < FEWEST_SIZES:
        return 1.0
    return min(max(statistics.median(slopes), 0.0), 1.0) if slopes else 1.0
