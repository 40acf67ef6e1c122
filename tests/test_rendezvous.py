"""Ranks that know one file find each other; one that finds nobody says so in time."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from scalesweep.rendezvous import ADDRESS_VARIABLE, rendezvous


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other names of this machine may not resolve where tests run."""
    monkeypatch.setenv(ADDRESS_VARIABLE, "127.0.0.1")


def _meet(file: Path, rank: int, results: multiprocessing.Queue[tuple[int, str]]) -> None:
    store = rendezvous(file, rank=rank, world_size=2, timeout_s=60)
    store.set(f"from{rank}", f"hello of {os.getpid()}")
    found = store.get(f"from{1 - rank}").decode()
    store.set(f"done{rank}", "1")
    if rank == 0:
        store.wait(["done1"], timedelta(seconds=60))
    results.put((rank, found))


def test_two_processes_meet_in_whatever_order_they_begin(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[tuple[int, str]] = context.Queue()
    file = tmp_path / "rendezvous.json"
    late = context.Process(target=_meet, args=(file, 1, results))
    late.start()
    first = context.Process(target=_meet, args=(file, 0, results))
    first.start()

    found = dict(results.get(timeout=60) for _ in range(2))

    for process in (late, first):
        process.join()
    assert found == {0: f"hello of {late.pid}", 1: f"hello of {first.pid}"}


def test_a_rank_that_finds_no_file_says_so_when_the_time_is_over(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match=r"^rendezvous: rank 0 wrote no there\.json in 0 s$"):
        rendezvous(tmp_path / "there.json", rank=1, world_size=2, timeout_s=0.01)


@pytest.mark.parametrize("text", ["", '{"host": "127.0.0.1"', '{"host": "127.0.0.1"}'])
def test_a_file_that_is_not_whole_yet_is_waited_for(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rendezvous.json"
    file.write_text(text)

    with pytest.raises(TimeoutError):
        rendezvous(file, rank=1, world_size=2, timeout_s=0.01)


def test_attempts_on_one_machine_take_ports_of_their_own(tmp_path: Path) -> None:
    stores = [
        rendezvous(tmp_path / f"{i}.json", rank=0, world_size=1, timeout_s=10) for i in range(4)
    ]

    written = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(4)]
    assert len({found["port"] for found in written}) == 4
    assert {found["host"] for found in written} == {"127.0.0.1"}
    assert [store.port for store in stores] == [found["port"] for found in written]


def test_rank_zero_is_named_by_its_host_where_nothing_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ADDRESS_VARIABLE)
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")

    store = rendezvous(tmp_path / "x.json", rank=0, world_size=2, timeout_s=10)

    assert json.loads((tmp_path / "x.json").read_text()) == {
        "host": "localhost",
        "port": store.port,
    }
