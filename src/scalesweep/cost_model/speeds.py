"""How fast stages ran here, and which of those runs a stage to come is most like. Pure.

A run's speed is what its devices did per second of work: FLOPs where they are counted, units
(questions, items) where a kind has no arithmetic to speak of. So a group of runs says something of
a stage of another size. The median of a group stands for it: a run that shared its machine with
something else is an outlier, and nothing written down tells which one that was.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from scalesweep.records import Execution, StageKind, StageRef, StageSpec


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
    """As the cluster names it ("A100-80GB", "cpu"); the cluster's name in records from before it
    was written down."""
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
            device=device_name(execution),
            num_devices=execution.world_size,
        )


def device_name(execution: Execution) -> str:
    """By which runs are told apart; with the cluster's where the device is not named."""
    return execution.device or f"of {execution.cluster}"


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


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What a group of alike runs says of a stage. Medians."""

    startup_s: float
    device_s_per_flop: float | None
    """Seconds of one device; None where no FLOPs are counted."""
    device_s_per_unit: float | None
    work_s: float
    """Of a run of the group as a whole, whatever its size."""
    num_runs: int
    basis: str
    """For people: "measured: 4 tune lora runs of mini_m 32px here"."""

    def work_seconds(self, *, flops: float, units: float, num_devices: int) -> float:
        """Expected of a stage with this much to do, on so many devices."""
        if flops and self.device_s_per_flop is not None:
            return flops * self.device_s_per_flop / num_devices
        if units and self.device_s_per_unit is not None:
            return units * self.device_s_per_unit / num_devices
        return self.work_s

    def efficiency(self, peak_flops: float) -> float | None:
        """Share of a device's peak that was reached (eta); peak_flops: FLOP/s of one device."""
        return None if self.device_s_per_flop is None else 1 / (self.device_s_per_flop * peak_flops)


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
            if (run.traits.kind, run.traits.device) == (traits.kind, traits.device)
        ]
        for key, words in _LEVELS:
            if group := [run for run in here if key(run.traits) == key(traits)]:
                noun = "run" if len(group) == 1 else "runs"
                return _speed(group, f"measured: {len(group)} {words(traits, noun)} here")
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
    (lambda traits: traits, _alike),
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


def _speed(group: Sequence[MeasuredRun], basis: str) -> Speed:
    return Speed(
        startup_s=statistics.median(run.startup_s for run in group),
        device_s_per_flop=_rate(group, lambda run: run.flops),
        device_s_per_unit=_rate(group, lambda run: run.units),
        work_s=statistics.median(run.work_s for run in group),
        num_runs=len(group),
        basis=basis,
    )


def _rate(group: Sequence[MeasuredRun], amount: Callable[[MeasuredRun], float]) -> float | None:
    """Median seconds of a device for each of what runs did."""
    rates = [run.work_s * run.traits.num_devices / amount(run) for run in group if amount(run) > 0]
    return statistics.median(rates) if rates else None
