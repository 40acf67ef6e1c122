"""Commands that live are stopped, those elsewhere are named, and the dead are passed over."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from scalesweep.launch import leases
from scalesweep.launch.cancel import cancel
from scalesweep.launch.local import commands_folder
from scalesweep.rundir import Store, write_json
from tests.fakes.plans import plan_of, stage
from tests.launch.running import run
from tests.launch.test_leases import dead_owner


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def announce(store: Store, owner: leases.Owner) -> Path:
    folder = commands_folder(store, "fake")
    folder.mkdir(parents=True, exist_ok=True)
    lease = folder / f"{len(list(folder.iterdir()))}.json"
    write_json(lease, owner.to_json())
    return lease


def test_without_a_command_there_is_nothing_to_stop(store: Store) -> None:
    assert cancel(store, "fake") == ["study fake: no command works on it"]


def test_a_command_on_another_machine_is_named_and_not_touched(store: Store) -> None:
    announce(store, dataclasses.replace(leases.this_process(), host="elsewhere", pid=77))

    assert cancel(store, "fake") == ["process 77 on elsewhere: another machine; cancel it there"]


def test_a_dead_command_is_passed_over(store: Store) -> None:
    announce(store, dead_owner())

    assert cancel(store, "fake") == ["study fake: no command works on it"]


def test_another_users_command_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    announce(store, leases.this_process())
    monkeypatch.setattr(os, "kill", refuse)

    assert cancel(store, "fake") == [
        f"process {os.getpid()}: another user's; ask whoever started it"
    ]


def test_the_next_run_sweeps_leases_of_dead_commands_only(store: Store) -> None:
    dead = announce(store, dead_owner())
    far = announce(store, dataclasses.replace(leases.this_process(), host="elsewhere"))

    run(plan_of(stage("one")), store)

    assert not dead.exists()
    assert far.exists()
