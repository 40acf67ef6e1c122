"""One thing that was looked at."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from typing import Any


class State(enum.StrEnum):
    well = "well"
    note = "note"
    """Works, and one should know."""
    broken = "broken"
    """Missing, or not what it must be; something will not run."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found, in a few words."""

    name: str
    value: str
    state: State = State.well
    way_out: str = ""
    """What to do about it, or what it means."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The same as numbers, for programs."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "state": str(self.state)}


def any_broken(findings: list[Finding]) -> bool:
    return any(finding.state is State.broken for finding in findings)
