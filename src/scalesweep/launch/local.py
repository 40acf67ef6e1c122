"""Running a plan on this machine: every stage once, as soon as its parents are done.

All copies of this loop, in this process or another, meet only on disk: a stage that is done is
skipped, one that a living process holds is waited for, one whose holder died is taken over.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from scalesweep.errors import StoreError
from scalesweep.launch import leases
from scalesweep.launch.attempts import End, RunningAttempt
from scalesweep.launch.budget_guard import Guard, Running
from scalesweep.launch.publish import prepare, set_aside, verdict
from scalesweep.launch.workers import Workers
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.plan.spending import held
from scalesweep.records import Done, Outcome, StageKind, StageRef
from scalesweep.rundir import Store, write_atomic, write_json

GRACE_S = 20.0
"""After the first Ctrl-C: for checkpoints. After it, or at the second Ctrl-C, ranks are killed."""
TICK_S = 0.2
FOREIGN_POLL_S = 1.0
WEIGHTS = {
    StageKind.data: 0.1,
    StageKind.base: 20.0,
    StageKind.align: 0.4,
    StageKind.tune: 1.0,
    StageKind.generate: 0.1,
    StageKind.judge: 0.01,
}
"""Rough size of a stage by kind, for the order only."""


class State(StrEnum):
    """Where a stage stands in this run."""

    waiting = "waiting"
    running = "running"
    elsewhere = "elsewhere"
    """Another living command is at it."""
    done = "done"
    failed = "failed"
    interrupted = "interrupted"
    blocked = "blocked"
    """An ancestor failed."""
    out_of_budget = "out of budget"
    """Stopped at a checkpoint, which it goes on from when there is more to spend."""
    left_out = "left out"
    """Not begun: the budget has no room for it or is spent, or it needs a stage like that."""


@dataclass
class StageRun:
    """One stage in this run."""

    planned: PlannedStage
    state: State = State.waiting
    new_attempts: int = 0
    cause: str = ""
    log: Path | None = None
    running: RunningAttempt | None = None
    wall_s: float = 0.0
    cpu_s: float = 0.0
    cost_usd: float = 0.0
    node_hours: float = 0.0
    asked_at: float | None = None
    """When it was asked to stop for the budget, on the monotonic clock."""
    was_done: bool = False
    """Done before this run looked at it."""
    done: Done | None = None
    """What is published, once it is known to hold."""

    @property
    def ref(self) -> StageRef:
        return self.planned.spec.ref

    @property
    def label(self) -> str:
        return self.planned.spec.label


class Progress(Protocol):
    """What is told while a study runs."""

    def event(self, run: StageRun, what: str) -> None: ...

    def update(self, runs: Mapping[StageRef, StageRun]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """How a run of a study ended."""

    runs: Mapping[StageRef, StageRun]
    interrupted: bool
    wall_s: float
    imports_cpu_s: float = 0.0
    """Core seconds of the imports that all ranks share."""

    @property
    def all_done(self) -> bool:
        return all(run.state is State.done for run in self.runs.values())

    @property
    def new_attempts(self) -> int:
        return sum(run.new_attempts for run in self.runs.values())

    @property
    def cpu_s(self) -> float:
        return sum(run.cpu_s for run in self.runs.values())


class _Stopped(Exception):
    """A signal came while nothing but waiting was done."""


@dataclass
class _Stop:
    """Signals that asked to stop."""

    count: int = 0
    since: float = 0.0
    ends_waiting: bool = False
    """Whether a signal raises _Stopped, besides being counted."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.count += 1
        self.since = self.since or time.monotonic()
        if self.ends_waiting:
            raise _Stopped


