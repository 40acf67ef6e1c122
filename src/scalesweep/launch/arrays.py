"""Which stages go into one job array, and what each element waits for. Pure; knows no Slurm.

A failed element must cancel its own descendants and nothing else, and sbatch gives all elements of
an array the same --dependency. So stages go into one array when

  they wait for the very same elements        afterok:12_3:15_0   all of them are descendants
  each waits for "its" element of an array    aftercorr:12        element i waits for element i

and otherwise alone. Waiting for a whole array (afterok:12) is never asked for: one failed element
would cancel the children of all the others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from scalesweep.errors import PlanError
from scalesweep.records import StageRef

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Element:
    """One element of an array that is submitted already, or of one that will be."""

    array: Hashable
    """A job id, or a PlannedArray's number."""
    index: int


@dataclass(frozen=True, kw_only=True)
class PlannedArray:
    """One sbatch to come."""

    number: int
    """Position in the order of submission; what later arrays call it."""
    shape: Hashable
    elements: Mapping[int, StageRef]
    afterok: frozenset[Element] = frozenset()
    aftercorr: frozenset[Hashable] = frozenset()


@dataclass(frozen=True, kw_only=True)
class ToSubmit:
    """A stage to be submitted."""

    ref: StageRef
    shape: Hashable
    parents: frozenset[StageRef]
    """Stages to be submitted too; those that are done or queued already are left out."""
    queued: frozenset[Element] = frozenset()
    """Elements that wait or run already, for which it waits."""


@dataclass
class _Grouping:
    max_size: int
    arrays: list[PlannedArray] = field(default_factory=list)
    place: dict[StageRef, Element] = field(default_factory=dict)

    def add(
        self,
        shape: Hashable,
        elements: Mapping[int, StageRef],
        *,
        afterok: Iterable[Element] = (),
        aftercorr: Iterable[Hashable] = (),
    ) -> None:
        number = len(self.arrays)
        self.arrays.append(
            PlannedArray(
                number=number,
                shape=shape,
                elements=dict(elements),
                afterok=frozenset(afterok),
                aftercorr=frozenset(aftercorr),
            )
        )
        for index, ref in elements.items():
            self.place[ref] = Element(PlannedNumber(number), index)

    def add_level(self, level: Sequence[ToSubmit]) -> None:
        waits = {
            stage.ref: frozenset(self.place[p] for p in stage.parents) | stage.queued
            for stage in level
        }
        alone: list[ToSubmit] = []
        for (shape, parents), group in _grouped(
            level, lambda stage: (stage.shape, waits[stage.ref])
        ).items():
            if len(group) == 1 and parents:
                alone += group
                continue
            for part in _parts([stage.ref for stage in group], self.max_size):
                self.add(shape, dict(enumerate(part)), afterok=parents)
        for (shape, _), group in _grouped(
            alone, lambda stage: (stage.shape, frozenset(e.array for e in waits[stage.ref]))
        ).items():
            self._add_each_with_its_own(shape, group, waits)

    def _add_each_with_its_own(
        self,
        shape: Hashable,
        group: Sequence[ToSubmit],
        waits: Mapping[StageRef, frozenset[Element]],
    ) -> None:
        """Stages that wait for elements of the same arrays, each for another set of them."""
        common = frozenset.intersection(*(waits[stage.ref] for stage in group))
        arrays: list[dict[int, StageRef]] = []
        for stage in group:
            own = waits[stage.ref] - common
            indices = {element.index for element in own}
            one_each = len({element.array for element in own}) == len(own)
            if len(group) == 1 or len(indices) != 1 or not one_each:
                self.add(shape, {0: stage.ref}, afterok=waits[stage.ref])
                continue
            (index,) = indices
            free = next((array for array in arrays if index not in array), None)
            if free is None:
                arrays.append(free := {})
            free[index] = stage.ref
        for elements in arrays:
            some = next(iter(elements.values()))
            own = waits[some] - common
            self.add(
                shape,
                dict(sorted(elements.items())),
                afterok=common,
                aftercorr={element.array for element in own},
            )


@dataclass(frozen=True)
class PlannedNumber:
    """Stands for the job id of an array that is not submitted yet."""

    number: int


def grouped_into_arrays(stages: Sequence[ToSubmit], *, max_array_size: int) -> list[PlannedArray]:
    """Arrays in an order in which they can be submitted: parents before children.

    stages: parents before children.
    max_array_size: Slurm's MaxArraySize, one more than the highest index.
    """
    depth: dict[StageRef, int] = {}
    for stage in stages:
        missing = [parent for parent in stage.parents if parent not in depth]
        if missing:
            raise PlanError(f"{stage.ref} comes before its input {min(missing)}")
        depth[stage.ref] = max((depth[parent] + 1 for parent in stage.parents), default=0)
    grouping = _Grouping(max_size=max(1, max_array_size))
    for _, level in sorted(_grouped(stages, lambda stage: depth[stage.ref]).items()):
        grouping.add_level(level)
    return grouping.arrays


def dependency(array: PlannedArray, job_ids: Mapping[int, int]) -> str:
    """The text for sbatch --dependency; job_ids: number of an array submitted before -> its id."""

    def job(reference: Hashable) -> str:
        if isinstance(reference, PlannedNumber):
            return str(job_ids[reference.number])
        return str(reference)

    parts = []
    if array.afterok:
        parts.append(
            ":".join(("afterok", *sorted(f"{job(e.array)}_{e.index}" for e in array.afterok)))
        )
    if array.aftercorr:
        parts.append(":".join(("aftercorr", *sorted(job(a) for a in array.aftercorr))))
    return ",".join(parts)


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _parts(refs: Sequence[StageRef], size: int) -> Iterable[Sequence[StageRef]]:
    todo = iter(refs)
    while part := list(islice(todo, size)):
        yield part
