"""A supervisor brings its stage to an end, or its job back into the queue, whatever ranks do."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from scalesweep.config.cluster import ClusterConfig
from scalesweep.errors import StoreError
from scalesweep.launch import budget_guard, leases, supervise
from scalesweep.launch.budget import admit_study
from scalesweep.launch.failures import Failure
from scalesweep.launch.jobs import job_dir
from scalesweep.launch.publish import publish
from scalesweep.launch.status import study_status
from scalesweep.launch.supervise import (
    CAUSES,
    ENDED,
    EXIT_GAVE_UP,
    EXIT_OK,
    RUNNER_VARIABLE,
    Pulse,
    Supervisor,
    run_from_environment,
    supervisor,
)
from scalesweep.plan.graph import PlannedStage
from scalesweep.records import Outcome, SlurmRun, Usage
from scalesweep.rundir import AttemptDir, Store, write_json
from tests.fakes.plans import RUNNER, plan_of, stage
from tests.fakes.processes import started, wait_for
from tests.fakes.slurm import FakeSlurm
from tests.fakes.stage_runner import journal, output_text, pids
from tests.launch.test_budget import held_to
from tests.launch.test_submit import element, fake_cluster, job, make, run_of, submitted
from tests.plan.test_admission import priced

REPOSITORY = Path(__file__).parents[2]
CLUSTER = ClusterConfig(
    name="local", kind="slurm", max_tries=2, parents_wait_s=0, storage_wait_min=0
)
WRITE = stage("write", text="hello")
WAIT = stage("wait", "wait", gate="gate")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # for the ranks
    monkeypatch.setattr(leases, "_slurm_run", None)
    for name, seconds in {
        "TICK_S": 0.01,
        "LOOK_S": 0.02,
        "HELD_POLL_S": 0.02,
        "STORAGE_POLL_S": 0.02,
        "KILLED_AFTER_REQUEUE_S": 0.0,
        "CONTROLLER_WAIT_S": 0.0,
    }.items():
        monkeypatch.setattr(supervise, name, seconds)
    yield from fake_cluster(tmp_path, monkeypatch)


def environment(fake: FakeSlurm, running: str, *, left_s: int = 36000) -> dict[str, str]:
    """What Slurm tells the batch script of an element. left_s: until the time limit ends it."""
    run = run_of(fake, running)
    return {
        "SLURM_CLUSTER_NAME": run.cluster,
        "SLURM_JOB_ID": str(run.job_id),
        "SLURM_ARRAY_JOB_ID": str(run.array_job_id),
        "SLURM_ARRAY_TASK_ID": str(run.array_index),
        "SLURM_JOB_NAME": run.name,
        "SLURM_RESTART_COUNT": str(run.restarts),
        "SLURM_JOB_END_TIME": str(int(time.time()) + left_s),
        RUNNER_VARIABLE: RUNNER,
    }


def begun(
    store: Store, fake: FakeSlurm, planned: PlannedStage, *, left_s: int = 36000, **cluster: Any
) -> Supervisor:
    """The supervisor of a stage's job, which begins."""
    submitted(store, plan_of(planned), cluster=dataclasses.replace(CLUSTER, **cluster))
    return again(store, fake, planned, left_s=left_s)


def again(
    store: Store, fake: FakeSlurm, planned: PlannedStage, *, left_s: int = 36000
) -> Supervisor:
    """The same job in its next run."""
    running = element(store, planned)
    fake.run(running)
    folder = job_dir(store, job(store, planned).submission)
    return supervisor(folder, environment(fake, running, left_s=left_s))


