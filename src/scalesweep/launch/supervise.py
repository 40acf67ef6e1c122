"""The program of a batch script: runs one stage to its end, whatever happens meanwhile.

    python -m scalesweep.launch.supervise <store>/jobs/<name>

It starts the ranks with srun, sees how they end, tries again here or puts its own job back into the
queue, and exits with an error only when it gives up, which cancels what waits for the stage. So a
study needs no living shell. The stage is the one that the submission's record names for this array
index; everything else it needs is in the store.

Slurm has no more than three ways to tell of trouble. USR2 comes to this process alone, some time
before the time limit: the ranks are told and the job is requeued. Before a preemption with a grace
period TERM comes to the ranks alone, which stop at a checkpoint: seen from here they end without
being asked. TERM comes to this process when Slurm ends the job now. Besides, ranks know when the
time limit ends the job, and stop by themselves where a save needs longer than the signal leaves.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TypeVar

from scalesweep.errors import ScaleSweepError, StageError, StoreError
from scalesweep.launch import leases, slurm
from scalesweep.launch.accounts import rank_errors, with_work
from scalesweep.launch.budget_guard import LOOK_S as BUDGET_LOOK_S
from scalesweep.launch.budget_guard import Guard, Running
from scalesweep.launch.failures import (
    REMEDIES,
    Evidence,
    Failure,
    Remedy,
    Try,
    classify,
    counted_tries,
    is_storage_error,
    smaller_micro_batch,
    smaller_of,
)
from scalesweep.launch.jobs import JobDir, StageJob, StageJobs, Submission
from scalesweep.launch.publish import publish, set_aside, verdict
from scalesweep.launch.rank import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_OVERTAKEN,
    USAGE_INTERVAL_S,
    RankTask,
    done_file,
)
from scalesweep.launch.slurm_rank import write_task
from scalesweep.launch.srun import Step
from scalesweep.plan.spending import held
from scalesweep.records import Done, Execution, Outcome, SlurmRun, StageSpec, Usage
from scalesweep.rundir import AttemptDir, StageDir, Store, write_atomic, write_json
from scalesweep.tracking import metric_names as names
from scalesweep.tracking.metric_rows import last_row

EXIT_OK, EXIT_GAVE_UP = 0, 1
TICK_S = 0.2
LOOK_S = 2.0
"""Between two looks at files: whether the job was cancelled or the attempt overtaken."""
HELD_POLL_S = 5.0
HELD_LIMIT_S = 1800.0
"""How long a job waits with its nodes for another process that is at its stage."""
STORAGE_POLL_S = 5.0
CONTROLLER_WAIT_S = 1800.0
"""How long a controller may be away when a job must be requeued."""
KILLED_AFTER_REQUEUE_S = 180.0
LOG_TAIL_BYTES = 8192
LAST_WORDS_S = 1.5
"""After TERM: for ranks to end at a checkpoint, before the attempt is closed in any case."""
KILLED_CODE = 128 + signal.SIGKILL
"""What srun should have said of ranks that vanished, where it says 0."""
START_LIMIT_S = 900.0
"""For the first sign of life of a rank: imports from a slow shared file system."""
RUNNER_VARIABLE = "SCALESWEEP_RUNNER"
"""Module with run(context) that takes the place of every kind's own (tests)."""

T = TypeVar("T")


