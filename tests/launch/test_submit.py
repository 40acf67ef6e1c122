"""What is missing of a plan is submitted, once, whoever else submits and whatever breaks."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from scalesweep.config.cluster import ClusterConfig, StageJobConfig
from scalesweep.launch import leases, slurm, submit
from scalesweep.launch.budget import admit_study, admitted_part
from scalesweep.launch.jobs import StageJob, StageJobs, Submission, job_dir
from scalesweep.launch.publish import prepare, publish
from scalesweep.launch.slurm import HELD_AFTER_FAILED_LAUNCH, SlurmError
from scalesweep.launch.snapshot import snapshot
from scalesweep.launch.submit import (
    Submitted,
    Submitter,
    job_shape,
    needed_lead_s,
    with_lead,
)
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.records import Execution, Measured, Outcome, SlurmRun, StageKind, Usage
from scalesweep.rundir import AttemptDir, StageDir, Store, write_json
from scalesweep.study_submit import submitted_lines
from tests.fakes.plans import plan_of, stage
from tests.fakes.processes import wait_for
from tests.fakes.slurm import AWAY, FakeSlurm
from tests.launch.test_budget import held_to
from tests.launch.test_leases import dead_owner
from tests.plan.test_admission import priced

DATA = stage("data", kind=StageKind.data)
LEFT = stage("left", after=[DATA])
RIGHT = stage("right", after=[DATA])
JOIN = stage("join", kind=StageKind.generate, after=[LEFT, RIGHT])
DIAMOND = plan_of(DATA, LEFT, RIGHT, JOIN)
CLUSTER = ClusterConfig(name="lab", kind="slurm", timeout_min=60)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def fake_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    """A cluster that commands reach, with a store whose code is not copied for each test."""
    made = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", made.path)
    monkeypatch.setattr(submit, "snapshot", lambda store: store.root / "code")
    slurm.site.cache_clear()
    yield made
    slurm.site.cache_clear()


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    yield from fake_cluster(tmp_path, monkeypatch)


def submitted(store: Store, plan: Plan = DIAMOND, **settings: Any) -> Submitted:
    given = {"cluster": CLUSTER, "say": lambda _: None, **settings}
    return Submitter(plan=plan, store=store, **given).submit()


def job(store: Store, planned: PlannedStage) -> StageJob:
    found = StageJobs(store.stage(planned.ref)).newest()
    assert found is not None
    return found


def submission(store: Store, planned: PlannedStage) -> Submission:
    return job_dir(store, job(store, planned).submission).submission()


def element(store: Store, planned: PlannedStage) -> str:
    """The element that is to run a stage."""
    return f"{submission(store, planned).job_id}_{job(store, planned).index}"


def elements(store: Store, plan: Plan = DIAMOND) -> dict[str, str]:
    return {planned.spec.label: element(store, planned) for planned in plan.stages}


def waits_for(fake: FakeSlurm) -> dict[str, set[str]]:
    """What each element was submitted to wait for."""
    return {f"{e.array}_{e.index}": set(e.waits_for) for e in fake.elements()}


def make(store: Store, planned: PlannedStage) -> AttemptDir:
    """Do a stage."""
    folder = store.stage(planned.ref)
    prepare(folder, planned.spec)
    attempt = leases.claim(folder, planned.execution, after=leases.newest_number(folder))
    assert attempt is not None
    (attempt.output / "text").write_text(planned.spec.label)
    digests = {}
    for role, ref in planned.spec.inputs.items():
        done = store.stage(ref).done()
        assert done is not None
        digests[role] = done.digest
    publish(folder, attempt, inputs=digests)
    return attempt


def run_of(fake: FakeSlurm, element: str) -> SlurmRun:
    """The run of a job that an element is at now."""
    found = fake.element(element)
    return SlurmRun(
        cluster="lab",
        job_id=found.job,
        array_job_id=found.array,
        array_index=found.index,
        name=found.name,
        restarts=found.restarts,
    )


def begin(store: Store, fake: FakeSlurm, planned: PlannedStage) -> AttemptDir:
    """The attempt of a supervisor on a node that cannot be seen from here."""
    running = element(store, planned)
    fake.run(running)
    folder = store.stage(planned.ref)
    attempt = leases.claim(folder, planned.execution, after=leases.newest_number(folder))
    assert attempt is not None
    owner = leases.Owner(
        host="n7", boot_id="other", pid=1, process_start=1, slurm=run_of(fake, running)
    )
    write_json(attempt.lease, owner.to_json())
    return attempt


def close(attempt: AttemptDir, outcome: Outcome, cause: str = "", failure: str = "") -> None:
    write_json(attempt.usage_file, Usage(outcome=outcome, cause=cause, failure=failure).to_json())


def finish(store: Store, fake: FakeSlurm, planned: PlannedStage) -> None:
    """A stage is done by its job."""
    make(store, planned)
    close(store.stage(planned.ref).attempts()[-1], Outcome.done)
    fake.end(element(store, planned))


def killed_command(store: Store) -> None:
    """A command that submits, and is killed as the fake was told to."""
    process = multiprocessing.get_context("fork").Process(target=submitted, args=(store,))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -9


# ---------------------------------------------------------------------- what is submitted


def test_a_diamond_is_three_arrays_that_wait_for_each_other(store: Store, fake: FakeSlurm) -> None:
    result = submitted(store)

    names = elements(store)
    assert (result.arrays, result.stages, result.queued) == (3, 4, 0)
    assert waits_for(fake) == {
        names["data"]: set(),
        names["left"]: {names["data"]},
        names["right"]: {names["data"]},
        names["join"]: {names["left"], names["right"]},
    }
    assert submission(store, LEFT).name == submission(store, RIGHT).name


def test_what_was_submitted_is_written_down(store: Store) -> None:
    settings = {"max_tries": 5, "parents_wait_s": 0, "storage_wait_min": 7, "silent_s": 60}
    cluster = dataclasses.replace(CLUSTER, **settings)  # type: ignore[arg-type]

    result = submitted(store, cluster=cluster)

    found = submission(store, LEFT)
    assert str(found.job_id) in result.jobs
    assert found.elements == {0: LEFT.ref, 1: RIGHT.ref}
    assert (found.study, found.cluster) == ("fake", "lab")
    assert {name: getattr(found, name) for name in settings} == settings
    assert job(store, RIGHT).index == 1
    assert job(store, RIGHT).execution == dataclasses.replace(RIGHT.execution, study="fake")
    assert store.stage(LEFT.ref).spec() == LEFT.spec


def test_the_same_line_again_submits_nothing(store: Store, fake: FakeSlurm) -> None:
    submitted(store)

    again = submitted(store)

    assert (again.arrays, again.queued) == (0, 4)
    assert len(fake.calls("sbatch")) == 3


def test_what_runs_and_what_is_done_is_left_alone(store: Store, fake: FakeSlurm) -> None:
    submitted(store)
    finish(store, fake, DATA)
    fake.run(element(store, LEFT))

    again = submitted(store)

    assert (again.arrays, again.done, again.queued) == (0, 1, 3)


def test_children_of_what_is_done_wait_for_nothing(store: Store, fake: FakeSlurm) -> None:
    make(store, DATA)

    result = submitted(store)

    assert (result.done, result.stages) == (1, 3)
    assert waits_for(fake)[element(store, LEFT)] == set()


def test_a_study_whose_stages_are_all_done_asks_for_no_job(store: Store, fake: FakeSlurm) -> None:
    for planned in DIAMOND.stages:
        make(store, planned)

    assert submitted(store).done == 4
    assert fake.calls("sbatch") == []
    assert not (store.root / "code").exists()


@pytest.mark.parametrize("end", ["FAILED", "CANCELLED"])
def test_a_failed_element_is_submitted_anew_with_its_descendants_only(
    store: Store, fake: FakeSlurm, end: str
) -> None:
    submitted(store)
    old = elements(store)
    finish(store, fake, DATA)
    fake.run(old["left"], old["right"])
    fake.end(old["left"], end)

    again = submitted(store)

    new = elements(store)
    assert (again.stages, again.queued, again.done) == (2, 1, 1)
    assert new["right"] == old["right"]
    assert new["left"] != old["left"]
    assert new["join"] != old["join"]
    assert waits_for(fake)[new["join"]] == {new["left"], old["right"]}


def test_an_element_whose_parent_is_over_is_taken_out_and_submitted_anew(
    store: Store, fake: FakeSlurm
) -> None:
    submitted(store)
    old = elements(store)
    fake.set(old["data"], state="FAILED")  # and Slurm did not cancel what waits for it

    again = submitted(store)

    new = elements(store)
    assert again.stages == 4
    assert set(old.values()).isdisjoint(new.values())
    assert {fake.states()[name] for name in old.values()} == {"FAILED", "CANCELLED"}
    assert {fake.states()[name] for name in new.values()} == {"PENDING"}


def test_an_element_that_can_never_run_is_submitted_anew(store: Store, fake: FakeSlurm) -> None:
    submitted(store)
    old = element(store, JOIN)
    fake.set(old, reason="DependencyNeverSatisfied")

    again = submitted(store)

    assert again.stages == 1
    assert fake.states()[old] == "CANCELLED"
    assert fake.states()[element(store, JOIN)] == "PENDING"


def test_a_cancelled_element_is_followed_while_it_still_ends(store: Store, fake: FakeSlurm) -> None:
    submitted(store, plan_of(DATA))
    old = element(store, DATA)
    fake.run(old)
    job_dir(store, job(store, DATA).submission).cancelled(0).touch()

    again = submitted(store, plan_of(DATA))

    assert again.stages == 1
    assert fake.states() == {old: "RUNNING", element(store, DATA): "PENDING"}


def test_arrays_are_cut_where_the_site_says(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = FakeSlurm(tmp_path / "small", MaxArraySize="2")
    monkeypatch.setenv("PATH", small.path)
    plan = plan_of(*(stage(f"s{i}") for i in range(5)))

    result = submitted(store, plan)

    assert result.arrays == 3
    assert [e.index for e in small.elements()] == [0, 1, 0, 1, 0]


def test_stages_for_the_login_node_are_not_submitted(store: Store, fake: FakeSlurm) -> None:
    judge = stage("judge", kind=StageKind.judge, after=[DATA])
    at_login = dataclasses.replace(
        judge, execution=dataclasses.replace(judge.execution, on_login=True)
    )

    result = submitted(store, plan_of(DATA, at_login))

    assert (result.stages, result.login) == (1, 1)
    assert len(fake.elements()) == 1


def test_jobs_run_a_copy_of_the_code_in_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "snapshot", snapshot)

    submitted(store)

    (code,) = (store.root / "code").iterdir()
    script = job_dir(store, job(store, DATA).submission).path / "job.sh"
    assert f"export PYTHONPATH={code}$" in script.read_text()
    assert (code / "scalesweep" / "launch" / "supervise.py").exists()


def test_sbatch_gets_no_more_of_the_environment_than_is_allowed(
    store: Store, fake: FakeSlurm
) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/home/me",
        "WANDB_API_KEY": "s3cret",
        "NCCL_DEBUG": "INFO",
    }
    cluster = dataclasses.replace(CLUSTER, export=["NCCL_DEBUG"])

    submitted(store, cluster=cluster, environment=environment)

    got = fake.environments("sbatch")[0]
    of_the_shell = {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
    assert got.keys() - of_the_shell == {"PATH", "HOME", "NCCL_DEBUG"}
    assert all("s3cret" not in path.read_text() for path in store.root.glob("jobs/*/*"))


# ---------------------------------------------------------------------- others


def test_jobs_of_another_study_are_waited_for_and_named(store: Store, fake: FakeSlurm) -> None:
    submitted(store, plan_of(DATA, LEFT, study="first"))
    theirs = elements(store, plan_of(DATA, LEFT))

    result = submitted(store, plan_of(DATA, LEFT, RIGHT, JOIN, study="second"))

    assert (result.stages, result.queued) == (2, 2)
    assert [line.split(" (user")[0] for line in result.others] == [
        f"job {theirs[name].split('_')[0]} of study first" for name in ("data", "left")
    ]
    assert waits_for(fake)[element(store, JOIN)] == {theirs["left"], element(store, RIGHT)}


def test_jobs_of_another_cluster_are_left_alone_and_counted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(store, plan_of(DATA, LEFT))
    other = FakeSlurm(tmp_path / "other", cluster="other")
    monkeypatch.setenv("PATH", other.path)
    slurm.site.cache_clear()

    result = submitted(store)

    # data and left are there; right and join need what is there
    assert (result.elsewhere, result.stages) == (4, 0)
    assert other.elements() == []
    make(store, DATA)
    assert (submitted(store).stages, element(store, RIGHT)) == (1, "1_0")


# ---------------------------------------------------------------------- what breaks


def test_a_job_without_a_written_id_is_adopted_by_its_name(store: Store, fake: FakeSlurm) -> None:
    submitted(store)
    job_file = job_dir(store, job(store, LEFT).submission).job_file
    before = element(store, LEFT)
    job_file.unlink()

    again = submitted(store)

    assert (again.arrays, again.queued) == (0, 4)
    assert element(store, LEFT) == before
    assert len(fake.elements()) == 4


def test_a_command_killed_before_it_heard_the_id_leaves_a_job_that_is_adopted(
    store: Store, fake: FakeSlurm
) -> None:
    fake.fault("sbatch", "kill_after")
    killed_command(store)
    assert len(fake.elements()) == 1

    result = submitted(store)

    assert (result.stages, result.queued) == (3, 1)
    assert element(store, DATA) == "1_0"
    assert len(fake.elements()) == 4


def test_a_command_killed_before_its_sbatch_is_taken_over(store: Store, fake: FakeSlurm) -> None:
    fake.fault("sbatch", "kill_before")
    killed_command(store)
    assert fake.elements() == []

    result = submitted(store)

    assert result.stages == 4
    assert (job(store, DATA).number, job(store, LEFT).number) == (2, 1)
    assert len(fake.elements()) == 4


def test_a_command_killed_with_no_more_than_a_claim_is_taken_over(store: Store) -> None:
    claim = StageJob(submission="gone", index=0, execution=DATA.execution, submitter=dead_owner())
    StageJobs(store.stage(DATA.ref)).claim(claim, after=0)

    assert submitted(store).stages == 4


def test_a_job_that_another_living_command_submits_is_waited_for(
    store: Store, fake: FakeSlurm
) -> None:
    fake.fault("sbatch", "slow", "1.0")
    process = multiprocessing.get_context("fork").Process(
        target=submitted, args=(store, plan_of(DATA))
    )
    process.start()
    wait_for(lambda: fake.calls("sbatch"))

    result = submitted(store, plan_of(DATA))

    process.join()
    assert (result.stages, result.queued) == (0, 1)
    assert len(fake.elements()) == 1


def test_a_job_that_got_in_though_sbatch_said_otherwise_is_not_submitted_twice(
    store: Store, fake: FakeSlurm
) -> None:
    fake.fault("sbatch", "lost", "sbatch: error: Batch job submission failed: " + AWAY)
    said: list[str] = []

    result = submitted(store, plan_of(DATA), say=said.append)

    assert result.jobs == ["1"]
    assert len(fake.calls("sbatch")) == len(fake.elements()) == 1
    assert ["trying again" in line for line in said] == [True]
    assert element(store, DATA) == "1_0"


def test_a_job_that_did_not_get_in_is_submitted_again(
    store: Store, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "APPEARS_WITHIN_S", 0.0)
    fake.fault("sbatch", "refuse", AWAY, times=2)

    result = submitted(store, plan_of(DATA))

    assert result.stages == 1
    assert len(fake.calls("sbatch")) == 3
    assert len(fake.elements()) == 1


def test_a_refused_job_is_one_error_and_the_next_try_works(store: Store, fake: FakeSlurm) -> None:
    fake.fault("sbatch", "refuse", "sbatch: error: invalid account or partition")

    with pytest.raises(SlurmError, match=r"^sbatch: .*invalid account or partition$"):
        submitted(store)

    assert fake.elements() == []
    assert submitted(store).stages == 4
    assert len(fake.elements()) == 4


def test_a_controller_that_stays_away_is_an_error_and_nothing_is_submitted(
    store: Store, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "CONTROLLER_WAIT_S", 0.0)
    fake.away()

    with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
        submitted(store)

    assert not store.root.exists()


def test_a_queue_that_is_not_seen_is_not_taken_for_an_empty_one(
    store: Store, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(store)
    monkeypatch.setattr(submit, "CONTROLLER_WAIT_S", 0.0)
    fake.fault("squeue", "refuse")

    with pytest.raises(SlurmError):
        submitted(store)

    assert len(fake.elements()) == 4


def test_an_element_held_after_a_failed_launch_is_released(store: Store, fake: FakeSlurm) -> None:
    submitted(store)
    held = element(store, DATA)
    fake.set(held, reason=HELD_AFTER_FAILED_LAUNCH)

    again = submitted(store)

    assert (again.released, again.queued, again.arrays) == ([held], 4, 0)
    assert fake.element(held).reason == "Priority"


def test_a_held_job_of_a_stage_that_is_done_is_released_for_what_waits_for_it(
    store: Store, fake: FakeSlurm
) -> None:
    submitted(store)
    held = element(store, DATA)
    finish(store, fake, DATA)
    fake.set(held, state="PENDING", reason=HELD_AFTER_FAILED_LAUNCH)

    again = submitted(store)

    assert (again.released, again.done, again.stages) == ([held], 1, 0)


def test_an_element_whose_first_copy_still_runs_is_not_released(
    store: Store, fake: FakeSlurm
) -> None:
    submitted(store)
    held = element(store, DATA)
    fake.set(held, reason=HELD_AFTER_FAILED_LAUNCH)
    leases.claim(store.stage(DATA.ref), DATA.execution, after=0)  # by this process, which lives

    assert submitted(store).released == []
    assert fake.element(held).reason == HELD_AFTER_FAILED_LAUNCH


# ---------------------------------------------------------------------- what a job asks for


def shape(
    kind: StageKind = StageKind.tune,
    execution: Mapping[str, Any] | None = None,
    stages: Mapping[str, StageJobConfig] | None = None,
    **cluster: Any,
) -> submit.JobShape:
    given = {"kind": "slurm", "gres": "gpu", "timeout_min": 600, **cluster}
    return job_shape(
        ClusterConfig(stages=dict(stages or {}), **given),
        kind,
        Execution(cluster="lab", **{"num_nodes": 2, "devices_per_node": 4, **(execution or {})}),
    )


def test_a_job_has_one_task_a_device() -> None:
    found = shape(execution={"cpus_per_rank": 6, "node_devices": 8}, memory_gb=100.0)

    assert (found.nodes, found.tasks_per_node, found.devices_per_node) == (2, 4, 4)
    assert (found.cpus_per_task, found.memory_gb, found.timeout_min) == (6, 100.0, 600)


def test_a_kinds_own_settings_count_before_the_clusters() -> None:
    own = StageJobConfig(memory_gb=0.0, timeout_min=30, partition="cpu", account="b", qos="q",
                         constraint="c")  # fmt: skip
    settings = {"memory_gb": 9.0, "partition": "gpu", "account": "a", "qos": "p", "constraint": "d"}

    found = shape(stages={"tune": own}, **settings)
    other = shape(stages={"data": own}, **settings)

    assert (found.memory_gb, found.timeout_min, found.partition) == (0.0, 30, "cpu")
    assert (found.account, found.qos, found.constraint) == ("b", "q", "c")
    assert (other.memory_gb, other.timeout_min, other.partition) == (9.0, 600, "gpu")


def test_a_stage_without_devices_asks_for_none() -> None:
    one_rank = {"num_nodes": 1, "devices_per_node": 1, "held_devices": 0}

    found = shape(StageKind.data, one_rank, {"data": StageJobConfig(devices=0)})

    assert (found.tasks_per_node, found.devices_per_node) == (1, 0)


def test_a_node_that_is_its_own_is_asked_for_whole() -> None:
    found = shape(execution={"held_devices": 16, "node_devices": 8}, exclusive=True)

    assert (found.tasks_per_node, found.devices_per_node, found.exclusive) == (4, 8, True)


@pytest.mark.parametrize(
    ("timeout_min", "lead", "warned"), [(600, None, 300), (600, 60, 60), (4, None, 120)]
)
def test_the_warning_comes_in_the_second_half_of_the_time(
    timeout_min: int, lead: int | None, warned: int
) -> None:
    found = shape(timeout_min=timeout_min, signal_lead_s=lead)

    assert found.signal_lead_s == warned


@pytest.mark.parametrize(
    ("lead_s", "warned"),
    [(0.0, 300), (250.0, 300), (301.0, 360), (1000.0, 1020), (90_000.0, 18_000)],
)
def test_the_warning_comes_as_early_as_earlier_attempts_needed(lead_s: float, warned: int) -> None:
    found = with_lead(shape(timeout_min=600, signal_lead_s=300), lead_s)

    assert found.signal_lead_s == warned  # whole minutes; half of 600 min at most


def test_the_longest_save_and_step_of_all_attempts_count(tmp_path: Path) -> None:
    stage = StageDir(tmp_path)
    for number, (save, step) in enumerate([(100.0, 5.0), (80.0, 30.0), (0.0, 0.0)], start=1):
        attempt = stage.attempt(number)
        attempt.path.mkdir(parents=True)
        if save:
            measured = Measured(longest_save_s=save, longest_step_s=step)
            write_json(attempt.measured_file, measured.to_json())
    (stage.attempt(3).path / "measured.json").write_text('{"torn', encoding="utf-8")

    assert needed_lead_s(stage) == 230.0  # 2 x 100 + 30


@pytest.mark.usefixtures("fake")
def test_a_stage_that_saved_slowly_before_is_submitted_with_an_earlier_warning(
    store: Store,
) -> None:
    slow = store.stage(DATA.ref).attempt(1)
    slow.path.mkdir(parents=True)
    write_json(slow.measured_file, Measured(longest_save_s=200.0, longest_step_s=1.0).to_json())

    submitted(store, plan_of(DATA))

    script = (job_dir(store, job(store, DATA).submission).path / "job.sh").read_text()
    assert "#SBATCH --signal=B:USR2@420" in script  # 401 s


def test_a_job_that_gets_in_while_the_queue_is_asked_is_not_submitted_twice(
    store: Store, fake: FakeSlurm
) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        start = leases.process_start(other.pid)
        submitted(store, plan_of(DATA))
        claim = job(store, DATA)
        owner = dataclasses.replace(leases.this_process(), pid=other.pid, process_start=start)
        write_json(
            store.stage(DATA.ref).path / "jobs" / "0001.json",
            dataclasses.replace(claim, submitter=owner).to_json(),
        )
        # When the queue is asked the job is not in it; when the answer comes, it is.
        job_file = job_dir(store, claim.submission).job_file
        hidden = [
            (job_file, job_file.with_suffix(".after")),
            (fake.folder / "state", fake.folder / "after"),
        ]
        for path, after in hidden:
            shutil.copy(path, after)
        job_file.unlink()
        fake.forget("1_0")
        squeue = fake.bin / "squeue"
        squeue.rename(fake.bin / "asked")
        squeue.write_text(
            f'#!/bin/sh\nsaid=$({fake.bin}/asked "$@")\n'
            + "".join(f"mv {after} {path}\n" for path, after in hidden)
            + f'mv {fake.bin}/asked {squeue}\nprintf %s "$said"\n'
        )
        squeue.chmod(0o755)

        result = submitted(store, plan_of(DATA))

        other.kill()
    assert (result.stages, result.queued) == (0, 1)


def test_commands_at_once_submit_each_stage_once(store: Store, fake: FakeSlurm) -> None:
    context = multiprocessing.get_context("fork")
    together = context.Barrier(3)
    results: multiprocessing.Queue[tuple[int, int]] = context.Queue()

    def command() -> None:
        together.wait()
        result = submitted(store)
        results.put((result.stages, result.queued))

    commands = [context.Process(target=command) for _ in range(3)]
    for process in commands:
        process.start()
    found = [results.get(timeout=60) for _ in commands]
    for process in commands:
        process.join()

    assert sum(stages for stages, _ in found) == 4
    assert len(fake.elements()) == 4
    names = elements(store)
    assert waits_for(fake)[names["join"]] == {names["left"], names["right"]}
    assert waits_for(fake)[names["left"]] == {names["data"]}


def test_only_what_a_budget_has_room_for_is_submitted(store: Store, fake: FakeSlurm) -> None:
    cheap, dear = priced(stage("cheap", after=[DATA]), 2), priced(stage("dear", after=[DATA]), 3)
    plan = held_to(
        plan_of(DATA, cheap, dear, cells={"cheap": [DATA, cheap], "dear": [DATA, dear]}), usd=4.0
    )

    part = admitted_part(plan, admit_study(store, plan))
    submitted(store, part)

    assert {ref.key for ref in submission(store, cheap).elements.values()} == {cheap.ref.key}
    assert StageJobs(store.stage(dear.ref)).newest() is None
    assert submitted_lines(plan, Submitted(), num_left_out=1)[1] == (
        "1 stages are left out: the budget has no room for their cells"
    )
    more = held_to(plan, usd=6.0)
    assert admitted_part(more, admit_study(store, more)) == more
    submitted(store, more)
    assert StageJobs(store.stage(dear.ref)).newest() is not None
    assert len(fake.calls("sbatch")) == 3
