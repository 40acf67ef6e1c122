"""Another price than the one that counted when a study ran. Pure: attempts record node-time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scalesweep.errors import ConfigError
from scalesweep.records import Execution, Usage
from scalesweep.report.stage_results import Attempt, StageResult, cost_of

NAMES = ("cloud", "own")
"""Of the prices that a cluster may have (cluster.prices)."""
FREE = "free"


@dataclass(frozen=True, kw_only=True)
class Pricing:
    """What a report takes a node-hour to cost, whatever it was charged at."""

    asked: str
    """As it was typed."""
    usd_per_node_hour: float | None
    """None: each cluster's own price of that name."""

    @property
    def is_example_kept(self) -> bool:
        """Whether an example price may still be one."""
        return self.asked == "cloud"

    def price(self, execution: Mapping[str, Any], *, planned: Execution) -> float:
        """Of an attempt's node-hour.

        execution: the attempt's, as it recorded it.
        planned: the stage's; read where the attempt was on the same cluster and names no prices.

        Raises:
            ConfigError: no price of that name is on record.
        """
        if self.usd_per_node_hour is not None:
            return self.usd_per_node_hour
        cluster = execution.get("cluster", planned.cluster)
        known = execution.get("prices") or (planned.prices if cluster == planned.cluster else None)
        value = (known or {}).get(self.asked)
        if value is None:
            raise ConfigError(
                f"--price={self.asked}: attempts on cluster {cluster} have no price of that name "
                f"on record (cluster.prices.{self.asked} when they ran); give dollars per "
                "node-hour, --price=NUMBER"
            )
        return float(value)

    def stage(self, stage: StageResult, *, planned: Execution) -> StageResult:
        """A stage with all its attempts, and jobs' runs without one, at this price. Errors: see
        price."""
        attempts = tuple(self._attempt(attempt, planned=planned) for attempt in stage.attempts)
        account = stage.account
        if account is not None:
            idle = tuple(
                dataclasses.replace(
                    run, usage=self._usage(run.usage, run.execution.to_json(), planned=planned)
                )
                for run in account.idle
            )
            account = dataclasses.replace(account, idle=idle)
        return dataclasses.replace(
            stage, attempts=attempts, account=account, cost=cost_of(attempts, account)
        )

    def _attempt(self, attempt: Attempt, *, planned: Execution) -> Attempt:
        usages = {"usage": attempt.usage, "charged": attempt.charged}
        changed = {
            name: self._usage(usage, attempt.execution, planned=planned)
            for name, usage in usages.items()
            if usage is not None
        }
        return dataclasses.replace(attempt, **changed)  # type: ignore[arg-type]

    def _usage(self, usage: Usage, execution: Mapping[str, Any], *, planned: Execution) -> Usage:
        price = self.price(execution, planned=planned)
        return dataclasses.replace(usage, usd_per_node_hour=price)


def parsed_pricing(text: str) -> Pricing:
    """Of `--price`: own, cloud, free, or dollars per node-hour.

    Raises:
        ConfigError: neither a name nor a number above zero.
    """
    if text in NAMES:
        return Pricing(asked=text, usd_per_node_hour=None)
    if text == FREE:
        return Pricing(asked=text, usd_per_node_hour=0.0)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if value == 0:
        raise ConfigError(
            f"--price={text}: zero would make every cost zero; say --price={FREE} if it is meant"
        )
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(
            f"--price={text}: takes {', '.join(NAMES)}, {FREE}, or dollars per node-hour above 0"
        )
    return Pricing(asked=text, usd_per_node_hour=value)
