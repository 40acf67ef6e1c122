"""A watcher ends when nothing is left to wait for, and does meanwhile what only it can do."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scalesweep.launch import leases, watch
from scalesweep.launch.local import Scheduler
from scalesweep.launch.slurm import HELD_AFTER_FAILED_LAUNCH
from scalesweep.launch.watch import Watched, Watcher, ready_on_login
from scalesweep.plan.graph import Plan
from scalesweep.records import Outcome
from scalesweep.rundir import Store
from tests.fakes.plans import RUNNER, plan_of
from tests.fakes.slurm import FakeSlurm
from tests.fakes.stage_runner import journal
from tests.launch.running import WORKERS
from tests.launch.test_queue_status import DATA, JUDGE, PLAN, TUNE
from tests.launch.test_submit import begin, close, element, fake_cluster, finish, submitted

JOBS = plan_of(DATA, TUNE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    yield from fake_cluster(tmp_path, monkeypatch)


@pytest.fixture
def fake_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages on the login node are done by tests/fakes."""

    def scheduler(**settings: Any) -> Scheduler:
        return Scheduler(**settings, workers=WORKERS, runner=RUNNER)

    monkeypatch.setattr(watch, "Scheduler", scheduler)


def watched(
    store: Store, plan: Plan, *happens: Callable[[], object]
) -> tuple[Watched, list[str], int]:
    """What a watcher found and said, and how often it slept. happens: one at each sleep."""
    todo = list(happens)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        todo.pop(0)()

    stream = io.StringIO()
    result = Watcher(plan=plan, store=store, poll_s=7.0, stream=stream, sleep=sleep).run()
    assert todo == []
    assert set(slept) <= {7.0}
    return result, [line[8:] for line in stream.getvalue().splitlines()], len(slept)


def test_a_watcher_ends_when_all_is_done(store: Store, fake: FakeSlurm) -> None:
    submitted(store, JOBS)

    result, said, _ = watched(
        store,
        JOBS,
        lambda: begin(store, fake, DATA),
        lambda: finish(store, fake, DATA),
        lambda: fake.run(element(store, TUNE)),
        lambda: finish(store, fake, TUNE),
    )

    assert result.all_done
    assert [line for line in said if not line.startswith(("queued", "0/2"))] == [
        "running  data",
        "done     data",
        "running  tune",
        "done     tune",
        "2/2 stages done",
    ]


def test_a_watcher_of_a_study_that_is_done_does_not_sleep(store: Store, fake: FakeSlurm) -> None:
    submitted(store, JOBS)
    for planned in JOBS.stages:
        finish(store, fake, planned)

    result, said, slept = watched(store, JOBS)

    assert (result.all_done, set(said), slept) == (True, {"2/2 stages done"}, 0)


def test_a_watcher_ends_when_what_is_left_cannot_go_on(store: Store, fake: FakeSlurm) -> None:
    submitted(store, JOBS)

    def fail() -> None:
        close(begin(store, fake, DATA), Outcome.failed, "no image 3", "data")
        fake.end(element(store, DATA), "FAILED")

    result, said, _ = watched(store, JOBS, fail)

    assert not result.all_done
    assert {stage.label: stage.state for stage in result.status.values()} == {
        "data": "failed",
        "tune": "blocked",
    }
    assert "failed   data: no image 3" in said
    assert "blocked  tune: needs data" in said


def test_a_watcher_goes_on_while_slurm_is_not_seen(store: Store, fake: FakeSlurm) -> None:
    submitted(store, JOBS)

    def back_and_over() -> None:
        fake.back()
        fake.end(element(store, DATA), "CANCELLED")

    result, said, slept = watched(store, JOBS, fake.away, lambda: None, back_and_over)

    assert slept == 3
    assert sum(line.startswith("Slurm is not seen: squeue: ") for line in said) == 2
    assert {stage.state for stage in result.status.values()} == {"waiting"}


@pytest.mark.usefixtures("fake_stages")
def test_judge_stages_are_done_here_when_their_inputs_are(store: Store, fake: FakeSlurm) -> None:
    submitted(store, PLAN)

    result, _, _ = watched(
        store, PLAN, lambda: finish(store, fake, DATA), lambda: finish(store, fake, TUNE)
    )

    assert result.all_done
    assert journal(store) == ["judge"]
    assert len(fake.elements()) == 2


@pytest.mark.usefixtures("fake_stages")
def test_a_judge_stage_that_fails_here_is_not_tried_for_ever(store: Store, fake: FakeSlurm) -> None:
    spec = dataclasses.replace(JUDGE.spec, identity={"label": "judge", "do": "fail"})
    bad = dataclasses.replace(JUDGE, spec=spec)
    plan = plan_of(DATA, TUNE, bad)
    submitted(store, plan)
    for planned in (DATA, TUNE):
        finish(store, fake, planned)

    result, _, _ = watched(store, plan)

    assert result.status[bad.ref].state == "failed"
    assert journal(store) == ["judge"]


def test_what_is_ready_here_comes_with_all_that_it_needs(store: Store, fake: FakeSlurm) -> None:
    submitted(store, PLAN)
    status = watched_status(store)
    assert ready_on_login(PLAN, status) is None
    for planned in (DATA, TUNE):
        finish(store, fake, planned)

    ready = ready_on_login(PLAN, watched_status(store))

    assert ready is not None
    assert [planned.spec.label for planned in ready.stages] == ["data", "tune", "judge"]


def watched_status(store: Store) -> dict[Any, Any]:
    return watch.study_status(PLAN, store, watch.look(PLAN, store))


def test_an_element_held_after_a_failed_launch_is_released(store: Store, fake: FakeSlurm) -> None:
    submitted(store, JOBS)
    held = element(store, DATA)
    fake.set(held, reason=HELD_AFTER_FAILED_LAUNCH)

    def cancel() -> None:
        assert fake.element(held).reason == "Priority"
        fake.end(held, "CANCELLED")

    _, said, _ = watched(store, JOBS, cancel)

    assert f"released {held}, held after a failed launch" in said


def test_an_element_whose_first_copy_lives_stays_held(store: Store, fake: FakeSlurm) -> None:
    submitted(store, JOBS)
    held = element(store, DATA)
    fake.set(held, reason=HELD_AFTER_FAILED_LAUNCH)
    attempt = leases.claim(store.stage(DATA.ref), DATA.execution, after=0)  # by this process
    assert attempt is not None

    def end() -> None:
        fake.end(held, "CANCELLED")
        close(attempt, Outcome.interrupted)

    watched(store, JOBS, lambda: None, end)

    assert [words for words in fake.calls("scontrol") if words[0] == "release"] == []


def test_a_release_that_slurm_refuses_does_not_end_the_watch(store: Store, fake: FakeSlurm) -> None:
    submitted(store, JOBS)
    held = element(store, DATA)
    fake.set(held, reason=HELD_AFTER_FAILED_LAUNCH)
    fake.fault("scontrol", "refuse", "slurm_update error: Access/permission denied")

    _, said, _ = watched(store, JOBS, lambda: None, lambda: fake.end(held, "CANCELLED"))

    assert "scontrol: slurm_update error: Access/permission denied" in said
    assert f"released {held}, held after a failed launch" in said
