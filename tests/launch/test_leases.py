"""One claim of each number succeeds, and who is dead is told from who cannot be seen."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import subprocess
from collections import Counter
from pathlib import Path
from threading import Barrier, Thread

import pytest

from scalesweep.launch import leases
from scalesweep.records import Execution, Outcome, Usage
from scalesweep.rundir import AttemptDir, StageDir, write_json

EXECUTION = Execution(cluster="local")


@pytest.fixture
def stage(tmp_path: Path) -> StageDir:
    return StageDir(tmp_path / "stage")


def claim(stage: StageDir) -> AttemptDir:
    attempt = leases.claim(stage, EXECUTION, after=leases.newest_number(stage))
    assert attempt is not None
    return attempt


def dead_owner() -> leases.Owner:
    """A process of this machine that has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        start = leases.process_start(process.pid)
        process.kill()
    assert start is not None
    return dataclasses.replace(leases.this_process(), pid=process.pid, process_start=start)


def close(attempt: AttemptDir, outcome: Outcome) -> None:
    write_json(attempt.usage_file, Usage(outcome=outcome).to_json())


def _claim_in_turn(folder: Path, rounds: int, won: multiprocessing.SimpleQueue[int]) -> None:
    for number in range(rounds):
        attempt = leases.claim(StageDir(folder), EXECUTION, after=number)
        if attempt is not None:
            won.put(attempt.number)


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
    assert [a.number for a in stage.attempts()] == list(range(1, 21))


def test_exactly_one_of_many_threads_gets_a_number(stage: StageDir) -> None:
    together = Barrier(8)
    won: list[AttemptDir | None] = []

    def race() -> None:
        together.wait()
        won.append(leases.claim(stage, EXECUTION, after=0))

    threads = [Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [a.number for a in won if a is not None] == [1]
    assert [p.name for p in (stage.path / "attempts").iterdir()] == ["0001"]


def test_a_claim_fails_when_an_attempt_ended_since_the_stage_was_looked_at(
    stage: StageDir,
) -> None:
    seen = leases.newest_number(stage)
    close(claim(stage), Outcome.done)

    late = leases.claim(stage, EXECUTION, after=seen)

    assert late is None
    assert len(stage.attempts()) == 1


def test_a_claimed_attempt_has_its_lease_versions_and_place_for_output(stage: StageDir) -> None:
    attempt = claim(stage)

    record = json.loads(attempt.execution_file.read_text())
    assert leases.read_owner(attempt.lease) == leases.this_process()
    assert attempt.execution() == EXECUTION
    assert record["versions"].keys() >= {"scalesweep", "torch", "transformers"}
    assert record["commit"] is None or len(record["commit"]) == 40
    assert attempt.output.is_dir()


def test_attempts_beyond_9999_are_counted_on(stage: StageDir) -> None:
    for number in (9998, 9999, 10_000):
        stage.attempt(number).path.mkdir(parents=True)

    assert claim(stage).number == 10_001


def test_a_living_owner_holds_its_stage(stage: StageDir) -> None:
    claim(stage)

    assert leases.holder(stage) == leases.this_process()


def test_a_dead_owner_holds_nothing_and_is_followed(stage: StageDir) -> None:
    attempt = claim(stage)
    write_json(attempt.lease, dead_owner().to_json())

    assert leases.holder(stage) is None
    assert claim(stage).number == 2


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert leases.process_start(process.pid) is None
    process.wait()


def test_a_later_process_with_the_same_id_is_another_one() -> None:
    me = leases.this_process()

    assert leases.is_alive(me) is True
    assert leases.is_alive(dataclasses.replace(me, process_start=me.process_start - 1)) is False


def test_a_process_before_the_last_boot_is_dead() -> None:
    assert leases.is_alive(dataclasses.replace(leases.this_process(), boot_id="other")) is False


def test_a_process_on_another_host_cannot_be_seen_which_is_not_dead(stage: StageDir) -> None:
    far = dataclasses.replace(leases.this_process(), host="elsewhere", boot_id="other")
    write_json(claim(stage).lease, far.to_json())

    assert leases.is_alive(far) is None
    assert leases.holder(stage) == far


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.running])
def test_a_closed_attempt_is_held_by_nobody(stage: StageDir, outcome: Outcome) -> None:
    close(claim(stage), outcome)

    assert leases.holder(stage) is None


def test_an_attempt_that_counts_its_usage_is_still_open(stage: StageDir) -> None:
    close(claim(stage), Outcome.running)

    assert leases.holder(stage) == leases.this_process()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "pid": 3}'])
def test_a_damaged_lease_names_nobody(stage: StageDir, text: str) -> None:
    claim(stage).lease.write_text(text)

    assert leases.holder(stage) is None


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1}', '{"schema": 1, "outcome": "odd"}'])
def test_a_damaged_usage_does_not_close_an_attempt(stage: StageDir, text: str) -> None:
    claim(stage).usage_file.write_text(text)

    assert leases.holder(stage) == leases.this_process()


def test_claims_whose_process_died_are_swept_and_others_are_not(stage: StageDir) -> None:
    attempts = stage.path / "attempts"
    mine, dead = attempts / ".claim-mine", attempts / ".claim-dead"
    for folder, owner in ((mine, leases.this_process()), (dead, dead_owner())):
        folder.mkdir(parents=True)
        write_json(folder / "lease.json", owner.to_json())

    claim(stage)

    assert mine.exists()
    assert not dead.exists()
    assert [a.number for a in stage.attempts()] == [1]