@dataclass(kw_only=True)
class Scheduler:
    """One run of a plan."""

    plan: Plan
    store: Store
    num_workers: int
    progress: Progress
    max_tries: int = 3
    workers: Workers = field(default_factory=Workers)
    runner: str | None = None
    """Module with run(context) that takes the place of every kind's own (tests)."""
    announces: bool = True
    """Whether the plan is the study's: a part of it must not take the place of its plan.json."""
    runs: dict[StageRef, StageRun] = field(init=False)
    _priority: dict[StageRef, float] = field(init=False)
    _guard: Guard = field(init=False)
    _next_budget_look: float = 0.0
    _last_foreign_poll: float = 0.0
    _stop: _Stop = field(default_factory=_Stop)

    def __post_init__(self) -> None:
        self.runs = {stage.spec.ref: StageRun(planned=stage) for stage in self.plan.stages}
        self._priority = priorities(self.plan)
        self._guard = Guard(store=self.store, study=self.plan.study, tick_s=2 * TICK_S)

    def run(self) -> StudyResult:
        """Run until nothing is left that can run, or a signal asks to stop.

        Raises:
            StoreError: the store cannot be written.
            StageError: no processes can be started.
        """
        begin = time.monotonic()
        with _announced(self.store, self.plan, whole=self.announces), _signals(self._stop):
            try:
                while not self._finished() and not self._stop.count:
                    with contextlib.suppress(_Stopped):
                        self._advance()
                    self._wait()
                if self._stop.count:
                    self._wind_down()
            except BrokenPipeError:  # nobody reads what is printed; not the store's fault
                self._kill_all()
                raise
            except OSError as error:
                self._kill_all()
                raise StoreError(
                    f"{self.store.root}: cannot be written ({error.strerror or error}); free "
                    "space or choose another store, then type the line again"
                ) from error
            except BaseException:
                self._kill_all()
                raise
            self.progress.update(self.runs)
        return StudyResult(
            runs=self.runs,
            interrupted=bool(self._stop.count),
            wall_s=time.monotonic() - begin,
            imports_cpu_s=self.workers.server_cpu_s(),
        )

    # ------------------------------------------------------------------ one turn of the loop

    def _finished(self) -> bool:
        going = (State.waiting, State.running, State.elsewhere)
        return all(run.state not in going for run in self.runs.values())

    def _advance(self) -> None:
        """Look at every stage once: what ended, what is done, what can start."""
        for run in self._in_state(State.running):
            assert run.running is not None
            if (end := run.running.poll()) is not None:
                self._ended(run, end)
        self._hold_to_budget()
        look_elsewhere = time.monotonic() - self._last_foreign_poll >= FOREIGN_POLL_S
        if look_elsewhere:
            self._last_foreign_poll = time.monotonic()
        for ref in self._by_priority():
            run = self.runs[ref]
            if look_elsewhere or (run.state is State.waiting and self._free_devices() > 0):
                self._consider(run)

    def _consider(self, run: StageRun) -> None:
        """Find out whether a stage is done, at work elsewhere, or ours to start."""
        if run.state not in (State.waiting, State.elsewhere) or self._stop.count:
            return
        parents = self._parents(run)
        if bad := [parent for parent in parents.values() if parent.state in BAD]:
            unpaid = all(parent.state in UNPAID for parent in bad)
            run.state = State.left_out if unpaid else State.blocked
            run.cause = f"needs {bad[0].label}"
            return
        if any(parent.state is not State.done for parent in parents.values()):
            return
        published = {role: parent.done for role, parent in parents.items() if parent.done}
        digests = {role: done.digest for role, done in published.items()}
        stage = self.store.stage(run.ref)
        # In this order: whoever ends the stage meanwhile publishes, then closes the attempt.
        newest = leases.newest_number(stage)
        holder = leases.holder(stage)
        found = verdict(self.store, run.planned.spec, parents=digests)
        if found.done is not None:
            self._is_done(run, found.done)
            return
        if holder is not None and holder != leases.this_process():
            if run.state is not State.elsewhere:
                run.state = State.elsewhere
                run.cause = _at_it(holder, stage.attempt(newest).lease)
                self.progress.event(run, "elsewhere")
            return
        run.state = State.waiting
        refused = self._guard.refuses(
            run.ref, run.planned.execution, self._guard.spent(self._own())
        )
        if refused:
            run.state, run.cause = State.left_out, refused
            self.progress.event(run, "left out")
            return
        if self._free_devices() < run.planned.execution.world_size and self._busy_devices():
            return
        self._warm_up()
        self._start(run, published, after=newest, problem=found.problem)

    def _is_done(self, run: StageRun, done: Done) -> None:
        run.was_done = run.new_attempts == 0 and run.state is State.waiting
        if run.state is State.elsewhere:
            self.progress.event(run, "done")
        run.state, run.done, run.cause = State.done, done, ""

    def _warm_up(self) -> None:
        """Imports take seconds; a signal ends the waiting for them."""
        self.progress.update(self.runs)
        self._stop.ends_waiting = True
        try:
            if not self._stop.count:
                self.workers.warm_up()
        finally:
            self._stop.ends_waiting = False
        if self._stop.count:
            raise _Stopped

    def _start(
        self, run: StageRun, parents: Mapping[str, Done], *, after: int, problem: str
    ) -> None:
        stage = self.store.stage(run.ref)
        prepare(stage, run.planned.spec)
        execution = replace(run.planned.execution, study=self.plan.study)  # which pays for it
        attempt = leases.claim(stage, execution, after=after)
        if attempt is None:  # another command was faster; look again next turn
            return
        if problem:  # only now: the done.json that is there is the one that was looked at
            set_aside(stage)
            run.cause = problem
            self.progress.event(run, "again")
        run.log = attempt.log
        run.new_attempts += 1
        run.state = State.running
        run.running = RunningAttempt(
            self.store,
            run.planned,
            attempt,
            workers=self.workers,
            parents=parents,
            runner=self.runner,
        )
        self._guard.look_at(run.ref, counted=after)
        self.progress.event(run, "start")

    def _ended(self, run: StageRun, end: End) -> None:
        run.running = None
        run.wall_s += end.usage.wall_s
        run.cpu_s += end.usage.cpu_s
        run.cost_usd += end.usage.cost_usd
        run.node_hours += end.usage.node_hours
        run.cause = end.cause
        # Interrupted though we did not ask: somebody sent its processes a SIGTERM.
        from_outside = end.outcome in (Outcome.killed, Outcome.interrupted)
        self._guard.look_at(run.ref)
        if end.outcome is Outcome.done:
            run.done = self.store.stage(run.ref).done()
            if run.done is None:
                raise StoreError(f"{run.ref} vanished from the store while the study ran")
            run.state = State.done
            self.progress.event(run, "done")
        elif from_outside and self._stop.count:
            run.state = State.interrupted
            self.progress.event(run, "interrupted")
        elif from_outside and run.asked_at is not None:
            run.state = State.out_of_budget
            self.progress.event(run, "out of budget")
        elif from_outside and run.new_attempts < self.max_tries:
            run.state = State.waiting
            self.progress.event(run, "retry")
        else:
            run.state = State.failed
            self.progress.event(run, "failed")

    def _wait(self) -> None:
        """Until a rank ends, or the next tick."""
        self.progress.update(self.runs)
        sentinels = [
            process.sentinel
            for run in self._in_state(State.running)
            if run.running is not None
            for process in run.running.processes
            if process.exitcode is None
        ]
        if sentinels:
            wait(sentinels, timeout=TICK_S)
        elif not self._finished():
            time.sleep(TICK_S if self._in_state(State.elsewhere) else 0.01)

    # ------------------------------------------------------------------ the budget

    def _own(self) -> list[Running]:
        """What runs here, with its cost to this moment."""
        return [
            Running(
                ref=run.ref,
                attempt=run.running.attempt,
                execution=run.planned.execution,
                cost=held(run.running.spent),
            )
            for run in self._in_state(State.running)
            if run.running is not None
        ]

    def _hold_to_budget(self) -> None:
        """Ask what would overrun to stop at a checkpoint; kill what does not stop."""
        own, now = self._own(), time.monotonic()
        if now >= self._next_budget_look or self._guard.has_changed():
            self._next_budget_look = now + self._guard.next_look_s(self._guard.look(own))
        spent = self._guard.spent(own)
        for one in own:
            run = self.runs[one.ref]
            assert run.running is not None
            if run.asked_at is None:
                if not self._guard.must_stop(one, spent):
                    continue
                run.asked_at = now
                run.running.stop_for_budget(self._guard.cause(one))
            if now - run.asked_at > self._guard.patience_s(one):
                run.running.kill("asked to stop for the budget, it did not in time")
            elif not self._guard.has_begun(one):
                run.running.kill("stopped for the budget before it had done anything")

    # ------------------------------------------------------------------ stopping

    def _wind_down(self) -> None:
        """Let ranks checkpoint; kill what does not end in time, or at a second signal."""
        running = self._in_state(State.running)
        for run in running:
            assert run.running is not None
            run.running.terminate()
        while self._in_state(State.running):
            late = time.monotonic() - self._stop.since > GRACE_S
            for run in self._in_state(State.running):
                assert run.running is not None
                if self._stop.count > 1:
                    run.running.kill("killed at the second signal")
                elif late:
                    run.running.kill(f"killed: asked to stop, it did not within {GRACE_S:.0f} s")
                if (end := run.running.poll()) is not None:
                    self._ended(run, end)
            self.progress.update(self.runs)
            time.sleep(0.05)
        for run in self.runs.values():
            if run.state in (State.waiting, State.elsewhere):
                run.cause = run.cause or "not started"
                run.state = State.interrupted

    def _kill_all(self) -> None:
        for run in self._in_state(State.running):
            if run.running is not None:
                run.running.kill("the command ended with an error")

    # ------------------------------------------------------------------ looking things up

    def _in_state(self, state: State) -> list[StageRun]:
        return [run for run in self.runs.values() if run.state is state]

    def _by_priority(self) -> list[StageRef]:
        return sorted(self.runs, key=lambda ref: -self._priority[ref])

    def _parents(self, run: StageRun) -> dict[str, StageRun]:
        return {role: self.runs[ref] for role, ref in run.planned.spec.inputs.items()}

    def _busy_devices(self) -> int:
        return sum(run.running.num_devices for run in self._in_state(State.running) if run.running)

    def _free_devices(self) -> int:
        return self.num_workers - self._busy_devices()


