"""Whether a supervisor lives is seen by its process, else by its job; unseen is not dead."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesweep.launch import leases, slurm
from scalesweep.launch.leases import is_alive
from scalesweep.records import Execution, SlurmRun
from scalesweep.rundir import StageDir, write_json
from tests.fakes.slurm import FakeSlurm
from tests.launch.test_leases import dead_owner


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    made = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", made.path)
    monkeypatch.setattr(leases, "_slurm_run", None)
    slurm.site.cache_clear()
    yield made
    slurm.site.cache_clear()


def run_of(fake: FakeSlurm, element: str, **changed: object) -> SlurmRun:
    found = fake.element(element)
    run = SlurmRun(
        cluster="lab",
        job_id=found.job,
        array_job_id=found.array,
        array_index=found.index,
        name=found.name,
        restarts=found.restarts,
    )
    return dataclasses.replace(run, **changed)  # type: ignore[arg-type]


def far(run: SlurmRun) -> leases.Owner:
    """A supervisor on another node."""
    return leases.Owner(host="n7", boot_id="other", pid=1, process_start=1, slurm=run)


def near(owner: leases.Owner, run: SlurmRun) -> leases.Owner:
    return dataclasses.replace(owner, slurm=run)


def test_the_supervisor_of_a_job_that_runs_lives(fake: FakeSlurm) -> None:
    element = fake.add("a", 3, state="RUNNING")

    assert is_alive(far(run_of(fake, element))) is True


def test_the_same_job_in_a_later_run_is_another_supervisor(fake: FakeSlurm) -> None:
    element = fake.add("a", state="RUNNING", restarts=1)

    assert is_alive(far(run_of(fake, element, restarts=0))) is False
    assert is_alive(far(run_of(fake, element, restarts=1))) is True


def test_a_job_that_waits_again_has_no_supervisor(fake: FakeSlurm) -> None:
    element = fake.add("a", state="PENDING", restarts=1)

    assert is_alive(far(run_of(fake, element, restarts=0))) is False


@pytest.mark.parametrize("state", ["COMPLETING", "SUSPENDED"])
def test_processes_may_live_in_jobs_that_end_or_are_suspended(fake: FakeSlurm, state: str) -> None:
    element = fake.add("a", state=state)

    assert is_alive(far(run_of(fake, element))) is True


def test_a_job_that_is_gone_is_dead(fake: FakeSlurm) -> None:
    element = fake.add("a", state="RUNNING")
    run = run_of(fake, element)
    fake.end(element, "NODE_FAIL")

    assert is_alive(far(run)) is False
    fake.forget(element)
    assert is_alive(far(run)) is False


def test_another_element_of_the_array_that_runs_is_not_taken_for_it(fake: FakeSlurm) -> None:
    one = fake.add("a", 0, state="RUNNING")
    run = run_of(fake, one)
    fake.add("a", 1, state="RUNNING")
    fake.end(one)

    assert is_alive(far(run)) is False


@pytest.mark.parametrize("command", ["squeue", "scontrol"])
def test_without_an_answer_of_slurm_nothing_is_known(fake: FakeSlurm, command: str) -> None:
    element = fake.add("a", state="RUNNING")
    run = run_of(fake, element)
    slurm.site()
    fake.fault(command, "refuse")

    assert is_alive(far(run)) is None


def test_a_job_of_another_cluster_cannot_be_seen(fake: FakeSlurm) -> None:
    element = fake.add("a", state="RUNNING")

    assert is_alive(far(run_of(fake, element, cluster="elsewhere"))) is None


def test_where_slurm_is_not_installed_nothing_is_known(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    element = fake.add("a", state="RUNNING")
    run = run_of(fake, element)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert is_alive(far(run)) is None


def test_a_process_of_this_machine_is_believed_more_than_slurm(fake: FakeSlurm) -> None:
    element = fake.add("a", state="RUNNING")
    run = run_of(fake, element)

    assert is_alive(near(dead_owner(), run)) is False
    fake.away()
    assert is_alive(near(leases.this_process(), run)) is True


def test_a_run_of_our_own_job_before_this_one_is_over(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    element = fake.add("a", state="RUNNING", restarts=2)
    run = run_of(fake, element)
    monkeypatch.setattr(leases, "_slurm_run", run)
    fake.away()

    assert is_alive(leases.this_process()) is True
    assert is_alive(far(dataclasses.replace(run, restarts=1))) is False


def test_a_lease_keeps_the_run_of_its_job(fake: FakeSlurm, tmp_path: Path) -> None:
    owner = far(run_of(fake, fake.add("a", 3, restarts=1)))
    write_json(tmp_path / "lease.json", owner.to_json())

    assert leases.read_owner(tmp_path / "lease.json") == owner


def test_a_stage_is_held_as_long_as_its_job_is_not_known_to_be_gone(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    stage = StageDir(tmp_path / "stage")
    attempt = leases.claim(stage, Execution(cluster="lab"), after=0)
    assert attempt is not None
    element = fake.add("a", state="RUNNING")
    owner = far(run_of(fake, element))
    write_json(attempt.lease, owner.to_json())

    assert leases.holder(stage) == owner
    fake.fault("squeue", "refuse")
    assert leases.holder(stage) == owner
    fake.end(element, "CANCELLED")
    assert leases.holder(stage) is None
