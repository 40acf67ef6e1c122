"""The doctor's findings for people, in 80 columns, and for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from scalesweep.doctor.files import File, Group, Presence
from scalesweep.doctor.findings import Finding, State
from scalesweep.records import SCHEMA

WIDTH = 80
_NAME = 20
_MARKS = {State.well: " ", State.note: "!", State.broken: "X"}
_FILE_MARKS = {
    Presence.there: " ",
    Presence.made: " ",
    Presence.missing: "X",
    Presence.broken: "X",
}


def as_json(findings: Sequence[Finding], groups: Sequence[Group] | None) -> str:
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "machine": [finding.to_json() for finding in findings],
        "is_well": not any(finding.state is State.broken for finding in findings),
    }
    if groups is not None:
        found["files"] = [group.to_json() for group in groups]
        found["files_are_whole"] = all(group.is_whole for group in groups)
    return json.dumps(found, indent=2, allow_nan=False)


def machine_text(findings: Sequence[Finding]) -> str:
    return "\n".join(["This machine", *(line for f in findings for line in _finding(f))])


def _finding(finding: Finding) -> Iterator[str]:
    yield from _wrapped(
        finding.value, first=f"{_MARKS[finding.state]} {finding.name:<{_NAME}}", rest=_NAME + 2
    )
    if finding.way_out and finding.state is not State.well:
        yield from _wrapped(finding.way_out, first=" " * (_NAME + 2) + "-> ", rest=_NAME + 5)


def files_text(groups: Sequence[Group], *, study: str) -> str:
    """Data sets and weights of a plan; missing ones with the way to get them."""
    lines = [f"Files of {study}"]
    for group in groups:
        lines += _group(group)
    count = sum(1 for group in groups if not group.is_whole)
    lines.append("")
    lines.append(
        "all there" if not count else f"{count} of {len(groups)} are missing or broken (X)"
    )
    return "\n".join(lines)


def _group(group: Group) -> Iterator[str]:
    cells = f"{group.needed_by} cell{'' if group.needed_by == 1 else 's'}"
    yield ""
    yield from _wrapped(f"{group.name}: for {cells}", first="", rest=2)
    for file in group.files:
        yield from _file(file)
    if group.source:
        yield from _wrapped(f"from {group.source}", first="    ", rest=6)
    yield from _wrapped(f"licence: {group.licence or 'not stated here'}", first="    ", rest=6)
    if group.way_to_get and not group.is_whole:
        yield from _wrapped(group.way_to_get, first="    -> ", rest=7)


def _file(file: File) -> Iterator[str]:
    if file.presence is Presence.made:
        return
    facts = [file.said] if file.said and file.presence is not Presence.there else ["there"]
    if file.size is not None:
        facts.append(_size(file.size))
    if file.items is not None:
        facts.append(f"{file.items:,} {'files' if file.is_folder else 'items'}")
    if file.found:
        facts.append(f"sha256 {file.found[7:19]}{_declared(file)}")
    elif file.declared:
        facts.append(f"declared sha256 {file.declared[7:19]}")
    if file.said and file.presence is Presence.there:
        facts.append(file.said)
    yield from _wrapped(file.path or "no folder", first=f"{_FILE_MARKS[file.presence]}   ", rest=6)
    yield from _wrapped(", ".join(facts), first="      ", rest=6)


def _declared(file: File) -> str:
    if not file.declared:
        return " (not declared)"
    return " as declared" if file.found == file.declared else f", declared {file.declared[7:19]}"


def _size(num_bytes: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes} bytes"


def _wrapped(text: str, *, first: str, rest: int) -> list[str]:
    """Broken at spaces where it can be; a path longer than a line is broken anywhere."""
    return textwrap.wrap(
        text,
        width=WIDTH,
        initial_indent=first,
        subsequent_indent=" " * rest,
        break_on_hyphens=False,
    ) or [first.rstrip()]