UNPAID = (State.left_out, State.out_of_budget)
BAD = (State.failed, State.blocked, State.interrupted, *UNPAID)
"""States of a parent that its children cannot get over in this run."""


def stage_weight(stage: PlannedStage) -> float:
    """Rough size of a stage, for the order of starting only."""
    model, tower = (_part(stage, name) for name in ("model", "tower"))
    width = model.get("hidden_size", 1) * model.get("num_layers", 1)
    tokens = (tower.get("image_size", 1) // tower.get("patch_size", 1)) ** 2
    return float(WEIGHTS[stage.spec.kind] * width * (30 + tokens))


def _part(stage: PlannedStage, name: str) -> Mapping[str, Any]:
    part = stage.spec.identity.get(name)
    return part if isinstance(part, Mapping) else {}


def priorities(plan: Plan) -> dict[StageRef, float]:
    """Length of the longest way from each stage to the end of the graph."""
    children: dict[StageRef, list[StageRef]] = {s.spec.ref: [] for s in plan.stages}
    for stage in plan.stages:
        for parent in set(stage.spec.inputs.values()):
            children[parent].append(stage.spec.ref)
    length: dict[StageRef, float] = {}
    for stage in reversed(plan.stages):
        after = max((length[child] for child in children[stage.spec.ref]), default=0.0)
        length[stage.spec.ref] = stage_weight(stage) + after
    return length


def _at_it(holder: leases.Owner, lease: Path) -> str:
    """Who is waited for, and the way out where nobody here can see whether it lives."""
    who = f"process {holder.pid} on {holder.host} is at it"
    if leases.is_alive(holder) is None:
        who += f", which cannot be seen from here; if it is dead, delete {lease}"
    return who


@contextlib.contextmanager
def _signals(stop: _Stop) -> Iterator[None]:
    """Ctrl-C and SIGTERM are counted instead of raised."""
    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def commands_folder(store: Store, study: str) -> Path:
    """Leases of the commands that work on a study."""
    return store.study(study) / "commands"


def announce(store: Store, plan: Plan) -> None:
    """plan.json: what status and report of the study's name speak of."""
    # On one line: a plan of a thousand cells is written in a fifth of the time.
    text = json.dumps(plan.to_json(), allow_nan=False)
    write_atomic(store.study(plan.study) / "plan.json", text + "\n")


@contextlib.contextmanager
def _announced(store: Store, plan: Plan, *, whole: bool) -> Iterator[None]:
    """plan.json, and a lease that says who works on the study (cancel reads it)."""
    try:
        folder = commands_folder(store, plan.study)
        folder.mkdir(parents=True, exist_ok=True)
        if whole:
            announce(store, plan)
        for old in folder.glob("*.json"):
            owner = leases.read_owner(old)
            if owner is not None and leases.is_alive(owner) is False:
                old.unlink(missing_ok=True)
        lease = folder / f"{uuid.uuid4().hex[:12]}.json"
        write_json(lease, leases.this_process().to_json())
    except OSError as error:
        raise StoreError(
            f"store={store.root}: cannot be written ({error.strerror or error}); choose another "
            "with store=DIR"
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lease.unlink(missing_ok=True)
