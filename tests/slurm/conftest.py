"""Real Slurm clusters for tests, started once a session; every test finds them whole and empty."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster, missing_programs

HERE = Path(__file__).parent
REQUIRED = "SCALESWEEP_REQUIRE_SLURM"
"""Environment variable: a machine without Slurm is a failure, not a reason to skip."""

CLUSTERS = ("slurm_cluster", "slurm_cluster_without_accounting")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slurm)


def _need_slurm(*, accounting: bool) -> None:
    missing = missing_programs(accounting=accounting)
    if not missing:
        return
    reason = f"no Slurm here: {', '.join(missing)} missing (make setup-slurm)"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason}, and {REQUIRED}=1")
    pytest.skip(reason)


def _running(folder: Path, *, accounting: bool) -> Iterator[SlurmCluster]:
    _need_slurm(accounting=accounting)
    cluster = SlurmCluster(folder=folder, accounting=accounting)
    try:
        cluster.start(watched_pid=os.getpid())
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder / "mariadb", ignore_errors=True)  # logs stay, to look into


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """4 nodes of 8 fake GPUs, with accounting."""
    yield from _running(tmp_path_factory.mktemp("slurm"), accounting=True)


@pytest.fixture(scope="session")
def slurm_cluster_without_accounting(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SlurmCluster]:
    """The same without slurmdbd: sacct knows nothing."""
    yield from _running(tmp_path_factory.mktemp("slurm"), accounting=False)


@pytest.fixture(autouse=True)
def _mended(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test did to a cluster is mended after it."""
    used = [request.getfixturevalue(name) for name in CLUSTERS if name in request.fixturenames]
    yield
    for cluster in used:
        cluster.heal()
