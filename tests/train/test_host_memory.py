"""Free memory is what the tightest limit leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalesweep.train.host_memory import available_bytes

GIB = 2**30


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 8 GiB free, without cgroups."""
    write(tmp_path / "proc/meminfo", f"MemTotal: 999 kB\nMemAvailable: {8 * 2**20} kB\n")
    return tmp_path


def cgroup(folder: Path, *, limit: str, used: int, cached: int = 0) -> None:
    write(folder / "memory.max", f"{limit}\n")
    write(folder / "memory.current", f"{used}\n")
    write(folder / "memory.stat", f"anon 5\ninactive_file {cached}\n")


def test_without_cgroups_it_is_what_the_kernel_says(root: Path) -> None:
    assert available_bytes(root) == 8 * GIB


def test_the_limit_of_a_cgroup_above_counts(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/slurm/job_1/step_0\n")
    cgroup(root / "sys/fs/cgroup/slurm/job_1/step_0", limit="max", used=3 * GIB)
    cgroup(root / "sys/fs/cgroup/slurm/job_1", limit=str(6 * GIB), used=4 * GIB, cached=GIB)

    assert available_bytes(root) == 3 * GIB  # 6 - 4 + 1 that is only cached


def test_the_older_cgroups_count_too(root: Path) -> None:
    write(root / "proc/self/cgroup", "5:cpu:/x\n4:memory:/slurm/job_1\n")
    folder = root / "sys/fs/cgroup/memory/slurm/job_1"
    write(folder / "memory.limit_in_bytes", f"{2 * GIB}\n")
    write(folder / "memory.usage_in_bytes", f"{GIB}\n")

    assert available_bytes(root) == GIB


def test_a_group_that_is_over_its_limit_has_nothing_left(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/job\n")
    cgroup(root / "sys/fs/cgroup/job", limit=str(GIB), used=2 * GIB)

    assert available_bytes(root) == 0


def test_where_nothing_can_be_read_nothing_is_free(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) == 0


def test_this_machine_has_memory() -> None:
    assert available_bytes() > 0
