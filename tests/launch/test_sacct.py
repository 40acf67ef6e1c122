"""Rows of sacct, as Slurm 22.05 printed them (golden/sacct.txt), and what it cannot answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scalesweep.launch import sacct
from scalesweep.launch.sacct import AccountingUnavailable, parse_rows, query
from scalesweep.slurm_records import JobRow
from tests.fakes.slurm_accounting import FakeSacct

CAPTURED = (Path(__file__).with_name("golden") / "sacct.txt").read_text(encoding="utf-8")
ROWS = parse_rows(CAPTURED)


@pytest.fixture
def fake_sacct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSacct:
    fake = FakeSacct(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(fake.folder), prepend=os.pathsep)
    return fake


def of(job: str) -> list[JobRow]:
    return [row for row in ROWS if row.job == job]


def test_a_row_of_an_array_element() -> None:
    assert of("9_0") == [
        JobRow(
            job="9_0",
            job_id=9,
            name="acct-two-1",
            cluster="lab",
            state="COMPLETED",
            elapsed_s=6,
            gpus=16,  # 2 nodes x 8
            nodes=2,
            cpus=2,
            submit=1795549752,
            eligible=1795549753,
            start=1795549753,
            end=1795549759,
            exit_code="0:0",
            started=True,
        )
    ]


def test_every_line_is_a_row() -> None:
    assert len(ROWS) == len(CAPTURED.splitlines()) == 18


def test_elements_have_ids_of_their_own() -> None:
    assert [(row.job, row.job_id) for row in ROWS[:4]] == [
        ("3_0", 5),
        ("3_1", 6),
        ("3_2", 7),
        ("3_3", 3),
    ]


@pytest.mark.parametrize(
    ("job", "states", "elapsed"),
    [
        ("3_1", ["FAILED"], [4]),
        ("3_2", ["CANCELLED"], [19]),
        ("3_3", ["REQUEUED", "COMPLETED"], [19, 25]),
        ("13_0", ["PREEMPTED", "COMPLETED"], [4, 20]),
        ("21_0", ["TIMEOUT"], [81]),  # of a limit of 60 s
    ],
)
def test_every_run_of_a_job_has_a_row(job: str, states: list[str], elapsed: list[int]) -> None:
    assert [row.state for row in of(job)] == states
    assert [row.elapsed_s for row in of(job)] == elapsed
    assert all(row.started and row.has_ended for row in of(job))


@pytest.mark.parametrize(
    ("job", "state"),
    [
        pytest.param("4_[0-1]", "CANCELLED", id="held and cancelled: has a start"),
        pytest.param("20_[0,2]", "CANCELLED", id="cancelled while it waited for room"),
        pytest.param("15_0", "CANCELLED", id="its parent failed"),
        pytest.param("10_[0-2]", "PENDING", id="held"),
    ],
)
def test_what_never_ran_is_marked(job: str, state: str) -> None:
    (row,) = of(job)

    assert row.state == state
    assert not row.started
    assert row.queued_s is None
    assert row.has_ended == (state == "CANCELLED")


def test_a_run_after_a_requeue_waits_from_when_it_may_run_again() -> None:
    first, second = of("13_0")

    assert first.queued_s == 0
    assert second.queued_s == 2  # put back at 119, may run at 125, ran at 127


def test_without_eligible_the_wait_counts_from_the_submission() -> None:
    line = CAPTURED.splitlines()[0].split("|")
    line[9:12] = ["100", "Unknown", "130"]

    (row,) = parse_rows("|".join(line))

    assert row.queued_s == 30


def test_lines_that_are_no_rows_are_skipped() -> None:
    assert parse_rows("sacct: warning: something\n\n1|2|3\n") == []


def test_a_row_survives_its_json() -> None:
    assert [JobRow.from_json(row.to_json()) for row in ROWS] == ROWS


@pytest.mark.parametrize(
    ("tres", "gpus"),
    [
        ("cpu=8,gres/gpu:h100=8,gres/gpu=8,node=1", 8),
        ("cpu=8,gres/gpu:h100=8,node=1", 8),
        ("cpu=8,gres/gpu:a100=4,gres/gpu:h100=2,node=1", 6),
        ("cpu=8,gres/gpumem=80G,node=1", 0),
        ("cpu=8,mem=100M,node=1", 0),
    ],
)
def test_typed_gpus_are_counted_once(tres: str, gpus: int) -> None:
    line = CAPTURED.splitlines()[0].split("|")
    line[6] = tres

    assert parse_rows("|".join(line))[0].gpus == gpus


@pytest.mark.parametrize(
    ("job", "indices"),
    [
        ("12_3", {3}),
        ("12_[0-2]", {0, 1, 2}),
        ("12_[1,4-5%2]", {1, 4, 5}),
        ("12_[0-8:4]", {0, 4, 8}),
        ("12", set()),
    ],
)
def test_a_row_says_which_elements_it_stands_for(job: str, indices: set[int]) -> None:
    row = JobRow.from_json({**ROWS[0].to_json(), "job": job})

    assert {index for index in range(20) if row.is_of(index)} == indices


def test_one_call_asks_for_all_jobs(fake_sacct: FakeSacct) -> None:
    fake_sacct.answer(CAPTURED)

    rows = query([13, 3, 3], names={"acct-array-1", "acct-spot-1"}, since=1795549751)

    (call,) = fake_sacct.calls()
    assert "-j 3,13" in call
    assert "-D -X -P -n" in call
    assert {row.name for row in rows} == {"acct-array-1", "acct-spot-1"}
    assert len(rows) == 7


def test_times_are_asked_for_in_seconds(fake_sacct: FakeSacct) -> None:
    fake_sacct.answer("")

    query([3], names=set(), since=1795549751)

    assert fake_sacct.environment()["SLURM_TIME_FORMAT"] == "%s"


def test_many_jobs_are_asked_for_in_pieces(
    fake_sacct: FakeSacct, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sacct, "MOST_CHARACTERS", 10)
    fake_sacct.answer("")

    query(range(10, 15), names=set(), since=0)

    assert [call.split("-j ")[1].split()[0] for call in fake_sacct.calls()] == [
        "10,11,12",
        "13,14",
    ]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Slurm accounting storage is disabled", "Slurm accounting storage is disabled"),
        (
            "sacct: error: slurm_persist_conn_open_without_init: failed to open persistent "
            "connection to host:127.0.0.1:27001: Connection refused\n"
            "sacct: error: Problem talking to the database: Connection refused",
            "slurmdbd refuses connections",
        ),
        ("sacct: fatal: Unable to process configuration file", "Unable to process"),
    ],
)
def test_no_answer_says_why(fake_sacct: FakeSacct, said: str, reason: str) -> None:
    fake_sacct.refuse(said)

    with pytest.raises(AccountingUnavailable, match=reason):
        query([3], names=set(), since=0)


def test_no_sacct_is_no_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(AccountingUnavailable, match=r"^no sacct here$"):
        query([3], names=set(), since=0)


def test_a_sacct_that_hangs_is_left(fake_sacct: FakeSacct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sacct, "TIMEOUT_S", 0.2)
    fake_sacct.hang()

    with pytest.raises(AccountingUnavailable, match="did not answer"):
        query([3], names=set(), since=0)
