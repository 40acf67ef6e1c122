"""Where stages stand is read from the store alone, whoever runs them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from scalesweep.launch import leases
from scalesweep.launch.publish import publish
from scalesweep.launch.status import print_status, status_json, study_status
from scalesweep.plan.graph import PlannedStage
from scalesweep.records import Outcome, Usage
from scalesweep.rundir import AttemptDir, Store, write_json
from scalesweep.tracking import metric_names as names
from tests.fakes.plans import plan_of, stage
from tests.launch.running import run
from tests.launch.test_leases import dead_owner

DATA = stage("data")
TUNE = stage("tune", after=[DATA])
PLAN = plan_of(DATA, TUNE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def attempt_at(store: Store, planned: PlannedStage = DATA) -> AttemptDir:
    folder = store.stage(planned.spec.ref)
    attempt = leases.claim(folder, planned.execution, after=leases.newest_number(folder))
    assert attempt is not None
    return attempt


def close(attempt: AttemptDir, outcome: Outcome, cause: str = "") -> None:
    usage = Usage(outcome=outcome, cause=cause, started_at=1e9, wall_s=125)
    write_json(attempt.usage_file, usage.to_json())


def made(store: Store) -> AttemptDir:
    attempt = attempt_at(store)
    (attempt.output / "a").write_text("xyz")
    publish(store.stage(DATA.spec.ref), attempt, inputs={})
    close(attempt, Outcome.done)
    return attempt


def state(store: Store, planned: PlannedStage = DATA) -> tuple[str, str]:
    status = study_status(PLAN, store)[planned.spec.ref]
    return status.state, status.detail


def test_what_was_never_begun_waits(store: Store) -> None:
    assert state(store) == ("waiting", "")


def test_a_published_stage_is_done(store: Store) -> None:
    made(store)

    assert state(store) == ("done", "")
    assert state(store, TUNE) == ("waiting", "")


def test_a_stage_published_before_its_attempt_was_closed_is_done(store: Store) -> None:
    close(made(store), Outcome.running)

    assert state(store) == ("done", "")


def test_a_running_stage_says_how_far_it_is_and_where(store: Store) -> None:
    attempt = attempt_at(store)
    me = leases.this_process()
    assert state(store) == ("running", f"starts (process {me.pid} on {me.host})")

    close(attempt, Outcome.running)
    row = {names.PROGRESS_DONE: 3, names.PROGRESS_TOTAL: 9, names.PROGRESS_UNIT: "answer"}
    attempt.metrics.write_text(json.dumps(row) + "\n")

    assert state(store) == ("running", f"answer 3/9, 2:05 (process {me.pid} on {me.host})")


def test_a_running_stage_on_another_machine_cannot_be_seen(store: Store) -> None:
    far = dataclasses.replace(leases.this_process(), host="elsewhere")
    write_json(attempt_at(store).lease, far.to_json())

    assert state(store)[0] == "running"
    assert "on elsewhere, which cannot be seen from here" in state(store)[1]


def test_a_stage_whose_command_died_was_killed(store: Store) -> None:
    write_json(attempt_at(store).lease, dead_owner().to_json())

    assert state(store) == ("killed", "its command died; type the line again to continue")


def test_a_stage_whose_lease_is_damaged_is_held_by_nobody(store: Store) -> None:
    attempt_at(store).lease.write_text("{")

    assert state(store)[0] == "killed"


@pytest.mark.parametrize("outcome", [Outcome.failed, Outcome.interrupted, Outcome.killed])
def test_a_closed_attempt_says_how_it_ended(store: Store, outcome: Outcome) -> None:
    close(attempt_at(store), outcome, "the reason")

    assert state(store) == (str(outcome), "the reason")


def test_what_needs_a_failed_stage_is_blocked(store: Store) -> None:
    close(attempt_at(store), Outcome.failed, "the reason")

    assert state(store, TUNE) == ("blocked", "needs data")


def test_damaged_output_is_named(store: Store) -> None:
    (made(store).output / "a").write_text("x")

    assert state(store) == ("damaged", "output/a has 1 bytes, not 3")


def test_other_bytes_of_a_parent_are_seen(store: Store) -> None:
    run(PLAN, store)
    record = store.stage(TUNE.spec.ref).done_file
    written = json.loads(record.read_text())
    written["inputs"]["input0"] = "old"
    write_json(record, written)

    assert state(store, TUNE) == ("stale", "stale: input0 changed since")


def test_a_damaged_usage_does_not_hide_where_the_others_stand(store: Store) -> None:
    attempt_at(store).usage_file.write_text("{")

    assert state(store)[0] == "running"


def test_the_json_form_names_cells_stages_and_totals(store: Store) -> None:
    close(attempt_at(store), Outcome.failed, "the reason")

    found = status_json(PLAN, store)

    assert json.loads(json.dumps(found)) == found
    assert found["study"] == "fake"
    assert found["cells"] == [{"name": "all", "state": "failed"}]
    assert found["totals"] == {"failed": 1, "blocked": 1}
    assert found["stages"][0] == {
        "ref": str(DATA.spec.ref),
        "label": "data",
        "state": "failed",
        "detail": "the reason",
        "attempts": 1,
        "log": "",
        "job": "",
    }


def test_the_printed_form_names_every_stage_that_is_not_well(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt = attempt_at(store)
    attempt.log.write_text("")
    close(attempt, Outcome.failed, "[/tmp/x] shapes [2, 3] differ")

    print_status(PLAN, store)

    said = capsys.readouterr().out.splitlines()
    assert said[0] == "study fake"
    assert "failed data: [/tmp/x] shapes [2, 3] differ" in said
    assert f"  log: {attempt.log}" in said
    assert "blocked tune: needs data" in said
    assert said[-1] == "1 cells, 2 stages: 1 failed, 1 blocked"
