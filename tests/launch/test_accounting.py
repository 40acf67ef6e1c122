"""What is asked of sacct, and what is kept of its answers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesweep.launch import slurm
from scalesweep.launch.accounting import Source, merged, refresh
from scalesweep.launch.jobs import Submission, write_submission
from scalesweep.plan.graph import PlannedStage
from scalesweep.records import SlurmRun
from scalesweep.rundir import Store, write_json
from scalesweep.slurm_records import JobRow, accounting_file, kept_accounting
from tests.fakes.plans import plan_of, stage
from tests.fakes.slurm_accounting import FakeSacct

ONE, TWO = stage("one"), stage("two")
PLAN = plan_of(ONE, TWO)
NAME = "fake-tune-1"
DONE = (
    "12_0|13|fake-tune-1|lab|COMPLETED|60|cpu=1,gres/gpu=2,node=1|1|1|1000|1000|1010|1070|0:0\n"
    "12_1|12|fake-tune-1|lab|COMPLETED|30|cpu=1,gres/gpu=2,node=1|1|1|1000|1000|1010|1040|0:0\n"
)
REQUEUED = (
    "12_0|13|fake-tune-1|lab|REQUEUED|60|cpu=1,gres/gpu=2,node=1|1|1|1000|1000|1010|1070|0:0\n"
)
WAITS = "12_0|13|fake-tune-1|lab|PENDING|0||1|1|1070|1080|Unknown|Unknown|0:0\n"
RUNS = "12_0|13|fake-tune-1|lab|RUNNING|5|cpu=1,gres/gpu=2,node=1|1|1|1070|1080|1085|Unknown|0:0\n"
AGAIN = "12_0|13|fake-tune-1|lab|FAILED|45|cpu=1,gres/gpu=2,node=1|1|1|1070|1080|1085|1130|1:0\n"
OTHER = DONE.splitlines()[1] + "\n"


@pytest.fixture
def fake_sacct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSacct]:
    fake = FakeSacct(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(fake.folder), prepend=os.pathsep)
    slurm.site.cache_clear()
    yield fake
    slurm.site.cache_clear()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two stages that one job array, 12, was to run."""
    store = Store(tmp_path / "store")
    submit(store)
    return store


def submit(
    store: Store, name: str = NAME, *, cluster: str = "lab", job_id: int | None = 12
) -> None:
    submission = Submission(
        name=name,
        study="fake",
        user="me",
        host="login",
        cluster=cluster,
        submitted_at=1000.0,
        elements={0: ONE.spec.ref, 1: TWO.spec.ref},
    )
    folder = write_submission(store, submission)
    if job_id is not None:
        folder.write_job_id(job_id, cluster)
    for index, planned in enumerate((ONE, TWO)):
        jobs = store.stage(planned.spec.ref).path / "jobs"
        jobs.mkdir(parents=True, exist_ok=True)
        write_json(
            jobs / f"{len(list(jobs.iterdir())) + 1:04d}.json",
            {
                "schema": 1,
                "submission": name,
                "index": index,
                "execution": planned.execution.to_json(),
            },
        )


def attempt(store: Store, planned: PlannedStage, run: SlurmRun) -> None:
    folder = store.stage(planned.spec.ref).attempt(1)
    folder.path.mkdir(parents=True)
    write_json(folder.lease, {"schema": 1, "slurm": dataclasses.asdict(run)})


def rows(store: Store, name: str = NAME) -> list[tuple[str, str, int]]:
    kept = kept_accounting(store, name)
    assert kept is not None
    return [(row.job, row.state, row.elapsed_s) for row in kept.rows]


def test_a_study_that_slurm_never_ran_asks_nothing(tmp_path: Path, fake_sacct: FakeSacct) -> None:
    state = refresh(Store(tmp_path / "store"), PLAN)

    assert state.source is Source.journal
    assert not fake_sacct.calls()
    assert not (tmp_path / "store").exists()


