"""Records of submissions come back as they were written, and a stage is claimed once."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections import Counter
from pathlib import Path
from threading import Barrier, Thread

import pytest

from scalesweep.errors import StoreError
from scalesweep.launch import leases
from scalesweep.launch.jobs import (
    JobDir,
    StageJob,
    StageJobs,
    Submission,
    job_dir,
    new_name,
    write_submission,
)
from scalesweep.records import Execution, SlurmRun, StageKind, StageRef
from scalesweep.rundir import StageDir, Store

EXECUTION = Execution(cluster="lab", num_nodes=2, devices_per_node=8, paths={"data": "/data"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def stage(store: Store) -> StageDir:
    return store.stage(StageRef(kind=StageKind.tune, key="0123456789abcdef"))


def submission(**fields: object) -> Submission:
    given: dict[str, object] = {
        "name": "ablation-tune-0123456789",
        "study": "ablation",
        "user": "me",
        "host": "login1",
        "cluster": "lab",
        "submitted_at": 1234.5,
        "elements": {
            0: StageRef(kind=StageKind.tune, key="a"),
            7: StageRef(kind=StageKind.generate, key="b"),
        },
        "silent_s": 33,
    }
    return Submission(**{**given, **fields})  # type: ignore[arg-type]


def stage_job(name: str = "ablation-tune-0123456789") -> StageJob:
    return StageJob(submission=name, index=3, execution=EXECUTION, submitter=leases.this_process())


def test_a_submission_is_read_as_it_was_written(store: Store) -> None:
    folder = write_submission(store, submission())

    assert folder == job_dir(store, "ablation-tune-0123456789")
    assert folder.submission() == submission()


def test_the_job_id_is_known_once_sbatch_has_answered(store: Store) -> None:
    folder = write_submission(store, submission())

    folder.write_job_id(12, "lab")

    assert folder.submission() == submission(job_id=12)


def test_a_submission_is_written_once(store: Store) -> None:
    write_submission(store, submission())

    with pytest.raises(FileExistsError):
        write_submission(store, submission(study="other"))


def test_a_submission_that_never_was_is_not_found(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        job_dir(store, "never").submission()


def test_a_record_of_a_newer_version_is_refused_with_a_way_out(store: Store) -> None:
    folder = write_submission(store, submission())
    path = folder.path / "submission.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))

    with pytest.raises(StoreError, match="use the version that wrote this store"):
        folder.submission()


@pytest.mark.parametrize("file", ["submission.json", "job.json"])
def test_a_torn_record_of_a_submission_is_an_error_with_a_way_out(store: Store, file: str) -> None:
    folder = write_submission(store, submission())
    folder.write_job_id(12, "lab")
    (folder.path / file).write_text('{"schema": 1, ')

    with pytest.raises(StoreError, match=rf"{file} is damaged.*; delete it and run the line again"):
        folder.submission()


def test_names_of_jobs_are_unique_and_say_whose_they_are() -> None:
    names = {new_name("a_study_with_a_name_that_is_long", "tune") for _ in range(1000)}

    assert len(names) == 1000
    assert all(name.startswith("a_study_with_a_name_that-tune-") for name in names)


# ---------------------------------------------------------------------- stages


def test_a_stage_that_was_never_submitted_has_no_job(stage: StageDir) -> None:
    jobs = StageJobs(stage)

    assert jobs.newest() is None
    assert jobs.newest_number() == 0
    assert list(jobs.all()) == []


def test_a_claim_is_read_as_it_was_written(stage: StageDir) -> None:
    run = SlurmRun(cluster="lab", job_id=5, array_job_id=3, array_index=2, name="x", restarts=1)
    owner = dataclasses.replace(leases.this_process(), slurm=run)
    job = dataclasses.replace(stage_job(), submitter=owner)

    assert StageJobs(stage).claim(job, after=0)

    assert StageJobs(stage).newest() == dataclasses.replace(job, number=1)


def test_later_claims_follow_and_the_newest_counts(stage: StageDir) -> None:
    jobs = StageJobs(stage)
    for number in range(11):
        assert jobs.claim(stage_job(f"job{number}"), after=number)

    newest = jobs.newest()
    assert newest is not None
    assert (newest.submission, newest.number) == ("job10", 11)
    assert [job.submission for job in jobs.all()] == [f"job{i}" for i in range(11)]


def test_a_claim_fails_where_another_command_was_faster(stage: StageDir) -> None:
    jobs = StageJobs(stage)
    assert jobs.claim(stage_job("first"), after=0)

    assert not jobs.claim(stage_job("second"), after=0)

    assert [path.name for path in (stage.path / "jobs").iterdir()] == ["0001.json"]
    assert [job.submission for job in jobs.all()] == ["first"]


def test_files_that_are_no_claims_are_passed_over(stage: StageDir) -> None:
    jobs = StageJobs(stage)
    jobs.claim(stage_job(), after=0)
    for name in (".1-abc", "0002.json.swp", "notes.txt", "9.json"):
        (stage.path / "jobs" / name).touch()

    assert jobs.newest_number() == 1


DAMAGED = {
    "torn": '{"schema": 1, "submi',
    "empty": "",
    "a list": "[]",
    "without an owner": '{"schema": 1, "submission": "x", "index": 0}',
    "without an execution": (
        '{"submission": "x", "index": 0, "submitter": '
        '{"host": "h", "boot_id": "b", "pid": 1, "process_start": 2}}'
    ),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_claim_is_an_error_that_names_the_file(stage: StageDir, text: str) -> None:
    StageJobs(stage).claim(stage_job(), after=0)
    path = stage.path / "jobs" / "0001.json"
    path.write_text(text)

    with pytest.raises(StoreError, match=r"0001\.json is damaged"):
        StageJobs(stage).newest()


def _claim_in_turn(folder: Path, rounds: int, won: multiprocessing.SimpleQueue[int]) -> None:
    for number in range(rounds):
        if StageJobs(StageDir(folder)).claim(stage_job(), after=number):
            won.put(number + 1)


def test_exactly_one_of_many_processes_gets_each_number(stage: StageDir) -> None:
    context = multiprocessing.get_context("fork")
    won: multiprocessing.SimpleQueue[int] = context.SimpleQueue()
    racers = [context.Process(target=_claim_in_turn, args=(stage.path, 20, won)) for _ in range(6)]
    for racer in racers:
        racer.start()
    numbers = [won.get() for _ in range(20)]
    for racer in racers:
        racer.join()

    assert won.empty()
    assert Counter(numbers) == Counter(range(1, 21))


def test_exactly_one_of_many_threads_gets_a_stage(stage: StageDir) -> None:
    together = Barrier(8)
    won: list[bool] = []

    def race(number: int) -> None:
        together.wait()
        won.append(StageJobs(stage).claim(stage_job(f"job{number}"), after=0))

    threads = [Thread(target=race, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Counter(won) == {True: 1, False: 7}
    assert StageJobs(stage).newest_number() == 1


def test_the_folder_of_a_submission_lies_below_the_store(store: Store) -> None:
    folder = job_dir(store, "x")

    assert folder == JobDir(store.root / "jobs" / "x")
    assert folder.cancelled(3).parent == folder.job_file.parent == folder.path
    assert folder.cancelled(3) != folder.cancelled(4)


def test_a_submission_without_its_fields_is_an_error_with_a_way_out(store: Store) -> None:
    folder = job_dir(store, "x")
    folder.path.mkdir(parents=True)
    (folder.path / "submission.json").write_text('{"schema": 1}')

    with pytest.raises(StoreError, match="damaged"):
        folder.submission()
