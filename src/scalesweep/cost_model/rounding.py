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
    of all rows is less than one unit from the exact one; what is whole already stays.
    """
    entries: list[dict[str, _Edge]] = []
    edges: list[_Edge] = []
    sums: dict[tuple[Hashable, Hashable], int] = {}

    def add(tail: Hashable, head: Hashable, amount: int) -> None:
        sums[tail, head] = sums.get((tail, head), 0) + amount

    for i, row in enumerate(rows):
        entry = {}
        for column, amount in row.amounts.items():
            entry[column] = _Edge(("row", i), ("part", row.group, column), amount)
            add(("group", row.group), ("row", i), amount)
            add(("part", row.group, column), ("column", column), amount)
            add("whole", ("group", row.group), amount)
            add(("column", column), "end", amount)
            add("end", "whole", amount)
        entries.append(entry)
        edges += entry.values()
    edges += [_Edge(tail, head, amount) for (tail, head), amount in sums.items()]
    _make_whole(edges, unit)
    return [{column: edge.flow // unit for column, edge in entry.items()} for entry in entries]


def _make_whole(edges: Sequence[_Edge], unit: int) -> None:
    """Moves flow along cycles of broken edges until none is left; in each node as much comes as
    goes, before and after."""
    broken: dict[Hashable, dict[int, _Edge]] = {}
    for i, edge in enumerate(edges):
        if edge.flow % unit:
            broken.setdefault(edge.tail, {})[i] = edge
            broken.setdefault(edge.head, {})[i] = edge
    for i, edge in enumerate(edges):
        while edge.flow % unit:
            cycle = _cycle(broken, i, edge)
            _push(cycle, unit)
            for j, one, _ in cycle:
                if one.flow % unit == 0:
                    del broken[one.tail][j], broken[one.head][j]


Step = tuple[int, _Edge, int]
"""Number of an edge, the edge, and 1 where it is walked from tail to head, else -1."""


def _cycle(broken: Mapping[Hashable, Mapping[int, _Edge]], first: int, edge: _Edge) -> list[Step]:
    """Broken edges in a circle. A node with one has another, or what comes would not be whole."""
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


def _push(cycle: Sequence[Step], unit: int) -> None:
    """The least that makes an edge of the cycle whole, and takes none past a neighbour."""
    up = min((-way * edge.flow) % unit for _, edge, way in cycle)
    down = min((way * edge.flow) % unit for _, edge, way in cycle)
    amount = up if up <= down else -down
    for _, edge, way in cycle:
        edge.flow += way * amount
