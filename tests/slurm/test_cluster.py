"""The cluster that other tests run on behaves as one in a machine room does."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.slurm.cluster import SCRIPT, SlurmCluster, until

NOBODY = 65534
AS_NOBODY = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
SHOW_GPUS = 'echo "$SLURM_ARRAY_TASK_ID $CUDA_VISIBLE_DEVICES $(hostname) $SLURMD_NODENAME"'


def test_an_array_runs_and_its_gpus_are_counted(slurm_cluster: SlurmCluster) -> None:
    out = slurm_cluster.folder / "array-%a.txt"

    job = slurm_cluster.sbatch(SHOW_GPUS, "--array=0-5", "--gres=gpu:3", f"--output={out}")
    rows = slurm_cluster.wait_for_rows(
        lambda rows: [row[1] for row in rows] == ["COMPLETED"] * 6,
        f"--jobs={job}",
        fields="JobID,State,AllocTRES",
    )

    assert sorted(row[0] for row in rows) == [f"{job}_{i}" for i in range(6)]
    assert all("gres/gpu=3" in row[2].split(",") for row in rows)
    said = [(slurm_cluster.folder / f"array-{i}.txt").read_text().split() for i in range(6)]
    assert all(len(words[1].split(",")) == 3 for words in said)
    if slurm_cluster.has_namespaces:
        assert all(words[2] == words[3] for words in said)


def test_a_step_runs_on_two_nodes(slurm_cluster: SlurmCluster) -> None:
    out = slurm_cluster.folder / "step.txt"

    job = slurm_cluster.sbatch(
        "srun bash -c 'echo $SLURMD_NODENAME'", "--nodes=2", f"--output={out}"
    )

    assert slurm_cluster.wait_for_end(job) == "COMPLETED"
    assert len(set(out.read_text().split())) == 2


def test_a_requeued_job_runs_again_soon_and_both_runs_are_accounted(
    slurm_cluster: SlurmCluster,
) -> None:
    job = slurm_cluster.sbatch('[ -n "$SLURM_RESTART_COUNT" ] || sleep 60', "--output=/dev/null")
    slurm_cluster.wait_for_state(job, "RUNNING")

    slurm_cluster.scontrol("requeue", str(job))

    assert slurm_cluster.wait_for_end(job, timeout_s=30) == "COMPLETED"
    rows = slurm_cluster.wait_for_rows(lambda rows: len(rows) == 2, f"--jobs={job}")
    assert [row[1] for row in rows] == ["REQUEUED", "COMPLETED"]


def test_slurmd_slurmctld_and_slurmdbd_can_die_under_a_job(slurm_cluster: SlurmCluster) -> None:
    job = slurm_cluster.sbatch("sleep 6", "--output=/dev/null")
    slurm_cluster.wait_for_state(job, "RUNNING")
    node = slurm_cluster.job(job)["NodeList"]
    # Saved every 5 s; a controller that dies before has not seen the job start.
    saved = slurm_cluster.folder / "state" / "job_state"
    before = saved.stat().st_mtime_ns
    until(lambda: saved.stat().st_mtime_ns > before, timeout_s=20, what="a saved state")

    slurm_cluster.kill_slurmd(node)
    slurm_cluster.kill_database()
    slurm_cluster.kill_controller()
    deaf = slurm_cluster.try_run("scontrol", "ping")
    slurm_cluster.start_database()  # first: a controller that never saved what it knows needs it
    slurm_cluster.start_controller()
    slurm_cluster.start_slurmd(node)

    assert "DOWN" in deaf.stdout
    assert slurm_cluster.wait_for_end(job) == "COMPLETED"
    slurm_cluster.wait_for_rows(lambda rows: rows and rows[0][1] == "COMPLETED", f"--jobs={job}")


def test_without_slurmdbd_jobs_run_and_sacct_refuses(
    slurm_cluster_without_accounting: SlurmCluster,
) -> None:
    cluster = slurm_cluster_without_accounting

    job = cluster.sbatch("true", "--output=/dev/null")

    assert cluster.wait_for_end(job) == "COMPLETED"
    refused = cluster.try_run("sacct", "-j", str(job))
    assert refused.returncode == 1
    assert "accounting storage is disabled" in refused.stderr


@dataclass(frozen=True)
class Unprivileged:
    """A folder of a user who is nobody, and how that user types."""

    folder: Path

    def types(self, line: str) -> str:
        ended = subprocess.run(
            ["setpriv", *AS_NOBODY, "bash", "-ec", line],
            env={
                "PATH": os.environ["PATH"],
                "TMPDIR": str(self.folder),
                "SCALESWEEP_CLUSTER_DIR": str(self.folder / "cluster"),
                "SCALESWEEP_CLUSTER_NODES": "2",
                "SCALESWEEP_CLUSTER_DBD": "0",
                "SLURM_CONF": str(self.folder / "cluster" / "etc" / "slurm.conf"),
            },
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


@pytest.fixture
def unprivileged(request: pytest.FixtureRequest) -> Iterator[Unprivileged]:
    request.getfixturevalue("slurm_cluster")  # skips where there is no Slurm
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user; this run is unprivileged itself")
    folder = Path(tempfile.mkdtemp(prefix="scalesweep-nobody-"))  # pytest's own are closed to them
    os.chown(folder, NOBODY, NOBODY)
    user = Unprivileged(folder)
    try:
        if subprocess.run(["setpriv", *AS_NOBODY, "test", "-x", SCRIPT]).returncode:
            pytest.skip(f"an unprivileged user cannot read {SCRIPT}")
        yield user
    finally:
        user.types(f"{SCRIPT} wipe")
        shutil.rmtree(folder)


def test_any_user_can_have_a_cluster_and_cut_its_power(unprivileged: Unprivileged) -> None:
    out = unprivileged.folder / "out"

    unprivileged.types(f"{SCRIPT} up")
    unprivileged.types(f"sbatch --wait --gres=gpu:2 --output={out} --wrap '{SHOW_GPUS}'")
    unprivileged.types("sbatch --output=/dev/null --nodelist=n1 --wrap 'sleep 321'")
    until(lambda: _started("sleep\x00321"), timeout_s=20, what="the job's process")
    unprivileged.types(f"{SCRIPT} node-kill n1")

    assert len(out.read_text().split()[0].split(",")) == 2
    assert not _started("sleep\x00321")
    assert "RUNNING" in unprivileged.types("squeue -h -o %T")  # Slurm does not know yet


def _started(words: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == words.encode() + b"\0":
                return True
        except OSError:
            continue
    return False


def test_down_leaves_no_process_behind(tmp_path: Path, slurm_cluster: SlurmCluster) -> None:
    del slurm_cluster  # skips where there is no Slurm; its ports are taken
    cluster = SlurmCluster(folder=tmp_path / "second", num_nodes=2, accounting=False)
    cluster.start(watched_pid=os.getpid())
    job = cluster.sbatch("setsid sleep 322 & sleep 322", "--output=/dev/null")
    until(lambda: _started("sleep\x00322"), timeout_s=20, what="the job's process")

    assert cluster.job(job)["JobState"] == "RUNNING"
    assert len(cluster.processes()) > 8
    cluster.stop()

    assert cluster.processes() == []
    assert not _started("sleep\x00322")


def test_a_watchdog_stops_a_cluster_whose_user_is_gone(tmp_path: Path) -> None:
    cluster = SlurmCluster(folder=tmp_path / "watched", num_nodes=1, accounting=False)
    with subprocess.Popen(["sleep", "600"]) as user:
        cluster.start(watched_pid=user.pid)
        assert cluster.processes()
        user.kill()

    until(lambda: not cluster.processes(), timeout_s=20, what="the watchdog to stop it")