@contextlib.contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Something happens while a supervisor runs."""
    thread = Thread(target=action)
    thread.start()
    yield
    thread.join()


def attempts(store: Store, planned: PlannedStage) -> list[Usage]:
    found = [attempt.usage() for attempt in store.stage(planned.ref).attempts()]
    assert None not in found
    return [usage for usage in found if usage is not None]


def ends(store: Store, planned: PlannedStage) -> list[tuple[str, str]]:
    """How the attempts of a stage ended: outcome and class."""
    return [(str(usage.outcome), usage.failure) for usage in attempts(store, planned)]


# ---------------------------------------------------------------------- one attempt


def test_a_stage_is_run_and_published(store: Store, fake: FakeSlurm) -> None:
    status = begun(store, fake, WRITE).run()

    assert status == EXIT_OK
    assert output_text(store, WRITE.ref) == "hello"
    assert ends(store, WRITE) == [("done", "")]
    (attempt,) = store.stage(WRITE.ref).attempts()
    owner = leases.read_owner(attempt.lease)
    assert owner is not None
    assert owner.slurm == run_of(fake, element(store, WRITE))
    execution = attempt.execution()
    assert execution is not None
    assert execution.study == "fake"


def test_every_rank_is_started_once_and_held_devices_are_charged(
    store: Store, fake: FakeSlurm
) -> None:
    planned = stage("two", devices=2)
    held = dataclasses.replace(planned.execution, held_devices=8, usd_per_node_hour=2.0)
    planned = dataclasses.replace(planned, execution=held)

    assert begun(store, fake, planned).run() == EXIT_OK

    assert journal(store) == ["two", "two"]
    (usage,) = attempts(store, planned)
    assert (usage.num_devices, usage.node_devices) == (8, 2)
    assert usage.cost_usd == pytest.approx(8 / 2 * usage.wall_s / 3600 * 2.0)


def test_a_stage_reads_what_its_parents_published(store: Store, fake: FakeSlurm) -> None:
    child = stage("child", after=[WRITE], text="read: ")
    make(store, WRITE)
    submitted(store, plan_of(WRITE, child), cluster=CLUSTER)

    assert again(store, fake, child).run() == EXIT_OK

    assert output_text(store, child.ref) == "read: write"
    done, parent = store.stage(child.ref).done(), store.stage(WRITE.ref).done()
    assert done is not None
    assert parent is not None
    assert done.inputs == {"input0": parent.digest}


def test_a_stage_that_is_done_already_takes_no_attempt(store: Store, fake: FakeSlurm) -> None:
    found = begun(store, fake, WRITE)
    make(store, WRITE)

    assert found.run() == EXIT_OK

    assert len(store.stage(WRITE.ref).attempts()) == 1
    assert fake.calls("srun") == []


def test_a_published_stage_that_is_damaged_is_set_aside_and_run_again(
    store: Store, fake: FakeSlurm
) -> None:
    found = begun(store, fake, WRITE)
    (make(store, WRITE).output / "text").unlink()

    assert found.run() == EXIT_OK

    assert output_text(store, WRITE.ref) == "hello"
    assert (store.stage(WRITE.ref).path / "done.json.aside-1").exists()


def test_an_input_that_is_not_done_is_a_failure_that_says_so(store: Store, fake: FakeSlurm) -> None:
    child = stage("child", after=[WRITE])
    submitted(store, plan_of(WRITE, child), cluster=CLUSTER)

    assert again(store, fake, child).run() == EXIT_GAVE_UP

    (usage,) = attempts(store, child)
    assert (usage.outcome, usage.failure) == (Outcome.failed, Failure.data)
    assert usage.cause == f"its input is not done: {WRITE.ref}; type the study's line again"
    assert fake.calls("srun") == []


def test_an_input_that_is_seen_late_is_waited_for(
    store: Store, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = stage("child", after=[WRITE])
    cluster = dataclasses.replace(CLUSTER, parents_wait_s=60)
    submitted(store, plan_of(WRITE, child), cluster=cluster)
    monkeypatch.setattr(Supervisor, "_sleep", lambda *_: make(store, WRITE))

    assert again(store, fake, child).run() == EXIT_OK


# ---------------------------------------------------------------------- bad ends


def test_an_attempt_that_was_killed_is_tried_again_here(store: Store, fake: FakeSlurm) -> None:
    planned = stage("die", "die", times=1)

    assert begun(store, fake, planned).run() == EXIT_OK

    assert ends(store, planned) == [("killed", "killed"), ("done", "")]
    first, second = attempts(store, planned)
    assert first.cause == "a rank was killed by SIGKILL"
    assert second.started_at == pytest.approx(first.started_at + first.wall_s, abs=0.01)
    assert fake.element(element(store, planned)).restarts == 0


def test_attempts_that_come_no_further_are_given_up(store: Store, fake: FakeSlurm) -> None:
    planned = stage("die", "die", times=9)

    assert begun(store, fake, planned).run() == EXIT_GAVE_UP

    assert ends(store, planned) == [("killed", "killed"), ("failed", "killed")]
    assert attempts(store, planned)[-1].cause == (
        "a rank was killed by SIGKILL; 2 attempts in a row came no further"
    )


def test_attempts_of_an_earlier_submission_do_not_count(store: Store, fake: FakeSlurm) -> None:
    planned = stage("die", "die", times=3)
    assert begun(store, fake, planned).run() == EXIT_GAVE_UP
    fake.end(element(store, planned), "FAILED")

    assert begun(store, fake, planned).run() == EXIT_OK

    assert len(attempts(store, planned)) == 4


def test_an_error_of_the_stage_itself_is_not_tried_again(store: Store, fake: FakeSlurm) -> None:
    planned = stage("fail", "fail")

    assert begun(store, fake, planned).run() == EXIT_GAVE_UP

    (usage,) = attempts(store, planned)
    assert (usage.outcome, usage.failure) == (Outcome.failed, Failure.settings)
    assert usage.cause == "fail cannot be done"


def test_a_rank_that_fails_ends_the_others_and_gives_the_cause(
    store: Store, fake: FakeSlurm
) -> None:
    planned = stage("alone", "fail_alone", devices=2)

    assert begun(store, fake, planned, max_tries=1).run() == EXIT_GAVE_UP

    (usage,) = attempts(store, planned)
    assert (usage.outcome, usage.failure) == (Outcome.failed, Failure.unknown)
    assert usage.cause.startswith("RuntimeError: shapes differ; 1 attempts")


def test_a_stage_without_output_failed(store: Store, fake: FakeSlurm) -> None:
    planned = stage("nothing", "nothing")

    assert begun(store, fake, planned).run() == EXIT_GAVE_UP

    (usage,) = attempts(store, planned)
    assert (usage.outcome, usage.cause) == (
        Outcome.failed,
        "the stage ended without writing any output",
    )


def test_a_step_that_ends_well_without_its_ranks_is_not_believed(
    store: Store, fake: FakeSlurm
) -> None:
    found = begun(store, fake, WRITE)
    fake.srun_says("", status=0)

    assert found.run() == EXIT_OK

    assert ends(store, WRITE) == [("killed", "killed"), ("done", "")]


def test_memory_of_the_gpu_is_met_with_a_smaller_micro_batch(store: Store, fake: FakeSlurm) -> None:
    execution = dataclasses.replace(WRITE.execution, micro_batch_size=12)
    planned = dataclasses.replace(WRITE, execution=execution)
    found = begun(store, fake, planned)
    fake.srun_says("torch.OutOfMemoryError: CUDA out of memory. Tried", status=1, times=2)

    assert found.run() == EXIT_OK

    tried = [attempt.execution() for attempt in store.stage(planned.ref).attempts()]
    assert [execution.micro_batch_size for execution in tried if execution] == [12, 6, 3]
    assert ends(store, planned) == [("failed", "gpu_oom"), ("failed", "gpu_oom"), ("done", "")]


def test_the_next_run_begins_with_the_micro_batch_that_earlier_ones_left(
    store: Store, fake: FakeSlurm
) -> None:
    execution = dataclasses.replace(WRITE.execution, micro_batch_size=12)
    planned = dataclasses.replace(WRITE, execution=execution)
    found = begun(store, fake, planned)
    attempt = leases.claim(store.stage(planned.ref), execution, after=0)
    assert attempt is not None
    usage = Usage(outcome=Outcome.failed, failure=Failure.gpu_oom)
    write_json(attempt.usage_file, usage.to_json())

    assert found.run() == EXIT_OK

    tried = [attempt.execution() for attempt in store.stage(planned.ref).attempts()]
    assert [execution.micro_batch_size for execution in tried if execution] == [12, 6]


def test_memory_of_the_gpu_with_no_smaller_micro_batch_is_the_end(
    store: Store, fake: FakeSlurm
) -> None:
    found = begun(store, fake, WRITE)
    fake.srun_says("CUDA out of memory", status=1, times=9)

    assert found.run() == EXIT_GAVE_UP

    (usage,) = attempts(store, WRITE)
    assert usage.failure == Failure.gpu_oom
    assert usage.cause.endswith("no smaller micro-batch is left")


# ---------------------------------------------------------------------- the file system


def test_an_attempt_that_met_a_full_disk_is_tried_again_when_it_can_be_written(
    store: Store, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = begun(store, fake, WRITE, storage_wait_min=1)
    fake.srun_says("OSError: [Errno 28] No space left on device", status=1)
    works = Supervisor._storage_works
    looks = [False, False, False]
    monkeypatch.setattr(
        Supervisor, "_storage_works", lambda self: looks.pop() if looks else works(self)
    )

    assert found.run() == EXIT_OK

    assert looks == []
    assert [failure for _, failure in ends(store, WRITE)] == ["storage", ""]


def test_a_disk_that_stays_full_is_waited_for_no_longer_than_is_allowed(
    store: Store, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = begun(store, fake, WRITE, storage_wait_min=0)
    fake.srun_says("", status=74)
    monkeypatch.setattr(Supervisor, "_storage_works", lambda _: False)

    assert found.run() == EXIT_GAVE_UP

    assert [failure for _, failure in ends(store, WRITE)] == ["storage"]


# ---------------------------------------------------------------------- others at the stage


def test_an_attempt_that_was_overtaken_publishes_nothing_and_waits_for_the_other(
    store: Store, fake: FakeSlurm, capfd: pytest.CaptureFixture[str]
) -> None:
    found = begun(store, fake, WAIT)
    other = fake.add("other-job", state="RUNNING")
    far = leases.Owner(host="n7", boot_id="x", pid=1, process_start=1, slurm=run_of(fake, other))

    def overtake() -> None:
        wait_for(lambda: journal(store))
        second = leases.claim(store.stage(WAIT.ref), WAIT.execution, after=1)
        assert second is not None
        write_json(second.lease, far.to_json())
        (store.root / "gate").touch()
        wait_for(lambda: "begun elsewhere" in capfd.readouterr().out)
        (second.output / "text").write_text("by the other")
        publish(store.stage(WAIT.ref), second, inputs={})

    with meanwhile(overtake):
        assert found.run() == EXIT_OK

    done = store.stage(WAIT.ref).done()
    assert done is not None
    assert done.attempt == 2
    assert len(store.stage(WAIT.ref).attempts()) == 2


def test_a_living_supervisor_of_another_job_is_waited_for(store: Store, fake: FakeSlurm) -> None:
    found = begun(store, fake, WRITE)
    other = fake.add("other-job", state="RUNNING")
    attempt = leases.claim(store.stage(WRITE.ref), WRITE.execution, after=0)
    assert attempt is not None
    far = leases.Owner(host="n7", boot_id="x", pid=1, process_start=1, slurm=run_of(fake, other))
    write_json(attempt.lease, far.to_json())

    def end() -> None:
        wait_for(lambda: len(fake.calls("squeue")) > 1)
        fake.end(other, "NODE_FAIL")

    with meanwhile(end):
        assert found.run() == EXIT_OK

    assert len(store.stage(WRITE.ref).attempts()) == 2
    assert journal(store) == ["write"]


def test_a_supervisor_does_not_wait_for_ever_for_one_that_cannot_be_seen(
    store: Store, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "HELD_LIMIT_S", 0.0)
    found = begun(store, fake, WRITE)
    attempt = leases.claim(store.stage(WRITE.ref), WRITE.execution, after=0)
    assert attempt is not None
    write_json(
        attempt.lease, leases.Owner(host="far", boot_id="x", pid=1, process_start=1).to_json()
    )

    assert found.run() == EXIT_GAVE_UP

    assert journal(store) == []


# ---------------------------------------------------------------------- the end of the job


def test_before_its_time_limit_a_stage_stops_at_a_checkpoint_and_is_requeued(
    store: Store, fake: FakeSlurm
) -> None:
    found = begun(store, fake, WAIT)

    def warn() -> None:
        wait_for(lambda: journal(store))
        found.signals.time_limit = True

    with meanwhile(warn):
        assert found.run() == EXIT_GAVE_UP  # nobody sees it: the job waits already

    requeued = fake.element(element(store, WAIT))
    assert (requeued.state, requeued.reason, requeued.restarts) == ("PENDING", "BeginTime", 1)
    assert ends(store, WAIT) == [("interrupted", "time_limit")]
    assert (store.stage(WAIT.ref).attempts()[0].checkpoints / "here").exists()
    (store.root / "gate").touch()
    assert again(store, fake, WAIT).run() == EXIT_OK
    assert ends(store, WAIT)[1:] == [("done", "")]


HEED = stage("heed", "heed_the_time", needs_s=100)


def test_ranks_that_see_the_time_limit_themselves_are_requeued_as_if_warned(
    store: Store, fake: FakeSlurm
) -> None:
    assert begun(store, fake, HEED, left_s=60).run() == EXIT_GAVE_UP

    requeued = fake.element(element(store, HEED))
    assert (requeued.state, requeued.reason, requeued.restarts) == ("PENDING", "BeginTime", 1)
    assert ends(store, HEED) == [("interrupted", "time_limit")]
    assert again(store, fake, HEED, left_s=200).run() == EXIT_OK
    assert ends(store, HEED)[1:] == [("done", "")]


def test_a_time_limit_that_never_suffices_is_given_up(store: Store, fake: FakeSlurm) -> None:
    begun(store, fake, HEED, left_s=60, max_tries=2).run()
    again(store, fake, HEED, left_s=60).run()

    assert ends(store, HEED) == [("interrupted", "time_limit"), ("failed", "time_limit")]
    assert fake.element(element(store, HEED)).restarts == 1  # not a second time
    assert "2 attempts in a row came no further" in attempts(store, HEED)[-1].cause


@pytest.mark.parametrize(
    ("told", "found"),
    [({"SLURM_JOB_END_TIME": "1790000000"}, 1.79e9), ({"SLURM_JOB_END_TIME": "0"}, None),
     ({"SLURM_JOB_END_TIME": "Unknown"}, None), ({}, None)],
)  # fmt: skip
def test_a_job_ends_when_slurm_says_or_nobody_knows(
    told: dict[str, str], found: float | None
) -> None:
    assert supervise.ends_at(told) == found


def test_ranks_that_slurm_told_to_stop_were_preempted(store: Store, fake: FakeSlurm) -> None:
    found = begun(store, fake, WAIT)

    def preempt() -> None:
        wait_for(lambda: journal(store))
        os.kill(pids(store)[0], signal.SIGTERM)

    with meanwhile(preempt):
        found.run()

    assert ends(store, WAIT) == [("interrupted", "preempted")]
    assert fake.element(element(store, WAIT)).restarts == 1


def test_a_broken_node_sends_the_job_back_into_the_queue(store: Store, fake: FakeSlurm) -> None:
    found = begun(store, fake, WRITE)
    fake.srun_says("srun: error: Node failure on n1", status=1)

    found.run()

    assert ends(store, WRITE) == [("killed", "node_failure")]
    assert fake.calls("scontrol")[-1] == ["requeue", element(store, WRITE)]


def test_a_job_that_slurm_requeued_already_is_not_requeued_again(
    store: Store, fake: FakeSlurm
) -> None:
    found = begun(store, fake, WRITE)
    fake.srun_says("srun: error: Node failure on n1", status=1)
    fake.set(element(store, WRITE), state="PENDING", restarts=1)

    found.run()

    assert fake.element(element(store, WRITE)).restarts == 1
    assert ["requeue", element(store, WRITE)] not in fake.calls("scontrol")


def test_a_job_that_cannot_be_requeued_ends_with_an_error(store: Store, fake: FakeSlurm) -> None:
    found = begun(store, fake, WRITE)
    fake.srun_says("srun: error: Node failure on n1", status=1)
    fake.fault("scontrol", "refuse", "slurm_update error: Requested operation is disabled", times=9)

    assert found.run() == EXIT_GAVE_UP
    assert fake.element(element(store, WRITE)).state == "RUNNING"


def test_a_cancelled_stage_stops_at_a_checkpoint_and_stays_out_of_the_queue(
    store: Store, fake: FakeSlurm
) -> None:
    found = begun(store, fake, WAIT)

    def cancel() -> None:
        wait_for(lambda: journal(store))
        found.folder.cancelled(0).touch()

    with meanwhile(cancel):
        assert found.run() == EXIT_GAVE_UP

    assert ends(store, WAIT) == [("interrupted", "cancelled")]
    assert fake.element(element(store, WAIT)).restarts == 0


def test_a_stage_that_was_cancelled_before_it_began_takes_no_attempt(
    store: Store, fake: FakeSlurm
) -> None:
    found = begun(store, fake, WRITE)
    found.folder.cancelled(0).touch()

    assert found.run() == EXIT_GAVE_UP

    assert store.stage(WRITE.ref).attempts() == []


def test_a_job_that_slurm_ends_closes_its_attempt_and_leaves_nothing_running(
    store: Store, fake: FakeSlurm
) -> None:
    begun(store, fake, stubborn := stage("stubborn", "stubborn"))
    running = element(store, stubborn)
    folder = job_dir(store, job(store, stubborn).submission)
    words = [sys.executable, "-u", "-P", "-m", "scalesweep.launch.supervise", str(folder.path)]

    with started(words, cwd=store.root, env={**os.environ, **environment(fake, running)}) as it:
        wait_for(lambda: journal(store, "stubborn"))
        fake.set(running, state="PREEMPTED")
        it.send_signal(signal.SIGTERM)
        assert it.wait(timeout=60) == EXIT_GAVE_UP
        wait_for(lambda: leases.process_start(pids(store)[0]) is None)

    (usage,) = attempts(store, stubborn)
    assert (usage.outcome, usage.failure) == (Outcome.interrupted, Failure.preempted)
    assert usage.cause.startswith("preempted: ")


def test_ranks_that_say_nothing_any_more_are_taken_for_dead(
    store: Store, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = begun(store, fake, WAIT)
    found.submission = dataclasses.replace(found.submission, silent_s=0)
    monkeypatch.setattr(supervise, "START_LIMIT_S", 0.0)

    found.run()

    assert ends(store, WAIT) == [("killed", "node_failure")]
    assert fake.element(element(store, WAIT)).restarts == 1


# ---------------------------------------------------------------------- signs of life


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptDir:
    found = AttemptDir(tmp_path / "0001")
    found.path.mkdir()
    return found


class Clock:
    """Stands in for the time module."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(supervise, "time", made)
    monkeypatch.setattr(supervise, "LOOK_S", 2.0)
    return made


