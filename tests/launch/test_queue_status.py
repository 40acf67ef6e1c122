"""Where stages stand on a cluster: by their files, put together with what Slurm says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesweep.launch import slurm
from scalesweep.launch.queue import look
from scalesweep.launch.slurm import HELD_AFTER_FAILED_LAUNCH
from scalesweep.launch.status import HELD, ON_LOGIN, print_status, status_json, study_status
from scalesweep.plan.graph import PlannedStage
from scalesweep.records import Outcome, StageKind
from scalesweep.rundir import Store
from tests.fakes.plans import plan_of, stage
from tests.fakes.slurm import FakeSlurm
from tests.launch.test_submit import (
    begin,
    close,
    element,
    fake_cluster,
    finish,
    make,
    submitted,
)

DATA = stage("data", kind=StageKind.data)
TUNE = stage("tune", after=[DATA])
_JUDGE = stage("judge", kind=StageKind.judge, after=[TUNE])
JUDGE = dataclasses.replace(_JUDGE, execution=dataclasses.replace(_JUDGE.execution, on_login=True))
PLAN = plan_of(DATA, TUNE, JUDGE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    yield from fake_cluster(tmp_path, monkeypatch)


def state(store: Store, planned: PlannedStage = DATA) -> tuple[str, str]:
    status = study_status(PLAN, store, look(PLAN, store, with_ended=True))[planned.ref]
    return status.state, status.detail


def test_a_job_that_waits_is_queued_with_slurms_reason(store: Store, fake: FakeSlurm) -> None:
    submitted(store, PLAN)
    fake.set(element(store, DATA), reason="Resources")

    assert state(store) == ("queued", "Resources")
    assert state(store, TUNE) == ("queued", "Dependency")
    assert state(store, JUDGE) == ("waiting", "")


def test_the_job_of_a_stage_is_named(store: Store) -> None:
    submitted(store, PLAN)

    status = study_status(PLAN, store, look(PLAN, store))

    assert status[TUNE.ref].job == element(store, TUNE)


def test_a_job_that_begins_runs_before_its_stage_says_so(store: Store, fake: FakeSlurm) -> None:
    submitted(store, PLAN)
    fake.set(element(store, DATA), state="RUNNING", run_time="0:07")

    assert state(store) == ("running", "running for 0:07")


def test_a_running_stage_says_in_which_job_and_where(store: Store, fake: FakeSlurm) -> None:
    submitted(store, PLAN)
    begin(store, fake, DATA)

    assert state(store) == ("running", f"starts (job {element(store, DATA)} on n7)")


def test_a_stage_whose_job_is_gone_was_killed(store: Store, fake: FakeSlurm) -> None:
    submitted(store, PLAN)
    begin(store, fake, DATA)
    fake.forget(element(store, DATA))

    assert state(store) == ("killed", "its job is gone; type the line again to continue")


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("NODE_FAIL", "a node failed; type the line again to continue"),
        ("TIMEOUT", "its job ran into the time limit; type the line again to continue"),
        ("CANCELLED", "its job was cancelled; type the line again to continue"),
    ],
)
def test_a_stage_whose_job_ended_under_it_says_how(
    store: Store, fake: FakeSlurm, end: str, said: str
) -> None:
    submitted(store, PLAN)
    begin(store, fake, DATA)
    fake.end(element(store, DATA), end)

    assert state(store) == ("killed", said)


def test_a_job_cancelled_before_it_began_leaves_a_stage_that_waits(
    store: Store, fake: FakeSlurm
) -> None:
    submitted(store, PLAN)
    fake.end(element(store, DATA), "CANCELLED")

    said = "its job was cancelled before it began; type the line again"
    assert state(store) == ("waiting", said)
    assert state(store, TUNE) == ("waiting", said)


def test_a_job_that_ended_before_its_supervisor_could_speak_failed(
    store: Store, fake: FakeSlurm
) -> None:
    submitted(store, PLAN)
    fake.end(element(store, DATA), "FAILED")

    assert state(store) == ("failed", "its job ended before it could say why; see `logs`")


def test_a_failed_stage_keeps_its_cause_and_blocks_what_needs_it(
    store: Store, fake: FakeSlurm
) -> None:
    submitted(store, PLAN)
    close(begin(store, fake, DATA), Outcome.failed, "no image 3", "data")
    fake.end(element(store, DATA), "FAILED")

    assert state(store) == ("failed", "no image 3")
    assert state(store, TUNE) == ("blocked", "needs data")


def test_a_requeued_stage_waits_and_says_what_came_before(store: Store, fake: FakeSlurm) -> None:
    submitted(store, PLAN)
    close(begin(store, fake, DATA), Outcome.interrupted, "the time limit came near", "time_limit")
    fake.set(element(store, DATA), state="PENDING", reason="BeginTime", restarts=1)

    assert state(store) == ("queued", "BeginTime; before: the time limit came near")


def test_a_job_that_slurm_holds_says_what_releases_it(store: Store, fake: FakeSlurm) -> None:
    submitted(store, PLAN)
    fake.set(element(store, DATA), reason=HELD_AFTER_FAILED_LAUNCH)

    assert state(store) == ("held", HELD)


def test_a_judge_stage_waits_for_the_login_node_once_its_inputs_are_done(
    store: Store, fake: FakeSlurm
) -> None:
    submitted(store, PLAN)
    finish(store, fake, DATA)
    assert state(store, JUDGE) == ("waiting", "")
    finish(store, fake, TUNE)

    assert state(store, JUDGE) == ("login", ON_LOGIN)


def test_a_queue_that_is_not_seen_takes_no_stage_for_dead(store: Store, fake: FakeSlurm) -> None:
    submitted(store, PLAN)
    begin(store, fake, DATA)
    fake.forget(element(store, DATA))
    fake.away()

    found, detail = state(store)

    assert found == "running"
    assert detail.startswith("starts (job 1_0 on n7) (Slurm: s")
    assert state(store, TUNE)[0] == "waiting"


def test_a_stage_that_is_done_is_done_whatever_slurm_says(store: Store, fake: FakeSlurm) -> None:
    submitted(store, PLAN)
    make(store, DATA)
    fake.set(element(store, DATA), state="COMPLETING")

    assert state(store) == ("done", "")


def test_status_counts_and_prints_what_waits_in_one_line(
    store: Store, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(store, PLAN)
    found = status_json(PLAN, store)
    assert found["totals"] == {"queued": 2, "waiting": 1}
    assert found["cells"] == [{"name": "all", "state": "queued"}]
    assert "slurm_problem" not in found

    print_status(PLAN, store)

    assert "queued: 1 Priority, 1 Dependency\n" in capsys.readouterr().out
    fake.fault("squeue", "refuse", times=2)
    print_status(PLAN, store)
    assert "Slurm is not seen: squeue: " in capsys.readouterr().out
    assert "Unable to contact" in status_json(PLAN, store)["slurm_problem"]


def test_a_stage_in_a_job_of_another_cluster_is_not_taken_for_dead(
    store: Store, fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(store, PLAN)
    begin(store, fake, PLAN.stages[0])
    other = FakeSlurm(tmp_path / "other", cluster="other")
    monkeypatch.setenv("PATH", other.path)
    slurm.site.cache_clear()

    assert state(store)[0] == "running"
