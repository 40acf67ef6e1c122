"""Ranks are forked or spawned, and know nothing of the program that starts them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from scalesweep.launch import workers
from scalesweep.launch.workers import Workers
from scalesweep.records import Outcome
from scalesweep.rundir import Store
from tests.fakes.plans import plan_of, stage
from tests.fakes.processes import wait_for
from tests.fakes.stage_runner import journal, output_text, pids
from tests.launch.running import WORKERS, scheduler


@pytest.fixture
def spawning(monkeypatch: pytest.MonkeyPatch) -> Workers:
    """As on a machine with a GPU, where nothing may be forked."""
    monkeypatch.setattr(workers, "has_gpu", lambda: True)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    return Workers()


def test_where_there_is_a_gpu_ranks_are_spawned(spawning: Workers, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    pair = stage("pair", devices=2)
    loop = scheduler(plan_of(pair), store)
    loop.workers = spawning

    assert loop.run().all_done
    assert len(set(pids(store))) == 2
    assert spawning.server_cpu_s() == 0.0


def test_a_spawned_rank_stops_in_order_too(spawning: Workers, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    long = stage("long", "count", steps=10_000)
    loop = scheduler(plan_of(long), store)
    loop.workers = spawning

    def interrupt() -> None:
        wait_for(lambda: journal(store, "step2"))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = loop.run()
    thread.join()

    usage = store.stage(long.spec.ref).attempt(1).usage()
    assert result.interrupted
    assert usage is not None
    assert usage.outcome is Outcome.interrupted


def test_a_rank_does_not_run_the_program_again(tmp_path: Path) -> None:
    main = sys.modules["__main__"]
    store = Store(tmp_path / "store")

    modules = stage("modules", "name_main")

    scheduler(plan_of(modules), store).run()

    assert output_text(store, modules.spec.ref) == ""
    assert sys.modules["__main__"] is main


def test_the_imports_that_all_share_are_counted() -> None:
    WORKERS.warm_up()

    assert WORKERS.server_cpu_s() > 0