def test_ranks_are_given_time_until_their_first_sign(attempt: AttemptDir, clock: Clock) -> None:
    pulse = Pulse(attempt, limit_s=60)
    pulse.is_gone()

    assert looks(pulse, clock, supervise.START_LIMIT_S - 4) == [False]
    assert True in looks(pulse, clock, 8)


def test_ranks_are_missed_when_their_files_stay_as_they_are(
    attempt: AttemptDir, clock: Clock
) -> None:
    pulse = Pulse(attempt, limit_s=60)
    attempt.log.touch()
    attempt.metrics.write_text("{}\n")

    assert not pulse.is_gone()
    assert looks(pulse, clock, 58) == [False]
    assert True in looks(pulse, clock, 4)
    assert not pulse.is_gone()  # and is waited for anew


def test_a_supervisor_that_stood_still_itself_misses_nobody(
    attempt: AttemptDir, clock: Clock
) -> None:
    """Its own look at a file system that does not answer takes minutes; that is one look."""
    pulse = Pulse(attempt, limit_s=60)
    attempt.log.touch()
    pulse.is_gone()

    clock.now += 600

    assert not pulse.is_gone()


def looks(pulse: Pulse, clock: Clock, seconds: float) -> list[bool]:
    """What a look every two seconds says, without repetitions."""
    said: list[bool] = []
    for _ in range(int(seconds / 2)):
        clock.now += 2
        gone = pulse.is_gone()
        if said[-1:] != [gone]:
            said.append(gone)
    return said