@dataclass
class _Signals:
    """What Slurm told this process."""

    time_limit: bool = False
    ending: bool = False
    """TERM: the job is being ended, whoever wanted it."""

    def install(self) -> None:
        signal.signal(signal.SIGUSR2, self._warned)
        signal.signal(signal.SIGTERM, self._ended)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _warned(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.time_limit = True

    def _ended(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.ending = True


class Pulse:
    """Whether the ranks of an attempt go on writing their accounts, as they do every two seconds.

    Files are compared with what they were at the last look, never with a clock of another machine.
    """

    def __init__(self, attempt: AttemptDir, *, limit_s: float) -> None:
        self._attempt, self._limit_s = attempt, limit_s
        self._seen: object = None
        self._looked = time.monotonic()
        self._quiet_s = 0.0

    def is_gone(self) -> bool:
        """True when nothing was written for longer than is allowed; then it begins to wait anew."""
        marks, now = self._marks(), time.monotonic()
        # A look that took long (a file system that stood still) counts as one look.
        self._quiet_s += min(now - self._looked, 2 * LOOK_S)
        self._looked = now
        if marks != self._seen:
            self._seen, self._quiet_s = marks, 0.0
        begun = self._attempt.log.exists()  # the first thing that ranks make
        limit = self._limit_s if begun else max(START_LIMIT_S, self._limit_s)
        if self._quiet_s <= limit:
            return False
        self._quiet_s = 0.0
        return True

    def _marks(self) -> object:
        marks = []
        for name in ("log", "usage.json", "metrics.jsonl"):
            with contextlib.suppress(OSError):
                stat = (self._attempt.path / name).stat()
                marks.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return tuple(marks)


@dataclass(kw_only=True)
class Supervisor:
    """One run of one element of a job array."""

    folder: JobDir
    store: Store
    submission: Submission
    run_of_job: SlurmRun
    stage: StageDir
    spec: StageSpec
    job: StageJob
    begun_at: float
    """Seconds since 1970 when Slurm started the batch script."""
    signals: _Signals = field(default_factory=_Signals)
    runner: str | None = None
    ends_at: float | None = None
    """Seconds since 1970 when the time limit ends this run, where Slurm tells (since 22.05)."""
    _waiting_since: float = field(default_factory=time.monotonic)
    _guard: Guard = field(init=False)
    _next_budget_look: float = 0.0
    _why_stopped: str = ""

    def __post_init__(self) -> None:
        self._guard = Guard(
            store=self.store,
            study=self.submission.study,
            tick_s=BUDGET_LOOK_S,
            account_age_s=USAGE_INTERVAL_S,
        )

    def run(self) -> int:
        """Until the stage is done, the job is requeued, or there is no sense in going on."""
        while True:
            try:
                status = self._turn()
            except OSError as error:
                if not is_storage_error(error):
                    raise
                status = None if self._wait_for_storage(str(error)) else EXIT_GAVE_UP
            if status is not None:
                return status

    # ------------------------------------------------------------------ one attempt

    def _turn(self) -> int | None:
        """One look at the stage and at most one attempt; the exit status, or None to go on."""
        if self.signals.ending:
            return EXIT_GAVE_UP
        if self._is_cancelled():
            say("cancelled")
            return EXIT_GAVE_UP
        if self._is_an_orphan():
            say("Slurm runs this job again already; this run ends")
            return EXIT_GAVE_UP
        newest = leases.newest_number(self.stage)
        holder = leases.holder(self.stage)
        parents = self._parents()
        if self.signals.ending:
            return EXIT_GAVE_UP
        problem = ""
        if parents is not None:
            digests = {role: done.digest for role, done in parents.items()}
            seen = verdict(self.store, self.spec, parents=digests)
            if seen.done is not None:
                say(f"{self.spec.label} is done")
                return EXIT_OK
            problem = seen.problem
        if holder is not None and holder != leases.this_process():
            return self._wait_for(holder)
        if self._is_left_out():
            return EXIT_GAVE_UP
        attempt = leases.claim(self.stage, self._execution(), after=newest)
        if attempt is None:  # somebody was faster; look again
            return None
        if problem:
            say(f"run again: {problem}")
            set_aside(self.stage)
        with contextlib.suppress(OSError):  # the attempt is claimed, and is gone on with
            self._guard.look_at(self.spec.ref, counted=newest)
        if parents is None:
            missing = ", ".join(sorted(self._missing()))
            cause = f"its input is not done: {missing}; type the study's line again"
            return self._failed(attempt, Failure.data, cause)
        return self._attempt(attempt, parents)

    def _wait_for(self, holder: leases.Owner) -> int | None:
        """Somebody else is at the stage; for a while it may be worth to hold the nodes."""
        if self.signals.time_limit:
            return self._requeue()
        if time.monotonic() - self._waiting_since > HELD_LIMIT_S:
            say(
                f"held nodes for {HELD_LIMIT_S / 60:.0f} min; if that process is dead, delete "
                f"{self.stage.attempts()[-1].lease}"
            )
            return self._requeue()
        say(f"{self.spec.label}: process {holder.pid} on {holder.host} is at it; waiting")
        self._sleep(HELD_POLL_S)
        return None

    def _is_left_out(self) -> bool:
        """Whether the budget forbids to begin; what waits for the stage is cancelled by Slurm."""
        try:
            why = self._guard.refuses(self.spec.ref, self.job.execution, self._guard.look())
        except StoreError as error:
            say(f"the budget cannot be read: {error}")
            return False
        if why:
            say(f"{self.spec.label} is not begun: {why}")
            file = self.folder.left_out(self.run_of_job.array_index)
            self._stored(lambda: write_atomic(file, f"{why}\n"))
        return bool(why)

    def _overruns(self, attempt: AttemptDir, execution: Execution) -> Running | None:
        """The attempt that runs, if its next interval would be more than the budget holds.

        Looks when it is time to; never fails, since what cannot be read now may be read later.
        """
        if time.monotonic() < self._next_budget_look and not self._guard.has_changed():
            return None
        one = Running(
            ref=self.spec.ref,
            attempt=attempt,
            execution=execution,
            cost=held(self._spent(execution)),
        )
        wait_s, overruns = BUDGET_LOOK_S, False
        try:
            spent = self._guard.look([one])
            overruns, wait_s = self._guard.must_stop(one, spent), self._guard.next_look_s(spent)
        except (OSError, StoreError, KeyError, TypeError, ValueError) as error:
            say(f"the budget cannot be read: {error}")
        self._next_budget_look = time.monotonic() + wait_s
        return one if overruns else None

    def _overtaken(self) -> int | None:
        """A later attempt has begun: it may be done before what waits for this job must know."""
        say("a later attempt has begun elsewhere")
        self._waiting_since = time.monotonic()
        return None

    def _is_an_orphan(self) -> bool:
        """Slurm runs this job again already: it lost sight of this run, which must do nothing."""
        attempts = self.stage.attempts()
        owner = leases.read_owner(attempts[-1].lease) if attempts else None
        run = owner.slurm if owner is not None else None
        return (
            run is not None
            and (run.cluster, run.job_id) == (self.run_of_job.cluster, self.run_of_job.job_id)
            and run.restarts > self.run_of_job.restarts
        )

    def _attempt(self, attempt: AttemptDir, parents: Mapping[str, Done]) -> int | None:
        execution = attempt.execution()
        assert execution is not None
        say(f"{self.spec.label}: attempt {attempt.number} (run {self.run_of_job.restarts})")
        self._write_usage(attempt, self._spent(execution))
        task = RankTask(
            store=self.store.root,
            ref=self.spec.ref,
            attempt=attempt.number,
            inputs={
                role: self.store.stage(ref).attempt(parents[role].attempt).output
                for role, ref in self.spec.inputs.items()
            },
            rank=0,
            world_size=execution.world_size,
            port=0,
            started_at=self.begun_at,
            started_monotonic=0.0,
            runner=self.runner,
            ends_at=self.ends_at,
        )
        try:
            step = Step(write_task(attempt, task), execution)
        except FileNotFoundError as error:
            return self._failed(attempt, Failure.settings, f"srun is not on PATH here ({error})")
        asked = self._watch(step, attempt)
        if attempt.following().path.exists():
            return self._overtaken()
        return self._judge(attempt, step, parents, asked=asked)

    def _watch(self, step: Step, attempt: AttemptDir) -> Failure | None:
        """Wait for the ranks; what they were asked to stop for, if they were."""
        asked: Failure | None = None
        looked = time.monotonic()
        pulse = Pulse(attempt, limit_s=self.submission.silent_s)
        ending_since: float | None = None
        kill_at = math.inf
        execution = attempt.execution()
        assert execution is not None
        while step.poll() is None:
            time.sleep(TICK_S)
            if self.signals.ending:
                ending_since = ending_since or time.monotonic()
                if time.monotonic() - ending_since > LAST_WORDS_S:
                    break  # Slurm kills us any moment: what is certain must be written before
                continue
            warned = asked is None and self.signals.time_limit
            if time.monotonic() - looked < LOOK_S and not warned:
                continue
            looked = time.monotonic()
            if asked is None and (warned or self._is_cancelled()):
                cancelled = self._is_cancelled()
                asked = Failure.cancelled if cancelled else Failure.time_limit
                say(f"{asked}: ranks are told to stop at a checkpoint")
                step.ask_to_stop()
            if asked is None and (one := self._overruns(attempt, execution)) is not None:
                asked = Failure.budget
                self._why_stopped = self._guard.cause(one)
                say(f"{self._why_stopped}; ranks are told")
                step.ask_to_stop()
                kill_at = time.monotonic() + self._guard.patience_s(one)
                if not self._guard.has_begun(one):
                    kill_at = time.monotonic()
            if time.monotonic() >= kill_at:
                say("they are killed: they did not stop, or had done nothing that could be kept")
                kill_at = math.inf
                step.end()
            if attempt.following().path.exists():
                step.kill()
            elif pulse.is_gone() and self._storage_works():
                # A step whose slurmstepd was killed: its ranks are dead, srun waits for ever.
                say(f"no sign of life from the ranks for {self.submission.silent_s} s: killed")
                asked = Failure.node_failure
                step.end()
        return asked

    def _judge(
        self,
        attempt: AttemptDir,
        step: Step,
        parents: Mapping[str, Done],
        *,
        asked: Failure | None,
    ) -> int | None:
        """Close the attempt by how its ranks ended, and say what follows."""
        if step.poll() is None:
            return self._ended_by_slurm(attempt)
        code = step.exit_code
        execution = attempt.execution()
        assert execution is not None
        if code == EXIT_DONE and all(
            done_file(attempt, rank).exists() for rank in range(execution.world_size)
        ):
            return self._publish(attempt, parents)
        if code == EXIT_OVERTAKEN:
            return self._overtaken()
        if self.signals.ending:
            return self._ended_by_slurm(attempt)
        errors = rank_errors(attempt, execution.world_size)
        if code == EXIT_INTERRUPTED and not errors and asked is None:
            # Nobody asked them here: they saw the end of the job's time themselves, or they alone
            # were told, which Slurm does before a preemption.
            near = attempt.time_limit_file.exists()
            asked = Failure.time_limit if near else Failure.preempted
        failure = classify(
            Evidence(
                errors=errors,
                exit_code=code or KILLED_CODE,
                said=step.said,
                log=_tail(attempt.log),
                asked=asked,
                storage_works=self._storage_works(),
            )
        )
        cause = CAUSES.get(failure, "") if failure not in TELLING else ""
        if failure is Failure.budget:
            cause = self._why_stopped
        cause = cause or _cause(errors, step)
        outcome = Outcome.interrupted if code == EXIT_INTERRUPTED else Outcome.killed
        if failure in FAILED:
            outcome = Outcome.failed
        say(f"{failure}: {cause}")
        self._close(attempt, outcome, cause, failure)
        return self._follow(attempt, failure, cause)

    def _follow(self, attempt: AttemptDir, failure: Failure, cause: str) -> int | None:
        """What a bad end is followed by."""
        remedy = REMEDIES[failure]
        if remedy in (Remedy.give_up, Remedy.stop):
            return self._give_up(attempt, failure, cause)
        if remedy is Remedy.smaller and self._execution() == attempt.execution():
            if failure is Failure.gpu_oom:
                return self._give_up(attempt, failure, f"{cause}; no smaller micro-batch is left")
            remedy = Remedy.again
        tries = counted_tries(self._tries())
        if tries >= self.submission.max_tries:
            return self._give_up(
                attempt, failure, f"{cause}; {tries} attempts in a row came no further"
            )
        if remedy is Remedy.wait:
            return None if self._wait_for_storage(cause) else EXIT_GAVE_UP
        if remedy is Remedy.elsewhere:
            return self._requeue()
        if failure is Failure.controller:
            with contextlib.suppress(slurm.SlurmError):
                slurm.persistently(
                    lambda: slurm.job_state(self.run_of_job.element), for_s=CONTROLLER_WAIT_S
                )
        return None

    def _failed(self, attempt: AttemptDir, failure: Failure, cause: str) -> int:
        self._close(attempt, Outcome.failed, cause, failure)
        return self._give_up(attempt, failure, cause)

    def _give_up(self, attempt: AttemptDir, failure: Failure, cause: str) -> int:
        """The attempt's last word; whoever waits for the stage is cancelled by Slurm."""
        say(f"gives up: {cause}")
        usage = attempt.usage()
        if usage is not None:
            outcome = usage.outcome if failure in WANTED else Outcome.failed
            self._write_usage(attempt, replace(usage, outcome=outcome, cause=cause))
        return EXIT_GAVE_UP

    def _publish(self, attempt: AttemptDir, parents: Mapping[str, Done]) -> int | None:
        digests = {role: done.digest for role, done in parents.items()}
        try:
            self._stored(lambda: publish(self.stage, attempt, inputs=digests))
        except StageError as error:
            if attempt.following().path.exists():
                return self._overtaken()
            return self._failed(attempt, Failure.unknown, str(error))
        self._close(attempt, Outcome.done, "", None)
        say(f"{self.spec.label}: done")
        return EXIT_OK

    # ------------------------------------------------------------------ the end of the job

    def _ended_by_slurm(self, attempt: AttemptDir) -> int:
        """TERM came: little time is left, so first what is certain, then what Slurm calls it."""
        self._close(attempt, Outcome.interrupted, "ended by Slurm", None)
        with contextlib.suppress(slurm.SlurmError, OSError):
            state, _ = slurm.job_state(self.run_of_job.element, timeout_s=3)
            say(f"Slurm calls this job {state}")
            failure = ENDED.get(state)
            if self._is_cancelled():
                failure = Failure.cancelled
            if failure is not None:
                usage = attempt.usage()
                assert usage is not None
                cause = CAUSES[failure]
                self._write_usage(attempt, replace(usage, cause=cause, failure=str(failure)))
        return EXIT_GAVE_UP

    def _requeue(self) -> int:
        """Back into the queue under the same id: what waits for this job goes on waiting."""
        if self.signals.ending:
            return EXIT_GAVE_UP

        def requeue() -> None:
            if self.signals.ending:
                return
            state, restarts = slurm.job_state(self.run_of_job.element)
            if state == "RUNNING" and restarts == self.run_of_job.restarts:
                slurm.requeue(self.run_of_job.element)
            else:
                say(f"Slurm calls this job {state} already")

        try:
            slurm.persistently(requeue, for_s=CONTROLLER_WAIT_S)
        except slurm.SlurmError as error:
            say(f"cannot be requeued: {error}")
            return EXIT_GAVE_UP
        say("requeued; this run waits to be ended")
        self._sleep(KILLED_AFTER_REQUEUE_S)
        return EXIT_GAVE_UP

    # ------------------------------------------------------------------ what is on disk

    def _parents(self) -> dict[str, Done] | None:
        """Role -> what the parent published; None when one has not, after a while of waiting."""
        end = time.monotonic() + self.submission.parents_wait_s
        while missing := self._missing():
            if time.monotonic() >= end or self.signals.ending:
                return None
            say(f"waits to see {', '.join(sorted(missing))}")
            self._sleep(2.0)
        found = {}
        for role, ref in self.spec.inputs.items():
            done = self.store.stage(ref).done()
            if done is None:
                return None
            found[role] = done
        return found

    def _missing(self) -> set[str]:
        return {
            str(ref)
            for ref in self.spec.inputs.values()
            if verdict(self.store, self.store.stage(ref).spec(), parents=None).done is None
        }

    def _execution(self) -> Execution:
        """As submitted, but with the micro-batch that earlier attempts left as possible."""
        # A job queued before submissions wrote down who pays says it all the same.
        execution = replace(self.job.execution, study=self.submission.study)
        for attempt in self.stage.attempts():
            usage, tried = _usage_of(attempt), attempt.execution()
            if usage is None or tried is None or tried.cluster != execution.cluster:
                continue
            if usage.failure in (Failure.gpu_oom, Failure.host_oom):
                smaller = smaller_micro_batch(tried, max_seq_len=self._max_seq_len())
                if smaller is not None:
                    execution = smaller_of(execution, smaller)
        return execution

    def _max_seq_len(self) -> int:
        return int(self.spec.identity.get("max_seq_len") or 1)

    def _tries(self) -> list[Try]:
        """Attempts since this submission took the stage over."""
        found = []
        for attempt in self.stage.attempts():
            owner = leases.read_owner(attempt.lease)
            ours = owner is not None and owner.slurm is not None
            if not ours or owner.slurm.name != self.submission.name:  # type: ignore[union-attr]
                continue
            usage = _usage_of(attempt)
            failure = Failure(usage.failure) if usage is not None and usage.failure else None
            progress = int(last_row(attempt.metrics).get(names.PROGRESS_DONE, 0))
            found.append(Try(failure=failure, progress=progress))
        return found

    def _spent(self, execution: Execution) -> Usage:
        return Usage(
            outcome=Outcome.running,
            started_at=round(self.begun_at, 3),
            wall_s=round(max(0.0, time.time() - self.begun_at), 3),
            num_devices=execution.num_held_devices,
            node_devices=execution.node_devices,
            usd_per_node_hour=execution.usd_per_node_hour,
        )

    def _close(
        self, attempt: AttemptDir, outcome: Outcome, cause: str, failure: Failure | None
    ) -> None:
        execution = attempt.execution()
        assert execution is not None
        usage = replace(
            with_work(self._spent(execution), attempt, execution.world_size),
            outcome=outcome,
            cause=cause,
            failure=str(failure or ""),
        )
        self._stored(lambda: write_json(attempt.usage_file, usage.to_json()))
        self.begun_at += usage.wall_s  # attempts in one run follow each other without a gap

    def _write_usage(self, attempt: AttemptDir, usage: Usage) -> None:
        self._stored(lambda: write_json(attempt.usage_file, usage.to_json()))

    def _stored(self, write: Callable[[], T]) -> T:
        """Write; wait where the file system is full or read-only, as long as is allowed."""
        while True:
            try:
                return write()
            except OSError as error:
                if not is_storage_error(error) or not self._wait_for_storage(str(error)):
                    raise

    def _storage_works(self) -> bool:
        try:
            write_json(self.stage.path / f".probe-{os.getpid()}", {"probe": "x" * 4096})
            (self.stage.path / f".probe-{os.getpid()}").unlink()
        except OSError:
            return False
        return True

    def _wait_for_storage(self, why: str) -> bool:
        """Until the store can be written again; False when that takes too long or the job ends."""
        end = time.monotonic() + 60 * self.submission.storage_wait_min
        while not self._storage_works():
            say(f"the store cannot be written ({why}); waiting")
            if time.monotonic() >= end or self.signals.ending:
                return False
            if self.signals.time_limit:
                self._requeue()
                return False
            self._sleep(STORAGE_POLL_S)
        return True

    def _is_cancelled(self) -> bool:
        return self.folder.cancelled(self.run_of_job.array_index).exists()

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.signals.ending:
            time.sleep(min(TICK_S, seconds))


CAUSES: Mapping[Failure, str] = {
    Failure.preempted: "preempted: Slurm asked the ranks to stop; it goes on when there are nodes",
    Failure.time_limit: "the job's time limit came near; it goes on in the next run",
    Failure.cancelled: "cancelled; the study's line goes on from its checkpoint",
    Failure.node_failure: "a node or its slurmstepd failed",
    Failure.host_oom: "its job used more host memory than it asked for: raise cluster.memory_gb",
    Failure.controller: "Slurm's controller did not answer",
    Failure.storage: "the file system is full or read-only",
}
TELLING = (Failure.host_oom,)
"""Classes of which the ranks' own words say more than ours."""
WANTED = (Failure.cancelled, Failure.budget)
"""Classes of which nothing is wrong with the stage: the same line goes on."""
ENDED: Mapping[str, Failure] = {
    "PREEMPTED": Failure.preempted,
    "CANCELLED": Failure.cancelled,
    "TIMEOUT": Failure.time_limit,
    "NODE_FAIL": Failure.node_failure,
    "OUT_OF_MEMORY": Failure.host_oom,
}
FAILED = (Failure.nan_loss, Failure.data, Failure.settings, Failure.gpu_oom, Failure.unknown)
"""Classes that are the stage's own doing."""


def _cause(errors: list[dict[str, str]], step: Step) -> str:
    expected = [error for error in errors if error.get("expected")]
    for error in (*expected, *errors):
        return str(error["message"])
    code = step.exit_code or KILLED_CODE
    number = -code if code < 0 else code - 128
    if 0 < number < 65:
        killed = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        return f"a rank was killed by {killed}"
    last = step.said.strip().splitlines()[-1:] or ["it said nothing"]
    return f"srun ended with status {code}: {last[0]}"


def _tail(log: Path) -> str:
    """The end of what ranks printed: C++ says there why it aborts."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - LOG_TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace")
    return ""


def _usage_of(attempt: AttemptDir) -> Usage | None:
    with contextlib.suppress(StoreError, KeyError, TypeError, ValueError):
        return attempt.usage()
    return None


def say(text: str) -> None:
    """One line in the job's log, which may lie on a full disk."""
    with contextlib.suppress(OSError, ValueError):
        print(f"{time.strftime('%H:%M:%S')} scalesweep: {text}", flush=True)


def run_from_environment(environment: Mapping[str, str]) -> SlurmRun:
    """The run of a job that Slurm's variables name."""
    return SlurmRun(
        cluster=environment.get("SLURM_CLUSTER_NAME", "cluster"),
        job_id=int(environment["SLURM_JOB_ID"]),
        array_job_id=int(environment["SLURM_ARRAY_JOB_ID"]),
        array_index=int(environment["SLURM_ARRAY_TASK_ID"]),
        name=environment["SLURM_JOB_NAME"],
        restarts=int(environment.get("SLURM_RESTART_COUNT", 0)),
    )


def begun_at() -> float:
    """Seconds since 1970 when this process began: the batch script becomes it."""
    ticks = leases.process_start(os.getpid()) or 0
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - max(0.0, age)


def supervisor(folder: JobDir, environment: Mapping[str, str]) -> Supervisor:
    """The supervisor of the element that Slurm's variables name.

    Raises:
        StoreError: the submission or the stage is not in the store, or not this job's.
    """
    run = run_from_environment(environment)
    submission = folder.submission()
    store = Store(folder.path.parents[1])
    ref = submission.elements.get(run.array_index)
    if ref is None or submission.name != run.name:
        raise StoreError(f"{folder.path}: has no stage for index {run.array_index} of {run.name}")
    stage = store.stage(ref)
    jobs = [job for job in StageJobs(stage).all() if job.submission == submission.name]
    if not jobs:
        raise StoreError(f"{stage.path}: no record of submission {submission.name}")
    leases.set_slurm_run(run)
    return Supervisor(
        folder=folder,
        store=store,
        submission=submission,
        run_of_job=run,
        stage=stage,
        spec=stage.spec(),
        job=jobs[-1],
        begun_at=begun_at(),
        runner=environment.get(RUNNER_VARIABLE),
        ends_at=ends_at(environment),
    )


def ends_at(environment: Mapping[str, str]) -> float | None:
    """Seconds since 1970 when the time limit ends this job; None where there is none."""
    end = environment.get("SLURM_JOB_END_TIME", "")
    return float(end) if end.isdecimal() and int(end) > 0 else None


def main(arguments: list[str]) -> int:
    signals = _Signals()
    signals.install()
    try:
        found = supervisor(JobDir(Path(arguments[0])), os.environ)
        found.signals = signals
        return found.run()
    except (ScaleSweepError, json.JSONDecodeError) as error:
        say(str(error))
        return EXIT_GAVE_UP


if __name__ == "__main__":
    ended = main(sys.argv[1:])
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    # At once: in a normal exit Python gives signals back their defaults, and of a USR2 in that
    # moment a job that is done would die, and with it what waits for it.
    os._exit(ended)
