"""Amounts shown in cents that still add up: by row, by column, by group of rows, and in all.

Rounding each amount of a table by itself leaves its sums off by some cents; largest remainder
mends one column, and breaks the rows. Here the table is a network: whole -> group -> row ->
column of the group -> column -> whole, with amounts as flows. A flow whose bounds are whole can
be made whole everywhere at once (Ford and Fulkerson, Flows in Networks, 1962, theorem 2.3), and
then every amount and every sum is one of its two neighbours in cents.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    group: Hashable
    amounts: Mapping[str, int]
    """Column -> amount, in the smallest unit."""


@dataclass
class _Edge:
    tail: Hashable
    head: Hashable
    flow: int


def rounded(rows: Sequence[Row], *, unit: int) -> list[dict[str, int]]:
    """The amounts of each row in whole units.

    Each of them, and each sum of a row, of a column, of a column within a group, of a group and
    of all rows is less than one unit from the exact one; what is whole already stays. The sum of
    all is the nearest whole one, and those of groups and columns where that goes together.
    """
    entries: list[dict[str, _Edge]] = []
    sums: list[dict[tuple[Hashable, Hashable], int]] = [{} for _ in range(5)]
    for i, row in enumerate(rows):
        group, entry = ("group", row.group), ("row", i)
        edges = {}
        for column, amount in row.amounts.items():
            part = ("part", row.group, column)
            edges[column] = _Edge(entry, part, amount)
            ends: list[tuple[Hashable, Hashable]] = [
                ("end", "whole"),
                ("whole", group),
                (("column", column), "end"),
                (part, ("column", column)),
                (group, entry),
            ]
            for level, end in zip(sums, ends, strict=True):
                level[end] = level.get(end, 0) + amount
        entries.append(edges)
    levels = [[_Edge(*end, amount) for end, amount in level.items()] for level in sums]
    *totals, of_rows = levels
    _make_whole(
        [edge for level in totals for edge in level],
        [*of_rows, *(edge for edges in entries for edge in edges.values())],
        unit,
    )
    return [{column: edge.flow // unit for column, edge in edges.items()} for edges in entries]


def _make_whole(totals: Sequence[_Edge], details: Sequence[_Edge], unit: int) -> None:
    """Moves flow along cycles of broken edges until none is left; in each node as much comes as
    goes, before and after. What stands first gets its nearest whole amount, the rest may not."""
    edges = [*totals, *details]
    broken: _Broken = {}
    for i, edge in enumerate(edges):
        if edge.flow % unit:
            broken.setdefault(edge.tail, {})[i] = edge
            broken.setdefault(edge.head, {})[i] = edge
    for i, edge in enumerate(edges):
        while edge.flow % unit:
            if i < len(totals):
                cycle = _cycle_of(broken, i, edge)
                _push(cycle, unit, up=2 * (edge.flow % unit) >= unit)
            else:
                cycle = _cycle_near(broken, i, edge)
                _push(cycle, unit, up=2 * (cycle[0][1].flow % unit) >= unit)
            for j, one, _ in cycle:
                if one.flow % unit == 0:
                    del broken[one.tail][j], broken[one.head][j]


_Broken = dict[Hashable, dict[int, _Edge]]
"""Node -> its edges that do not carry a whole amount, by number."""

Step = tuple[int, _Edge, int]
"""Number of an edge, the edge, and 1 where it is walked from tail to head, else -1."""


def _cycle_of(broken: _Broken, first: int, edge: _Edge) -> list[Step]:
    """Broken edges in a circle, with this one the first, walked forward.

    There is one: where nothing leads back, the edge alone would join two parts of the network, and
    carry what all whole edges do not.
    """
    path: list[Step] = [(first, edge, 1)]
    seen = {edge.head}
    ways = [(edge.head, iter(broken[edge.head].items()))]
    while ways:
        node, onward = ways[-1]
        for number, following in onward:
            forward = following.tail == node
            reached = following.head if forward else following.tail
            if number == first or reached in seen:
                continue
            path.append((number, following, 1 if forward else -1))
            if reached == edge.tail:
                return path
            seen.add(reached)
            ways.append((reached, iter(broken[reached].items())))
            break
        else:
            ways.pop()
            path.pop()
    raise AssertionError("what comes to a node does not leave it")


def _cycle_near(broken: _Broken, first: int, edge: _Edge) -> list[Step]:
    """The first circle that a walk from an edge comes to, which may leave the edge out; found in a
    few steps, where the other may search the whole network.

    The walk goes on: a node with one broken edge has another, or what comes would not be whole.
    """
    path: list[Step] = [(first, edge, 1)]
    seen = {edge.tail: 0}
    node = edge.head
    while node not in seen:
        seen[node] = len(path)
        last = path[-1][0]
        number, following = next(item for item in broken[node].items() if item[0] != last)
        forward = following.tail == node
        path.append((number, following, 1 if forward else -1))
        node = following.head if forward else following.tail
    return path[seen[node] :]


def _push(cycle: Sequence[Step], unit: int, *, up: bool) -> None:
    """Moves the first edge up, or down, by the most that takes none past its neighbours."""
    sign = 1 if up else -1
    sign *= cycle[0][2]
    amount = min((-sign * way * edge.flow) % unit for _, edge, way in cycle)
    for _, edge, way in cycle:
        edge.flow += sign * way * amount
