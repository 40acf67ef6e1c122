"""Following a study by rounds of uploading; the rounds are played here."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalesweep import study_sync
from scalesweep.cli import run
from scalesweep.launch import leases
from scalesweep.launch.local import commands_folder
from scalesweep.launch.queue import QueueView
from scalesweep.plan.graph import Plan
from scalesweep.rundir import write_json
from scalesweep.study_sync import GAP_S, Wanted, follow
from tests.report.synthetic import Point, SyntheticStudy, build_study


@pytest.fixture
def study(tmp_path: Path) -> SyntheticStudy:
    return build_study(tmp_path, [Point(score=0.5)], num_questions=8)


def never(seconds: float) -> None:
    raise AssertionError(f"slept {seconds} s")


class Rounds:
    """Ends with the given statuses, one after the other, and notes what was going on."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.num_done = 0

    def __call__(self, plan: Plan) -> int:
        assert plan.study == "quickstart"
        self.num_done += 1
        return self.statuses.pop(0)


def work_on(study: SyntheticStudy) -> Path:
    """A command that is alive: this process."""
    lease = commands_folder(study.store, "quickstart") / "x.json"
    lease.parent.mkdir(parents=True)
    write_json(lease, leases.this_process().to_json())
    return lease


def test_without_live_there_is_one_round_though_the_study_goes_on(study: SyntheticStudy) -> None:
    work_on(study)
    rounds = Rounds(1)

    status = follow(study.store, "quickstart", Wanted(), one_round=rounds, sleep=never)

    assert (status, rounds.num_done) == (1, 1)


def test_live_goes_on_through_an_outage_and_ends_one_round_after_the_study(
    study: SyntheticStudy,
) -> None:
    lease = work_on(study)
    rounds = Rounds(0, 1, 0)
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            lease.unlink()  # the study ends between the second round and the third

    wanted = Wanted(live=True, every_s=7.0)
    status = follow(study.store, "quickstart", wanted, one_round=rounds, sleep=sleep)

    assert (status, rounds.num_done) == (0, 3)
    assert slept == [7.0, 7.0, GAP_S]


def test_live_ends_at_once_where_nothing_goes_on(study: SyntheticStudy) -> None:
    rounds = Rounds(0)

    wanted = Wanted(live=True)
    slept: list[float] = []
    status = follow(study.store, "quickstart", wanted, one_round=rounds, sleep=slept.append)

    assert (status, rounds.num_done, slept) == (0, 1, [GAP_S])


def test_live_goes_on_over_the_gap_between_two_stages(study: SyntheticStudy) -> None:
    rounds = Rounds(0, 0)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            work_on(study)  # the next stage begins within the gap
        elif len(slept) == 2:
            (commands_folder(study.store, "quickstart") / "x.json").unlink()

    wanted = Wanted(live=True, every_s=7.0)
    status = follow(study.store, "quickstart", wanted, one_round=rounds, sleep=sleep)

    assert (status, rounds.num_done, slept) == (0, 2, [GAP_S, 7.0, GAP_S])


@pytest.mark.parametrize(("state", "going"), [("missing", True), ("done", False)])
def test_a_queue_that_cannot_be_seen_may_hold_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, going: bool
) -> None:
    study = build_study(tmp_path, [Point(score=0.5, state=state)], num_questions=8)
    unseen = QueueView(places={}, problem="squeue: connection refused")
    monkeypatch.setattr(study_sync, "look", lambda *_: unseen)

    assert study_sync.is_going(study.plan, study.store) is going


def test_a_refusal_ends_it(study: SyntheticStudy) -> None:
    work_on(study)
    rounds = Rounds(2)

    wanted = Wanted(live=True)
    status = follow(study.store, "quickstart", wanted, one_round=rounds, sleep=never)

    assert (status, rounds.num_done) == (2, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "study=nope: not in the store"),
        (["quickstart", "--every", "60"], "--every: goes with --live"),
        (["quickstart", "--live", "--every", "0"], "--every=0: must be a number of seconds"),
        (["quickstart", "--limit", "soon"], "--limit=soon: must be a number of seconds"),
        (["quickstart", "--push"], "--push: sync takes a study's name and --live, --every"),
    ],
)
def test_a_wrong_line_is_refused(
    study: SyntheticStudy, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(["sync", *words, "--store", str(study.store.root)])

    assert status == 2
    assert said in capsys.readouterr().err
