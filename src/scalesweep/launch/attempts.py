"""One attempt of a stage, watched from claim to close: the only place that says how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scalesweep.errors import ScaleSweepError
from scalesweep.launch.accounts import rank_errors, with_work
from scalesweep.launch.failures import Failure
from scalesweep.launch.publish import publish
from scalesweep.launch.rank import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    RankTask,
)
from scalesweep.launch.workers import Workers, free_port
from scalesweep.plan.graph import PlannedStage
from scalesweep.records import Done, Outcome, Usage
from scalesweep.rundir import AttemptDir, Store, write_json

SERVER_DIED = 255
"""Exit status that multiprocessing gives a process of which it cannot know any."""

FOLLOW_S = 0.5
"""After a rank's bad end the others may end by themselves and say why; then they are killed."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How an attempt ended."""

    outcome: Outcome
    cause: str = ""
    usage: Usage


class RunningAttempt:
    """A claimed attempt whose ranks run."""

    def __init__(
        self,
        store: Store,
        stage: PlannedStage,
        attempt: AttemptDir,
        *,
        workers: Workers,
        parents: Mapping[str, Done],
        runner: str | None,
    ) -> None:
        self.stage, self.attempt = stage, attempt
        self._store = store
        self._started_at, self._started = time.time(), time.monotonic()
        self._input_digests = {role: done.digest for role, done in parents.items()}
        inputs = {
            role: store.stage(ref).attempt(parents[role].attempt).output
            for role, ref in stage.spec.inputs.items()
        }
        world_size = stage.execution.world_size
        self._killed_ranks: dict[int, str] = {}
        """Ranks that we killed, and why."""
        self._fell_at: float | None = None
        self._unstarted = ""
        self._over_budget = ""
        """Why it was stopped, where that was for the budget."""
        self.processes: Sequence[Any] = ()
        try:
            port = free_port()
            self.processes = workers.start(
                [
                    RankTask(
                        store=store.root,
                        ref=stage.spec.ref,
                        attempt=attempt.number,
                        inputs=inputs,
                        rank=rank,
                        world_size=world_size,
                        port=port,
                        started_at=self._started_at,
                        started_monotonic=self._started,
                        runner=runner,
                    )
                    for rank in range(world_size)
                ]
            )
        except (OSError, EOFError) as error:
            self._unstarted = f"its processes could not be started ({error or 'the server died'})"

    @property
    def num_devices(self) -> int:
        return self.stage.execution.world_size

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def spent(self) -> Usage:
        """What it cost so far."""
        execution = self.stage.execution
        return Usage(
            outcome=Outcome.running,
            started_at=self._started_at,
            wall_s=round(self.wall_s, 3),
            num_devices=execution.num_held_devices,
            node_devices=execution.node_devices,
            usd_per_node_hour=execution.usd_per_node_hour,
        )

    def stop_for_budget(self, why: str) -> None:
        """Ask all ranks to checkpoint and stop; the attempt is closed as stopped for the budget."""
        self._over_budget = why
        self.terminate()

    def terminate(self) -> None:
        """Ask all ranks to checkpoint and stop."""
        for _, process in self._living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    def kill(self, why: str) -> None:
        """Kill the ranks that live; why: one line for people."""
        for rank, process in self._living():
            self._killed_ranks.setdefault(rank, why)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def _living(self) -> list[tuple[int, Any]]:
        return [
            (r, process) for r, process in enumerate(self.processes) if process.exitcode is None
        ]

    def poll(self) -> End | None:
        """How it ended, and closes it; None while it runs. Ranks of a stage die together."""
        codes = [process.exitcode for process in self.processes]
        if any(code is None for code in codes):
            if any(code not in (None, EXIT_DONE, EXIT_INTERRUPTED) for code in codes):
                self._fell_at = self._fell_at or time.monotonic()
                if time.monotonic() - self._fell_at > FOLLOW_S:
                    self.kill("another rank of the stage ended")
            return None
        for process in self.processes:
            process.join()
        return self._close(codes)

    def _close(self, codes: Sequence[int]) -> End:
        outcome, cause = self._judged(codes)
        if outcome is Outcome.done:
            try:
                publish(
                    self._store.stage(self.stage.spec.ref),
                    self.attempt,
                    inputs=self._input_digests,
                )
            except (ScaleSweepError, OSError) as error:
                outcome, cause = Outcome.failed, str(error)
        failure = ""
        if self._over_budget and outcome in (Outcome.interrupted, Outcome.killed):
            cause, failure = self._over_budget, Failure.budget
        usage = replace(
            with_work(self.spent, self.attempt, self.stage.execution.world_size),
            outcome=outcome,
            cause=cause,
            failure=str(failure),
        )
        write_json(self.attempt.usage_file, usage.to_json())
        return End(outcome=outcome, cause=cause, usage=usage)

    def _judged(self, codes: Sequence[int]) -> tuple[Outcome, str]:
        if self._unstarted:
            return Outcome.killed, self._unstarted
        if all(code == EXIT_DONE for code in codes):
            return Outcome.done, ""
        errors = rank_errors(self.attempt, len(codes))
        expected = [error for error in errors if error.get("expected")]
        if expected:
            return Outcome.failed, str(expected[0]["message"])
        # A rank whose neighbour was killed fails too; the kill is the cause, and worth a retry.
        killed = [
            code for rank, code in enumerate(codes) if code < 0 and rank not in self._killed_ranks
        ]
        if killed:
            return Outcome.killed, _killed_by(-killed[0])
        if errors:
            return Outcome.failed, str(errors[0]["message"])
        if all(code in (EXIT_DONE, EXIT_INTERRUPTED) for code in codes):
            return Outcome.interrupted, "asked to stop; the same line continues it"
        if SERVER_DIED in codes:
            return Outcome.killed, "the server of its process was killed"
        if all(code in (EXIT_DONE, EXIT_INTERRUPTED) or code < 0 for code in codes):
            return Outcome.killed, next(iter(self._killed_ranks.values()))
        return Outcome.killed, f"ended with status {list(codes)} and said nothing; see its log"


def _killed_by(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    if number == signal.SIGKILL:
        return "killed by SIGKILL (by hand, or the system ran out of memory)"
    return f"killed by {name}"