def test_any_change_is_a_sign_of_life(attempt: AttemptDir, clock: Clock) -> None:
    pulse = Pulse(attempt, limit_s=60)
    attempt.log.touch()
    gone = []
    for file in (attempt.metrics, attempt.usage_file, attempt.metrics, attempt.usage_file):
        with file.open("a") as handle:
            handle.write("x")
        clock.now += 59
        gone.append(pulse.is_gone())

    assert gone == [False] * 4


# ---------------------------------------------------------------------- beginning


def test_the_run_of_a_job_is_named_by_slurms_variables() -> None:
    words = {
        "SLURM_JOB_ID": "17",
        "SLURM_ARRAY_JOB_ID": "12",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_JOB_NAME": "x",
    }

    first = run_from_environment(words)
    later = run_from_environment({**words, "SLURM_RESTART_COUNT": "2", "SLURM_CLUSTER_NAME": "lab"})

    assert first == SlurmRun(
        cluster="cluster", job_id=17, array_job_id=12, array_index=3, name="x", restarts=0
    )
    assert (later.restarts, later.cluster, later.element) == (2, "lab", "12_3")


def test_a_job_begins_when_its_process_did() -> None:
    program = "import time; from scalesweep.launch.supervise import begun_at; print(begun_at())"
    before = time.time()

    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert before - 0.1 <= float(said.stdout) <= time.time()  # ticks are a hundredth of a second