def test_rows_are_kept_beside_the_submission(store: Store, fake_sacct: FakeSacct) -> None:
    fake_sacct.answer(DONE)

    state = refresh(store, PLAN)

    assert state.source is Source.sacct
    assert rows(store) == [("12_1", "COMPLETED", 30), ("12_0", "COMPLETED", 60)]


def test_jobs_that_ended_are_not_asked_for_again(store: Store, fake_sacct: FakeSacct) -> None:
    fake_sacct.answer(DONE)
    refresh(store, PLAN)

    state = refresh(store, PLAN)

    assert state.source is Source.kept
    assert len(fake_sacct.calls()) == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OTHER + RUNS, id="runs"),
        pytest.param(OTHER + REQUEUED, id="may run again"),
        pytest.param(OTHER + REQUEUED + WAITS, id="waits"),
        pytest.param(OTHER, id="an element has no row"),
        pytest.param(DONE.replace("1070", "Unknown"), id="its end is not recorded yet"),
    ],
)
def test_jobs_that_go_on_are_asked_for_again(
    store: Store, fake_sacct: FakeSacct, answer: str
) -> None:
    fake_sacct.answer(answer)
    refresh(store, PLAN)

    refresh(store, PLAN)

    assert len(fake_sacct.calls()) == 2


def test_an_attempt_of_a_run_without_a_row_is_asked_for(
    store: Store, fake_sacct: FakeSacct
) -> None:
    run = SlurmRun(cluster="lab", job_id=13, array_job_id=12, array_index=0, name=NAME, restarts=1)
    attempt(store, ONE, run)
    fake_sacct.answer(DONE)
    refresh(store, PLAN)

    refresh(store, PLAN)

    assert len(fake_sacct.calls()) == 2


def test_elements_cancelled_before_they_ran_are_settled(
    store: Store, fake_sacct: FakeSacct
) -> None:
    fake_sacct.answer("12_[0-1]|12|fake-tune-1|lab|CANCELLED by 0|0||1|1|1000|1000|None|1070|0:0\n")
    refresh(store, PLAN)

    assert refresh(store, PLAN).source is Source.kept


def test_all_submissions_are_one_call(store: Store, fake_sacct: FakeSacct) -> None:
    submit(store, "fake-tune-2", job_id=20)

    refresh(store, PLAN)

    (call,) = fake_sacct.calls()
    assert "-j 12,20" in call


def test_rows_of_another_job_with_the_same_id_do_not_count(
    store: Store, fake_sacct: FakeSacct
) -> None:
    fake_sacct.answer(DONE + DONE.replace("fake-tune-1", "somebody-else"))

    refresh(store, PLAN)

    assert len(rows(store)) == 2


def test_rows_of_another_cluster_do_not_count(store: Store, fake_sacct: FakeSacct) -> None:
    fake_sacct.answer(DONE.replace("|lab|", "|other|"))

    refresh(store, PLAN)

    assert rows(store) == []


def test_jobs_of_another_cluster_are_not_asked_for(tmp_path: Path, fake_sacct: FakeSacct) -> None:
    store = Store(tmp_path / "store")
    submit(store, cluster="far")

    state = refresh(store, PLAN)

    assert state.source is Source.journal
    assert state.reason == "this is lab, and the jobs are on other clusters"
    assert not fake_sacct.calls()
    kept = kept_accounting(store, NAME)
    assert kept is not None
    assert kept.problem == "far is not reached from here"


def test_a_submitter_that_lost_the_job_id_is_known_by_its_attempts(
    tmp_path: Path, fake_sacct: FakeSacct
) -> None:
    store = Store(tmp_path / "store")
    submit(store, job_id=None)
    attempt(
        store,
        ONE,
        SlurmRun(cluster="lab", job_id=13, array_job_id=12, array_index=0, name=NAME),
    )
    fake_sacct.answer(DONE)

    assert refresh(store, PLAN).source is Source.sacct
    assert len(rows(store)) == 2


