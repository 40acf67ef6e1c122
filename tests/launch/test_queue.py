"""Stages are found in Slurm's queue by one call; that it is not seen says nothing about jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesweep.launch import slurm
from scalesweep.launch.jobs import StageJobs, job_dir
from scalesweep.launch.queue import QueueView, look
from scalesweep.rundir import Store
from tests.fakes.plans import plan_of
from tests.fakes.slurm import FakeSlurm
from tests.launch.test_submit import (
    DATA,
    DIAMOND,
    JOIN,
    LEFT,
    RIGHT,
    element,
    fake_cluster,
    finish,
    job,
    submission,
    submitted,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    yield from fake_cluster(tmp_path, monkeypatch)


def test_where_nothing_was_submitted_nothing_is_asked(store: Store, fake: FakeSlurm) -> None:
    view = look(DIAMOND, store, with_ended=True)

    assert view == QueueView()
    assert not view
    assert fake.calls("squeue") == fake.calls("scontrol") == fake.calls("sacct") == []


def test_all_stages_are_found_by_one_call(store: Store, fake: FakeSlurm) -> None:
    submitted(store)
    fake.run(element(store, DATA))
    before = len(fake.calls("squeue"))

    view = look(DIAMOND, store)

    assert view
    assert len(fake.calls("squeue")) == before + 1
    assert {ref: place.row.state for ref, place in view.places.items() if place.row} == {
        DATA.ref: "RUNNING",
        LEFT.ref: "PENDING",
        RIGHT.ref: "PENDING",
        JOIN.ref: "PENDING",
    }
    place = view.places[RIGHT.ref]
    assert (place.element, place.job) == (element(store, RIGHT), job(store, RIGHT))
    assert place.submission == submission(store, RIGHT)


def test_stages_that_were_never_submitted_have_no_place(store: Store) -> None:
    submitted(store, plan_of(DATA))

    assert look(DIAMOND, store).places.keys() == {DATA.ref}


def test_a_job_without_a_written_id_is_found_by_its_name(store: Store) -> None:
    submitted(store, plan_of(DATA))
    job_dir(store, job(store, DATA).submission).job_file.unlink()

    place = look(DIAMOND, store).places[DATA.ref]

    assert place.element == "1_0"


def test_a_stage_that_is_done_is_not_looked_up(store: Store, fake: FakeSlurm) -> None:
    submitted(store, plan_of(DATA))
    finish(store, fake, DATA)

    view = look(plan_of(DATA), store, with_ended=True)

    assert (view.places[DATA.ref].row, view.problem) == (None, "")
    assert (fake.calls("squeue"), fake.calls("sacct")) == ([], [])


def test_a_queue_that_is_not_seen_is_a_problem_in_words(store: Store, fake: FakeSlurm) -> None:
    submitted(store)
    fake.fault("squeue", "refuse")

    view = look(DIAMOND, store, with_ended=True)

    assert view.problem.startswith("squeue: ")
    assert "Unable to contact slurm controller" in view.problem
    assert {place.row for place in view.places.values()} == {None}
    assert {place.ended for place in view.places.values()} == {""}
    assert view.places[DATA.ref].element == element(store, DATA)


def test_jobs_of_another_cluster_are_not_looked_up_here(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(store)
    other = FakeSlurm(tmp_path / "other", cluster="other")
    monkeypatch.setenv("PATH", other.path)
    slurm.site.cache_clear()

    view = look(DIAMOND, store)

    assert (view.problem, other.calls("squeue")) == ("", [])
    assert {place.row for place in view.places.values()} == {None}


def test_how_a_job_ended_is_asked_only_where_it_is_wanted(store: Store, fake: FakeSlurm) -> None:
    submitted(store)
    fake.end(element(store, DATA), "NODE_FAIL")

    assert look(DIAMOND, store).places[DATA.ref].ended == ""
    assert fake.calls("sacct") == []
    places = look(DIAMOND, store, with_ended=True).places
    assert len(fake.calls("sacct")) == 1
    assert {ref: place.ended for ref, place in places.items()} == {
        DATA.ref: "NODE_FAIL",
        LEFT.ref: "CANCELLED",
        RIGHT.ref: "CANCELLED",
        JOIN.ref: "CANCELLED",
    }


def test_without_accounting_the_queue_is_all_that_is_known(store: Store, fake: FakeSlurm) -> None:
    submitted(store)
    fake.run(element(store, DATA))
    fake.fault("sacct", "refuse", "Slurm accounting storage is disabled")

    view = look(DIAMOND, store, with_ended=True)

    assert view.problem == ""
    place = view.places[DATA.ref]
    assert place.row is not None
    assert (place.row.state, place.ended) == ("RUNNING", "")


def test_a_damaged_record_of_one_stage_hides_no_other(store: Store) -> None:
    submitted(store)
    StageJobs(store.stage(LEFT.ref))
    (store.stage(LEFT.ref).path / "jobs" / "0001.json").write_text("{")

    view = look(DIAMOND, store)

    assert view.places.keys() == {DATA.ref, RIGHT.ref, JOIN.ref}
    assert all(place.row for place in view.places.values())


def test_a_damaged_submission_is_still_found_by_its_name(store: Store) -> None:
    submitted(store)
    path = job_dir(store, job(store, DATA).submission).path / "submission.json"
    path.write_text("{")

    place = look(DIAMOND, store).places[DATA.ref]

    assert place.submission is None
    assert place.element == "1_0"