@pytest.mark.parametrize(
    ("variable", "value"), [("SLURM_ARRAY_TASK_ID", "7"), ("SLURM_JOB_NAME", "other")]
)
def test_a_job_that_the_submission_does_not_know_is_refused(
    store: Store, fake: FakeSlurm, variable: str, value: str
) -> None:
    folder = begun(store, fake, WRITE).folder
    words = {**environment(fake, element(store, WRITE)), variable: value}

    with pytest.raises(StoreError, match="has no stage for index"):
        supervisor(folder, words)


def test_a_supervisor_whose_records_are_gone_says_so_and_fails(
    store: Store, fake: FakeSlurm
) -> None:
    folder = begun(store, fake, WRITE).folder
    words = environment(fake, element(store, WRITE))
    (folder.path / "submission.json").write_text("{")

    said = subprocess.run(
        [sys.executable, "-P", "-m", "scalesweep.launch.supervise", str(folder.path)],
        env={**os.environ, **words},
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.returncode == EXIT_GAVE_UP
    assert "submission.json is damaged" in said.stdout
    assert said.stderr == ""


def test_a_log_that_appears_late_is_a_sign_of_life(attempt: AttemptDir, clock: Clock) -> None:
    pulse = Pulse(attempt, limit_s=60)
    pulse.is_gone()
    clock.now += 600
    attempt.log.touch()

    assert not pulse.is_gone()


def test_a_job_that_ends_while_it_waits_for_inputs_takes_no_attempt(
    store: Store, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = stage("child", after=[WRITE])
    cluster = dataclasses.replace(CLUSTER, parents_wait_s=60)
    submitted(store, plan_of(WRITE, child), cluster=cluster)
    found = again(store, fake, child)
    monkeypatch.setattr(Supervisor, "_sleep", lambda self, _: setattr(self.signals, "ending", True))

    assert found.run() == EXIT_GAVE_UP

    assert store.stage(child.ref).attempts() == []


def test_every_state_in_which_slurm_ends_a_job_has_a_cause() -> None:
    assert set(ENDED.values()) <= set(CAUSES)


# ---------------------------------------------------------------------- the budget


TRAIN = stage("train", "count", steps=200, step_s=0.02, usd_per_node_hour=3600)


def test_a_stage_that_would_overrun_the_budget_stops_and_is_not_requeued(
    store: Store, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_guard, "LOOK_S", 0.02)
    child = stage("child", after=[TRAIN])
    # Half a dollar a second; the stage needs 2 dollars, besides its start.
    plan = held_to(plan_of(TRAIN, child), usd=1.8)
    admit_study(store, plan)
    submitted(store, plan, cluster=CLUSTER)
    found = again(store, fake, TRAIN)
    found.begun_at = time.time()

    assert found.run() == EXIT_GAVE_UP

    (usage,) = attempts(store, TRAIN)
    assert (usage.outcome, usage.failure) == (Outcome.interrupted, Failure.budget)
    assert usage.cause.startswith("budget.usd=1.8 would be overrun: stopped at a checkpoint")
    assert usage.steps > 0
    assert fake.element(element(store, TRAIN)).restarts == 0
    assert study_status(plan, store)[child.ref].detail == "needs train"

    fake.end(element(store, TRAIN), "FAILED")
    admit_study(store, held_to(plan, usd=50))
    submitted(store, plan, cluster=CLUSTER)
    found = again(store, fake, TRAIN)
    found.begun_at = time.time()  # not when this test's process began
    assert found.run() == EXIT_OK

    assert [u.first_step for u in attempts(store, TRAIN)] == [0, usage.steps]
    assert all(len(journal(store, f"step{n}")) == 1 for n in range(1, 201))


@pytest.mark.parametrize(
    ("spent_s", "usd", "why"),
    [(4.0, 1.5, "budget.usd=1.5 is spent"), (0.0, 1.5, "budget.usd=1.5 has no room for it")],
)
def test_a_stage_that_the_budget_has_no_room_for_is_not_begun(
    store: Store, fake: FakeSlurm, spent_s: float, usd: float, why: str
) -> None:
    planned = TRAIN if spent_s else priced(TRAIN, 2.0)
    plan = held_to(plan_of(planned), usd=usd)
    admit_study(store, plan)
    submitted(store, plan, cluster=CLUSTER)  # in the queue already: the budget was lowered
    if spent_s:  # an earlier attempt
        execution = dataclasses.replace(planned.execution, study="fake")
        attempt = leases.claim(store.stage(planned.ref), execution, after=0)
        assert attempt is not None
        usage = Usage(
            outcome=Outcome.failed, wall_s=spent_s, node_devices=2, usd_per_node_hour=3600
        )
        write_json(attempt.usage_file, usage.to_json())

    assert again(store, fake, planned).run() == EXIT_GAVE_UP

    assert journal(store) == []
    assert len(store.stage(planned.ref).attempts()) == bool(spent_s)
    folder = job_dir(store, job(store, planned).submission)
    assert folder.left_out(0).read_text().strip() == why
