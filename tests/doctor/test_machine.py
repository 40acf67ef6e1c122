"""What the operating system says, read from files like those of a Linux machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalesweep.doctor import machine
from scalesweep.doctor.findings import State

GIB = 1 << 30


def test_the_fastest_instruction_set_is_named(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags : fpu avx2 avx512f\nprocessor : 1\nflags : fpu\n")

    found = machine.cores(cpuinfo)

    assert found.value.endswith(", AVX512F")
    assert found.facts["instruction_sets"] == ["avx512f", "avx2"]
    assert machine.cores(tmp_path / "none").facts["instruction_sets"] == []


def test_memory_is_that_of_the_job_where_it_is_held_to_less(tmp_path: Path) -> None:
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemTotal: 67108864 kB\nMemFree: 1 kB\nMemAvailable: 33554432 kB\n")

    cgroup.write_text("max\n")
    assert machine.memory(meminfo, cgroup).value == "32.0 GiB free of 64.0"
    cgroup.write_text(f"{16 * GIB}\n")
    found = machine.memory(meminfo, cgroup)
    assert found.value == "32.0 GiB free of 64.0; held to 16.0"
    assert found.facts == {"total": 64 * GIB, "free": 32 * GIB, "limit": 16 * GIB}


@pytest.mark.parametrize(
    ("size", "state"), [(64 << 20, State.note), (GIB, State.well), (16 * GIB, State.well)]
)
def test_dockers_small_shared_memory_is_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int, state: State
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(total=size)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)

    found = machine.shared_memory(tmp_path)

    assert found.state is state
    assert ("--shm-size" in found.way_out) == (state is State.note)


def test_no_shared_memory_is_noted(tmp_path: Path) -> None:
    assert machine.shared_memory(tmp_path / "none").state is State.note


@pytest.mark.parametrize(("soft", "state"), [(1024, State.note), (65536, State.well)])
def test_a_low_limit_of_open_files_is_noted(
    monkeypatch: pytest.MonkeyPatch, soft: int, state: State
) -> None:
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (soft, 65536))

    found = machine.open_files()

    assert found.state is state
    assert ("ulimit -n 65536" in found.way_out) == (state is State.note)


def test_a_store_that_is_not_there_yet_is_looked_for_above(tmp_path: Path) -> None:
    found = machine.disk(tmp_path / "a" / "store")

    assert found.value.startswith(f"{tmp_path / 'a' / 'store'}: ")
    assert found.facts["there"] is False
    assert found.facts["total"] > 0
    assert not (tmp_path / "a").exists()


def test_models_of_the_cache_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--a--b").mkdir()
    (tmp_path / "datasets--a--b").mkdir()

    assert machine.hub_cache().value == f"{tmp_path}: 1 model"
