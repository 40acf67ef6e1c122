"""Logs are found by cell and kind of stage: what the supervisor printed, then what ranks did."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from scalesweep.errors import ConfigError
from scalesweep.launch.jobs import job_dir
from scalesweep.launch.logs import cell_logs, find_cell, followed, last_lines
from scalesweep.rundir import Store
from tests.fakes.plans import plan_of, stage
from tests.fakes.slurm import FakeSlurm
from tests.launch.test_submit import begin, element, fake_cluster, job, submitted

SHARED = stage("shared")
SMALL = stage("small", after=[SHARED])
LARGE = stage("large", after=[SHARED])
PLAN = plan_of(
    SHARED,
    SMALL,
    LARGE,
    cells={"mini_s-32px": [SHARED, SMALL], "mini_m-32px": [SHARED, LARGE], "2": [SHARED]},
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    yield from fake_cluster(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("1", "mini_s-32px"),
        ("2", "mini_m-32px"),
        ("mini_s-32px", "mini_s-32px"),
        ("_m", "mini_m-32px"),
    ],
)
def test_a_cell_is_found_by_number_name_or_part_of_it(word: str, name: str) -> None:
    assert find_cell(PLAN, word).name == name


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("32px", "several cells have it in their names.*one of mini_s-32px, mini_m-32px$"),
        ("huge", "no such cell.*one of mini_s-32px, mini_m-32px, 2$"),
        ("7", "no such cell"),
        ("0", "no such cell"),
    ],
)
def test_a_word_for_no_cell_or_several_is_refused_with_names(word: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        find_cell(PLAN, word)


def test_a_kind_that_there_is_not_is_refused_with_those_that_there_are(store: Store) -> None:
    with pytest.raises(ConfigError, match="--stage=train: choose one of data, base, align, tune"):
        cell_logs(PLAN, store, PLAN.cells[0], kind="train")


def test_a_cell_that_never_ran_has_no_logs(store: Store) -> None:
    assert cell_logs(PLAN, store, PLAN.cells[0], kind=None) == []


def test_logs_come_in_the_order_of_stages_with_the_supervisors_first(
    store: Store, fake: FakeSlurm
) -> None:
    submitted(store, PLAN)
    for planned in (SHARED, SMALL, LARGE):
        begin(store, fake, planned).log.write_text("step 1\n")
    for planned in (SHARED, SMALL):
        folder = job_dir(store, job(store, planned).submission).path
        (folder / f"{element(store, planned)}_0_log.out").write_text("attempt 1\n")

    found = cell_logs(PLAN, store, PLAN.cells[0], kind=None)

    assert [log.title for log in found] == [
        f"shared: job {element(store, SHARED)}",
        "shared: attempt 1",
        f"small: job {element(store, SMALL)}",
        "small: attempt 1",
    ]
    assert [log.path.read_text() for log in found] == ["attempt 1\n", "step 1\n"] * 2


def test_logs_of_one_kind_are_those_of_its_stages(store: Store, fake: FakeSlurm) -> None:
    submitted(store, PLAN)
    begin(store, fake, SMALL).log.touch()

    assert cell_logs(PLAN, store, PLAN.cells[0], kind="judge") == []
    assert len(cell_logs(PLAN, store, PLAN.cells[0], kind="tune")) == 1


@pytest.mark.usefixtures("fake")
def test_a_job_that_printed_nothing_yet_has_no_log(store: Store) -> None:
    submitted(store, PLAN)

    assert cell_logs(PLAN, store, PLAN.cells[0], kind=None) == []


@pytest.mark.usefixtures("fake")
def test_a_damaged_record_of_a_job_hides_no_other_log(store: Store) -> None:
    submitted(store, PLAN)
    (job_dir(store, job(store, SMALL).submission).path / "submission.json").write_text("{")
    folder = job_dir(store, job(store, SHARED).submission).path
    (folder / f"{element(store, SHARED)}_0_log.out").touch()

    assert len(cell_logs(PLAN, store, PLAN.cells[0], kind=None)) == 1


def test_the_last_lines_of_a_log_are_read_even_where_it_holds_no_text(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\n\xff\xfe three\nfour")

    assert last_lines(log, 2) == ["\ufffd\ufffd three\n", "four"]
    assert len(last_lines(log, 99)) == 4


def test_following_gives_what_is_appended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    todo = ["one\n", "", "two\nthree"]

    def write(_: float) -> None:
        with log.open("a") as file:
            file.write(todo.pop(0))

    assert list(islice(followed(log, sleep=write), 2)) == ["one\n", "two\nthree"]
