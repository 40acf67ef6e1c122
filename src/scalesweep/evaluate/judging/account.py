"""What judging cost an attempt: judging.json beside its output/, which does not depend on it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.records import SCHEMA
from scalesweep.rundir import ABSENT, read_json, write_json

NAME = "judging.json"


@dataclass(frozen=True)
class JudgingFile:
    """{"schema", "benchmarks": {name: account}, "usd", "unsure_usd", "estimate_usd"}.

    The sums are None where one of the models has no price.
    """

    attempt: Path

    def write(self, benchmark: str, account: Mapping[str, Any]) -> None:
        """Put in, or put anew, the account of one benchmark."""
        accounts = {**self.read(), benchmark: dict(account)}
        metered = [one["metered"] for one in accounts.values()]
        write_json(
            self.attempt / NAME,
            {
                "schema": SCHEMA,
                "usd": _sum(one["usd"] for one in metered),
                "unsure_usd": _sum(one["unsure_usd"] for one in metered),
                "estimate_usd": _sum(one["estimate"]["usd"] for one in accounts.values()),
                "benchmarks": accounts,
            },
        )

    def read(self) -> dict[str, dict[str, Any]]:
        """Benchmark -> account; empty where nothing was asked yet."""
        with contextlib.suppress(*ABSENT, StoreError, KeyError):
            found: dict[str, dict[str, Any]] = read_json(self.attempt / NAME)["benchmarks"]
            return found
        return {}

    def most_usd(self) -> float:
        """That was paid at most, as far as prices are known."""
        return sum(
            (account["metered"]["usd"] or 0.0) + (account["metered"]["unsure_usd"] or 0.0)
            for account in self.read().values()
        )


def _sum(values: Any) -> float | None:
    known = list(values)
    return None if any(value is None for value in known) else sum(known)
