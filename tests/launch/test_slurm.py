"""What Slurm's commands answer is read; that one does not answer is an error, never an answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesweep.launch import slurm
from scalesweep.launch.slurm import (
    Queued,
    Site,
    SlurmAway,
    SlurmError,
    parse_squeue,
    persistently,
)
from tests.fakes.slurm import AWAY, FakeSlurm


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    made = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", made.path)
    slurm.site.cache_clear()
    yield made
    slurm.site.cache_clear()


def row(text: str) -> Queued:
    (found,) = parse_squeue(text)
    return found


def test_a_row_of_squeue_is_read() -> None:
    assert row("12|3|17|RUNNING|ablation-tune-0123456789|me|1-02:03:04|None\n") == Queued(
        array_job_id=12,
        array_index=3,
        job_id=17,
        state="RUNNING",
        reason="None",
        name="ablation-tune-0123456789",
        user="me",
        run_time="1-02:03:04",
    )
    assert row("12|3|17|RUNNING|x|me|0:01|None").element == "12_3"


REASONS = {
    "Priority": "Priority",
    "(Resources)": "Resources",
    "ReqNodeNotAvail, UnavailableNodes:n[1-3]": "ReqNodeNotAvail, UnavailableNodes:n[1-3]",
    "(launch failed requeued held)": "launch failed requeued held",
    "Nodes required for job are DOWN, DRAINED | or reserved": (
        "Nodes required for job are DOWN, DRAINED | or reserved"
    ),
    "": "",
}


@pytest.mark.parametrize(("said", "reason"), REASONS.items(), ids=list(REASONS))
def test_reasons_may_hold_brackets_and_spaces(said: str, reason: str) -> None:
    assert row(f"12|3|17|PENDING|x|me|0:00|{said}\n").reason == reason


def test_jobs_that_are_no_elements_are_left_out() -> None:
    text = "7|N/A|7|RUNNING|shell|me|0:05|None\n8|[0-3]|8|PENDING|x|me|0:00|Priority\n"

    assert parse_squeue(text) == []
    assert parse_squeue("") == []


@pytest.mark.parametrize(
    ("state", "reason", "held", "never"),
    [
        ("PENDING", "launch failed requeued held", True, False),
        ("PENDING", "(Launch failed requeued held)", True, False),
        ("PENDING", "JobHeldUser", False, False),
        ("RUNNING", "launch failed requeued held", False, False),
        ("PENDING", "DependencyNeverSatisfied", False, True),
        ("PENDING", "(DependencyNeverSatisfied)", False, True),
        ("PENDING", "Dependency", False, False),
        ("COMPLETING", "DependencyNeverSatisfied", False, False),
    ],
)
def test_what_is_stuck_is_told_from_what_waits(
    state: str, reason: str, held: bool, never: bool
) -> None:
    found = row(f"12|3|17|{state}|x|me|0:00|{reason}")

    assert (found.is_held_after_failed_launch, found.never_runs) == (held, never)


# ---------------------------------------------------------------------- asking


def test_elements_are_found_by_the_names_of_their_jobs_in_one_call(fake: FakeSlurm) -> None:
    for name, index in (("a", 0), ("b", 0), ("b", 1), ("other", 0)):
        fake.add(name, index)

    found = slurm.queued(["b", "a", "a", "gone"])

    assert {name: [r.array_index for r in rows] for name, rows in found.items()} == {
        "a": [0],
        "b": [0, 1],
    }
    assert fake.calls("squeue") == [["-h", "-r", "-a", "-o", slurm.SQUEUE_FORMAT, "-n", "a,b,gone"]]


def test_nothing_is_asked_about_no_job(fake: FakeSlurm) -> None:
    assert slurm.queued([]) == {}
    assert fake.calls("squeue") == []


def test_more_names_than_fit_are_looked_up_in_the_whole_queue(fake: FakeSlurm) -> None:
    names = [f"job{i}" for i in range(slurm.MOST_NAMES + 1)]
    for name in (names[0], "other"):
        fake.add(name)

    assert list(slurm.queued(names)) == [names[0]]
    assert "-n" not in fake.calls("squeue")[0]


def test_what_is_over_is_not_in_the_queue(fake: FakeSlurm) -> None:
    fake.end(fake.add("a"))

    assert slurm.queued(["a"]) == {}


@pytest.mark.usefixtures("fake")
def test_the_cluster_says_its_name_and_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"MaxArraySize": "10001", "SchedulerParameters": "bf_continue,max_array_tasks=300"}
    other = FakeSlurm(tmp_path / "other", cluster="big", KillWait="5 sec", **limits)

    assert slurm.site() == Site(
        name="lab", max_array_size=1001, kill_wait_s=30, max_array_tasks=1001
    )
    monkeypatch.setenv("PATH", other.path)
    assert slurm.site().name == "lab"  # asked once
    slurm.site.cache_clear()
    assert slurm.site() == Site(
        name="big", max_array_size=10001, kill_wait_s=5, max_array_tasks=300
    )


def test_a_cluster_that_did_not_answer_is_asked_again(fake: FakeSlurm) -> None:
    fake.away()
    with pytest.raises(SlurmError):
        slurm.site()
    fake.back()

    assert slurm.site().name == "lab"


def test_the_state_of_an_element_is_that_of_its_present_run(fake: FakeSlurm) -> None:
    element = fake.add("a", 3, state="RUNNING", restarts=2)

    assert slurm.job_state(element) == ("RUNNING", 2)


@pytest.mark.usefixtures("fake")
def test_the_state_of_a_forgotten_element_is_an_error() -> None:
    with pytest.raises(SlurmError, match=r"scontrol: .*Invalid job id specified"):
        slurm.job_state("77_0")


def test_requests_name_their_elements(fake: FakeSlurm) -> None:
    one, two = fake.add("a", state="RUNNING"), fake.add("b", reason=slurm.HELD_AFTER_FAILED_LAUNCH)

    slurm.warn([one])
    slurm.requeue(one)
    slurm.release(two)
    slurm.cancel([one, two])

    assert fake.calls("scancel") == [["--batch", "--signal=USR2", one], [one, two]]
    assert fake.calls("scontrol") == [["requeue", one], ["release", two]]
    assert set(fake.states().values()) == {"CANCELLED"}


def test_nothing_is_asked_of_no_element(fake: FakeSlurm) -> None:
    slurm.cancel([])
    slurm.warn([])

    assert fake.calls("scancel") == []


# ---------------------------------------------------------------------- no answer


def test_a_command_that_is_not_here_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(
        SlurmError, match=r"^squeue: not installed here; type this on a login node$"
    ):
        slurm.queued(["a"])


def test_a_controller_that_is_away_is_an_error_in_one_line(fake: FakeSlurm) -> None:
    fake.fault("squeue", "refuse", "slurm_load_jobs error:\n  Unable to contact slurm controller")

    with pytest.raises(SlurmError) as raised:
        slurm.queued(["a"])

    assert str(raised.value) == (
        "squeue: slurm_load_jobs error: Unable to contact slurm controller"
    )


def test_an_error_without_a_word_gives_the_status(fake: FakeSlurm) -> None:
    fake.fault("squeue", "refuse", "")

    with pytest.raises(SlurmError, match=r"^squeue: ended with status 1$"):
        slurm.queued(["a"])


def test_a_command_that_hangs_is_an_error(fake: FakeSlurm) -> None:
    (fake.bin / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")

    with pytest.raises(SlurmError, match=r"^squeue: no answer from Slurm in 0 s$"):
        slurm.asked(["squeue"], timeout_s=0.1)


def test_a_command_gets_the_environment_that_is_given(fake: FakeSlurm) -> None:
    slurm.asked(["scancel"], env={"PATH": fake.path, "X": "y"})

    assert fake.environments("scancel")[0].keys() - {"PWD", "LC_CTYPE", "_", "SHLVL", "OLDPWD"} == {
        "PATH",
        "X",
    }


def test_asking_goes_on_until_slurm_answers(fake: FakeSlurm) -> None:
    element = fake.add("a")
    fake.fault("squeue", "refuse", AWAY, times=2)

    found = persistently(lambda: slurm.queued(["a"]), for_s=60, every_s=0.01)

    assert found["a"][0].element == element
    assert len(fake.calls("squeue")) == 3


def test_asking_ends_with_the_last_error() -> None:
    asked = []

    def action() -> None:
        asked.append(time.monotonic())
        raise SlurmAway(f"no answer {len(asked)}")

    with pytest.raises(SlurmAway) as raised:
        persistently(action, for_s=0.05, every_s=0.01)

    assert len(asked) > 1
    assert str(raised.value) == f"no answer {len(asked)}"


def test_a_refusal_is_not_asked_for_again() -> None:
    asked = []

    def action() -> None:
        asked.append(1)
        raise SlurmError("scontrol: Requested operation is presently disabled")

    with pytest.raises(SlurmError, match="disabled"):
        persistently(action, for_s=60)

    assert len(asked) == 1


def test_an_error_that_is_not_slurms_is_not_tried_again() -> None:
    asked = []

    def action() -> None:
        asked.append(1)
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        persistently(action, for_s=60)

    assert asked == [1]
