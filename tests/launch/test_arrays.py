"""Every stage goes into one array, and each element waits for its own parents and no others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesweep.errors import PlanError
from scalesweep.launch.arrays import (
    Element,
    PlannedArray,
    PlannedNumber,
    ToSubmit,
    dependency,
    grouped_into_arrays,
)
from scalesweep.records import StageKind, StageRef


def ref(name: str) -> StageRef:
    return StageRef(kind=StageKind.tune, key=name)


def to_submit(
    name: str,
    after: Iterable[str] = (),
    *,
    shape: str = "gpu",
    queued: Iterable[Element] = (),
) -> ToSubmit:
    return ToSubmit(
        ref=ref(name),
        shape=shape,
        parents=frozenset(ref(parent) for parent in after),
        queued=frozenset(queued),
    )


def grouped(*stages: ToSubmit, most: int = 1001) -> list[PlannedArray]:
    return grouped_into_arrays(stages, max_array_size=most)


def shown(array: PlannedArray) -> tuple[dict[int, str], str]:
    """Elements and the text for sbatch; arrays that come before have the ids 100, 101, ..."""
    elements = {index: stage.key for index, stage in array.elements.items()}
    return elements, dependency(array, {number: 100 + number for number in range(array.number)})


def test_stages_without_parents_are_one_array() -> None:
    arrays = grouped(*(to_submit(name) for name in "abc"))

    assert [shown(array) for array in arrays] == [({0: "a", 1: "b", 2: "c"}, "")]


def test_stages_of_another_shape_are_an_array_of_their_own() -> None:
    arrays = grouped(to_submit("a"), to_submit("b", shape="cpu"), to_submit("c"))

    assert [shown(array)[0] for array in arrays] == [{0: "a", 1: "c"}, {0: "b"}]


def test_children_of_the_same_parents_are_one_array_that_waits_for_both() -> None:
    arrays = grouped(
        to_submit("a"), to_submit("b"), *(to_submit(name, "ab") for name in ("c", "d", "e"))
    )

    assert shown(arrays[1]) == ({0: "c", 1: "d", 2: "e"}, "afterok:100_0:100_1")


def test_each_with_its_own_parent_is_an_array_of_equal_indices() -> None:
    arrays = grouped(
        *(to_submit(name) for name in "abc"),
        to_submit("z", "c"),
        to_submit("x", "a"),
        to_submit("y", "b"),
    )

    assert [shown(array) for array in arrays[1:]] == [({0: "x", 1: "y", 2: "z"}, "aftercorr:100")]


def test_chains_stay_in_step_over_many_stages() -> None:
    arrays = grouped(
        *(to_submit(f"tune{i}") for i in range(3)),
        *(to_submit(f"generate{i}", [f"tune{i}"]) for i in range(3)),
        *(to_submit(f"judge{i}", [f"generate{i}"]) for i in range(3)),
    )

    assert [shown(array)[1] for array in arrays] == ["", "aftercorr:100", "aftercorr:101"]


def test_what_is_common_is_waited_for_beside_what_is_each_ones_own() -> None:
    arrays = grouped(
        to_submit("bench", shape="cpu"),
        *(to_submit(f"tune{i}") for i in range(2)),
        *(to_submit(f"generate{i}", [f"tune{i}", "bench"]) for i in range(2)),
    )

    assert shown(arrays[-1]) == (
        {0: "generate0", 1: "generate1"},
        "afterok:100_0,aftercorr:101",
    )


def test_two_children_of_one_parent_go_to_two_arrays_where_each_parent_has_several() -> None:
    arrays = grouped(
        *(to_submit(name) for name in "ab"),
        to_submit("a1", ["a"]),
        to_submit("b1", ["b"], shape="cpu"),
        to_submit("a2", ["a"], shape="cpu"),
        to_submit("a1x", ["a1", "a"]),
        to_submit("b1x", ["b1", "a"]),
    )

    assert [shown(array) for array in arrays[1:]] == [
        ({0: "a1"}, "afterok:100_0"),
        ({0: "a2", 1: "b1"}, "aftercorr:100"),
        ({0: "a1x"}, "afterok:100_0:101_0"),
        ({0: "b1x"}, "afterok:100_0:102_1"),
    ]


def test_siblings_that_cannot_share_an_index_go_to_two_arrays() -> None:
    parents = [Element(12, index) for index in (0, 1)]
    arrays = grouped(
        to_submit("a", queued=[parents[0], Element(13, 0)]),
        to_submit("b", queued=[parents[1], Element(13, 1)]),
        to_submit("c", queued=[parents[0], Element(13, 0), Element(14, 7)]),
        to_submit("d", queued=[parents[1], Element(13, 1), Element(14, 7)]),
    )

    assert [shown(array) for array in arrays] == [
        ({0: "a", 1: "b"}, "aftercorr:12:13"),
        ({0: "c", 1: "d"}, "afterok:14_7,aftercorr:12:13"),
    ]


def test_parents_at_unequal_indices_are_named_one_by_one() -> None:
    arrays = grouped(
        to_submit("a", queued=[Element(12, 0), Element(13, 1)]),
        to_submit("b", queued=[Element(12, 1), Element(13, 0)]),
    )

    assert [shown(array) for array in arrays] == [
        ({0: "a"}, "afterok:12_0:13_1"),
        ({0: "b"}, "afterok:12_1:13_0"),
    ]


def test_one_child_of_a_queued_element_waits_for_that_element_alone() -> None:
    arrays = grouped(to_submit("a", queued=[Element(12, 3)]))

    assert shown(arrays[0]) == ({0: "a"}, "afterok:12_3")


def test_children_of_elements_of_a_queued_array_keep_its_indices() -> None:
    arrays = grouped(*(to_submit(f"s{i}", queued=[Element(12, i)]) for i in (7, 3, 900)))

    assert shown(arrays[0]) == ({3: "s3", 7: "s7", 900: "s900"}, "aftercorr:12")


def test_arrays_are_not_longer_than_slurm_takes() -> None:
    arrays = grouped(to_submit("p"), *(to_submit(f"s{i}", ["p"]) for i in range(7)), most=3)

    assert [list(array.elements) for array in arrays] == [[0], [0, 1, 2], [0, 1, 2], [0]]
    assert {dependency(array, {0: 5}) for array in arrays[1:]} == {"afterok:5_0"}


def test_a_cut_array_is_followed_in_pieces() -> None:
    arrays = grouped(
        *(to_submit(f"a{i}") for i in range(5)),
        *(to_submit(f"b{i}", [f"a{i}"]) for i in range(5)),
        most=3,
    )

    assert [shown(array) for array in arrays[2:]] == [
        ({0: "b0", 1: "b1", 2: "b2"}, "aftercorr:100"),
        ({0: "b3", 1: "b4"}, "aftercorr:101"),
    ]


def test_a_child_before_its_parent_is_refused() -> None:
    with pytest.raises(PlanError, match="tune/b comes before its input tune/a"):
        grouped(to_submit("b", ["a"]), to_submit("a"))


def test_nothing_needs_no_array() -> None:
    assert grouped() == []


# ---------------------------------------------------------------------- any graph

QUEUED = [Element(array, index) for array in (12, 13) for index in range(3)]


ROWS = st.tuples(
    st.sets(st.integers(1, 6), max_size=3),  # parents: how many places before
    st.sets(st.integers(0, len(QUEUED) - 1), max_size=2),
    st.booleans(),
)


def graph(rows: Sequence[tuple[set[int], set[int], bool]]) -> list[ToSubmit]:
    """Stages that each wait for some of those before and some that are queued."""
    return [
        to_submit(
            f"s{number}",
            [f"s{number - back}" for back in after if back <= number],
            shape="gpu" if has_gpu else "cpu",
            queued=[QUEUED[i] for i in queued],
        )
        for number, (after, queued, has_gpu) in enumerate(rows)
    ]


def waited_for(array: PlannedArray, index: int, arrays: Sequence[PlannedArray]) -> set[object]:
    """What Slurm makes one element wait for: stages to be submitted, and queued elements."""
    found = {*array.afterok, *(Element(other, index) for other in array.aftercorr)}
    return {
        arrays[element.array.number].elements[element.index]
        if isinstance(element.array, PlannedNumber)
        else element
        for element in found
    }


@settings(deadline=None)
@given(st.lists(ROWS, max_size=14).map(graph), st.integers(1, 5))
def test_every_stage_of_any_graph_waits_for_exactly_its_own_parents(
    stages: list[ToSubmit], most: int
) -> None:
    arrays = grouped(*stages, most=most)
    by_ref = {stage.ref: stage for stage in stages}

    assert sorted(ref for array in arrays for ref in array.elements.values()) == sorted(by_ref)
    for number, array in enumerate(arrays):
        assert array.number == number
        dependency(array, dict.fromkeys(range(number), 1))  # all that it names come before it
        assert len(array.elements) <= max(most, 3)  # queued arrays have three elements
        for index, stage in array.elements.items():
            assert by_ref[stage].shape == array.shape
            assert waited_for(array, index, arrays) == by_ref[stage].parents | by_ref[stage].queued
