"""A study's jobs are ended, but for those that another study's jobs wait for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesweep.launch.cancel import cancel, cancel_jobs
from scalesweep.launch.jobs import job_dir
from scalesweep.launch.slurm import SlurmError
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.rundir import Store, write_json
from tests.fakes.plans import plan_of, stage
from tests.fakes.slurm import FakeSlurm
from tests.launch.test_submit import (
    DATA,
    JOIN,
    LEFT,
    RIGHT,
    element,
    fake_cluster,
    finish,
    job,
    submitted,
)

MINE = plan_of(DATA, LEFT, RIGHT, JOIN, study="mine")
THEIRS = plan_of(DATA, LEFT, stage("other", after=[LEFT]), study="theirs")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    yield from fake_cluster(tmp_path, monkeypatch)


def launched(store: Store, plan: Plan) -> None:
    """Planned and submitted."""
    store.study(plan.study).mkdir(parents=True)
    write_json(store.study(plan.study) / "plan.json", plan.to_json())
    submitted(store, plan)


def is_marked(store: Store, planned: PlannedStage) -> bool:
    its = job(store, planned)
    return job_dir(store, its.submission).cancelled(its.index).exists()


def test_a_study_that_was_never_planned_has_no_jobs(store: Store, fake: FakeSlurm) -> None:
    assert cancel_jobs(store, "mine") == []
    assert fake.calls("squeue") == []


def test_jobs_that_wait_are_cancelled_and_those_that_run_are_told(
    store: Store, fake: FakeSlurm
) -> None:
    launched(store, MINE)
    finish(store, fake, DATA)
    fake.run(element(store, LEFT), element(store, RIGHT))

    lines = cancel_jobs(store, "mine")

    assert lines == [
        "1 jobs that waited: cancelled",
        "2 jobs that run: told to write a checkpoint and end",
    ]
    assert fake.calls("scancel") == [
        [element(store, JOIN)],
        ["--batch", "--signal=USR2", element(store, LEFT), element(store, RIGHT)],
    ]
    assert fake.states()[element(store, LEFT)] == "RUNNING"
    assert is_marked(store, JOIN)
    assert is_marked(store, LEFT)


def test_records_say_cancelled_before_slurm_is_told(store: Store, fake: FakeSlurm) -> None:
    launched(store, MINE)
    fake.fault("scancel", "refuse")

    with pytest.raises(SlurmError, match="Unable to contact"):
        cancel_jobs(store, "mine")

    assert all(is_marked(store, planned) for planned in MINE.stages)
    marker = job_dir(store, job(store, DATA).submission).cancelled(0)
    assert json.loads(marker.read_text())["by"]


def test_nothing_is_cancelled_where_the_queue_is_not_seen(store: Store, fake: FakeSlurm) -> None:
    launched(store, MINE)
    fake.fault("squeue", "refuse")

    with pytest.raises(SlurmError, match="Unable to contact"):
        cancel_jobs(store, "mine")

    assert not any(is_marked(store, planned) for planned in MINE.stages)
    assert set(fake.states().values()) == {"PENDING"}


def test_a_study_without_jobs_left_is_not_touched(store: Store, fake: FakeSlurm) -> None:
    launched(store, MINE)
    for planned in MINE.stages:
        finish(store, fake, planned)

    assert cancel_jobs(store, "mine") == []
    assert fake.calls("scancel") == []


def test_stages_that_another_studys_jobs_need_are_left_alone(store: Store, fake: FakeSlurm) -> None:
    launched(store, MINE)
    launched(store, THEIRS)
    theirs = element(store, THEIRS.stages[-1])

    lines = cancel_jobs(store, "mine")

    assert lines == [
        "2 jobs that waited: cancelled",
        "2 jobs: left alone, another study's jobs wait for them",
    ]
    assert fake.states() == {
        element(store, DATA): "PENDING",
        element(store, LEFT): "PENDING",
        element(store, RIGHT): "CANCELLED",
        element(store, JOIN): "CANCELLED",
        theirs: "PENDING",
    }
    assert not is_marked(store, LEFT)  # of the same array as right
    assert is_marked(store, RIGHT)
    assert is_marked(store, JOIN)


def test_an_element_that_runs_beside_one_that_is_needed_is_told_alone(
    store: Store, fake: FakeSlurm
) -> None:
    launched(store, MINE)
    launched(store, THEIRS)
    finish(store, fake, DATA)
    fake.run(element(store, LEFT), element(store, RIGHT))

    cancel_jobs(store, "mine")

    assert fake.calls("scancel")[-1] == ["--batch", "--signal=USR2", element(store, RIGHT)]
    assert is_marked(store, RIGHT)
    assert not is_marked(store, LEFT)


def test_another_studys_jobs_are_not_ours_to_cancel(store: Store, fake: FakeSlurm) -> None:
    launched(store, MINE)
    launched(store, THEIRS)

    lines = cancel_jobs(store, "theirs")

    assert lines == ["1 jobs that waited: cancelled"]
    assert fake.states()[element(store, DATA)] == "PENDING"
    assert fake.states()[element(store, LEFT)] == "PENDING"


def test_a_study_without_jobs_of_its_own_needs_nothing(store: Store, fake: FakeSlurm) -> None:
    launched(store, MINE)
    only_planned = plan_of(DATA, study="only_planned")
    store.study("only_planned").mkdir(parents=True)
    write_json(store.study("only_planned") / "plan.json", only_planned.to_json())

    assert cancel_jobs(store, "mine") == ["4 jobs that waited: cancelled"]
    assert set(fake.states().values()) == {"CANCELLED"}


def test_cancelled_jobs_are_submitted_anew_by_the_same_line(store: Store, fake: FakeSlurm) -> None:
    launched(store, MINE)
    cancel_jobs(store, "mine")

    result = submitted(store, MINE)

    assert result.stages == 4
    assert list(fake.states().values()).count("PENDING") == 4
    assert not is_marked(store, DATA)


def test_cancel_says_what_became_of_jobs_before_commands(store: Store) -> None:
    launched(store, MINE)

    assert cancel(store, "mine") == ["4 jobs that waited: cancelled"]