def test_without_accounting_the_report_is_told_why(store: Store, fake_sacct: FakeSacct) -> None:
    fake_sacct.refuse("Slurm accounting storage is disabled")

    state = refresh(store, PLAN)

    assert state.source is Source.journal
    assert state.reason == "Slurm accounting storage is disabled"
    kept = kept_accounting(store, NAME)
    assert kept is not None
    assert kept.problem == state.reason


def test_kept_rows_stay_while_the_database_is_away(store: Store, fake_sacct: FakeSacct) -> None:
    fake_sacct.answer(OTHER + REQUEUED + WAITS)
    refresh(store, PLAN)
    fake_sacct.refuse("Problem talking to the database: Connection refused")

    state = refresh(store, PLAN)

    assert (state.source, state.reason) == (Source.kept, "slurmdbd refuses connections")
    assert len(rows(store)) == 3
    fake_sacct.answer(OTHER + REQUEUED + AGAIN)
    refresh(store, PLAN)
    kept = kept_accounting(store, NAME)
    assert kept is not None
    assert kept.problem == ""


def test_a_run_is_replaced_by_its_end_and_a_wait_by_its_run(
    store: Store, fake_sacct: FakeSacct
) -> None:
    for answer in (REQUEUED + WAITS, REQUEUED + RUNS, REQUEUED + AGAIN):
        fake_sacct.answer(OTHER + answer)
        refresh(store, PLAN)

    assert rows(store) == [
        ("12_1", "COMPLETED", 30),
        ("12_0", "REQUEUED", 60),
        ("12_0", "FAILED", 45),
    ]


def test_runs_that_slurm_forgot_stay(store: Store, fake_sacct: FakeSacct) -> None:
    fake_sacct.answer(REQUEUED + RUNS)
    refresh(store, PLAN)
    fake_sacct.answer(AGAIN)

    refresh(store, PLAN)

    assert rows(store) == [("12_0", "REQUEUED", 60), ("12_0", "FAILED", 45)]


def test_a_damaged_file_is_made_again(store: Store, fake_sacct: FakeSacct) -> None:
    accounting_file(store, NAME).write_text("{", encoding="utf-8")
    fake_sacct.answer(DONE)

    refresh(store, PLAN)

    assert len(rows(store)) == 2


def test_an_answer_that_says_nothing_new_writes_nothing(
    store: Store, fake_sacct: FakeSacct
) -> None:
    fake_sacct.answer(OTHER + REQUEUED)
    refresh(store, PLAN)
    before = accounting_file(store, NAME).stat().st_ino

    refresh(store, PLAN)

    assert accounting_file(store, NAME).stat().st_ino == before


def test_a_damaged_submission_costs_its_account_not_the_report(
    store: Store, fake_sacct: FakeSacct
) -> None:
    (store.root / "jobs" / NAME / "submission.json").write_text("[]", encoding="utf-8")

    assert refresh(store, PLAN).source is Source.journal
    assert not fake_sacct.calls()


def test_without_a_controller_sacct_is_asked_all_the_same(
    store: Store, fake_sacct: FakeSacct
) -> None:
    (fake_sacct.folder / "scontrol").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    fake_sacct.answer(DONE)

    assert refresh(store, PLAN).source is Source.sacct
    assert len(rows(store)) == 2


def test_merging_twice_changes_nothing(store: Store, fake_sacct: FakeSacct) -> None:
    fake_sacct.answer(OTHER + REQUEUED + RUNS)
    refresh(store, PLAN)
    kept = kept_accounting(store, NAME)
    assert kept is not None
    all_rows: list[JobRow] = list(kept.rows)

    assert merged(all_rows, all_rows) == all_rows
    assert merged([], all_rows) == all_rows
    assert merged(all_rows, []) == all_rows
