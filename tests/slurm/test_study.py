"""Whole studies of the real stack on a real cluster, against the same on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalesweep.records import StageKind
from tests.conftest import Undisturbed
from tests.integration.tiny_study import STEPS, digests, scores
from tests.slurm.cluster import SlurmCluster
from tests.slurm.studies import Login

pytestmark = pytest.mark.slow

# Sums of gradients over four ranks in another order than on one: float32, some dozen steps.
LOSS_TOLERANCE = 2e-4


def test_a_study_on_the_cluster_gives_the_bytes_of_the_local_one(
    slurm_cluster: SlurmCluster, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    login = Login(cluster=slurm_cluster, folder=tmp_path, study="tiny")

    said = login.submit("tuning=lora,full", f"optim.max_steps={STEPS}").stdout
    watched = login.verb("watch", "tiny")

    assert "11 submitted in 7 job arrays" in said
    assert "11/11 stages done" in watched
    assert login.digests() == digests(undisturbed.folder)
    assert scores(tmp_path) == scores(undisturbed.folder)
    assert "costs: sacct" in watched.lower()
    again = login.submit("tuning=lora,full", f"optim.max_steps={STEPS}").stdout
    assert "11 done, 0 waited or ran already, 0 submitted" in again


def test_training_on_two_nodes_gives_the_losses_of_one(
    slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    # Two cells in one study: the axis over nodes enters the keys of what it varies.
    login = Login(
        cluster=slurm_cluster,
        folder=tmp_path,
        study="nodes",
        settings=(
            "cluster.stage_devices=2",
            "batch.micro_batch_size=10",
            "align.micro_batch_size=10",
            "zero.stage=2",
            "until=tune",
        ),
    )

    login.submit("nodes=1,2", "tuning=full", f"optim.max_steps={STEPS}")
    login.verb("watch", "nodes")

    losses = {}
    for stage in login.plan().stages:
        if stage.spec.kind is StageKind.tune:
            (attempt,) = login.folder_of(stage).attempts()
            losses[stage.execution.num_nodes] = [row["train/loss"] for row in attempt.metric_rows()]
    assert set(losses) == {1, 2}
    assert len(losses[2]) == STEPS
    assert losses[2] == pytest.approx(losses[1], abs=LOSS_TOLERANCE)
    rows = slurm_cluster.sacct(fields="JobName,NNodes,AllocTRES")
    trained = [row for row in rows if row[0].startswith("nodes-tune") and row[1] == "2"]
    assert ["gres/gpu=4" in row[2] for row in trained] == [True]


def test_a_parent_that_fails_cancels_its_own_descendants_alone(
    slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    seeds = ",".join(str(seed) for seed in range(1, 9))
    login = Login(
        cluster=slurm_cluster,
        folder=tmp_path,
        study="eight",
        runner="tests.fakes.failing_align",
        settings=("cluster.array_parallelism=8",),
    )

    login.submit(f"seed={seeds}", "tuning=full")
    login.wait_for_queue()

    status = login.status()
    states = [cell["state"] for cell in status["cells"]]
    assert states.count("done") == 7
    assert states.count("failed") == 1
    failed = [stage for stage in status["stages"] if stage["state"] == "failed"]
    assert [stage["detail"] for stage in failed] == ["seed 3 has no luck"]
    blocked = [stage for stage in status["stages"] if stage["state"] == "blocked"]
    assert len(blocked) == 3  # tune, generate and judge of that cell
    assert all(json.loads(f.read_text()) for f in login.store.root.glob("stages/judge/*/done.json"))
