"""Whole studies of the real stack on a real cluster, against the same on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalesweep.records import StageKind
from scalesweep.rundir import StageDir
from scalesweep.tracking import metric_names as names
from tests.conftest import Undisturbed
from tests.integration.tiny_study import STEPS, digests, scores, store_of
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


def test_training_on_two_nodes_gives_the_losses_of_one_process(
    slurm_cluster: SlurmCluster, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    login = Login(
        cluster=slurm_cluster,
        folder=tmp_path,
        study="nodes",
        settings=(
            "nodes=2",
            "cluster.stage_devices=2",
            "batch.micro_batch_size=10",
            "align.micro_batch_size=10",
            "zero.stage=2",
            "until=tune",
        ),
    )

    login.submit("tuning=full", f"optim.max_steps={STEPS}")
    login.verb("watch", "nodes")

    tune = login.stage(StageKind.tune)
    assert (tune.execution.num_nodes, tune.execution.world_size) == (2, 4)
    alone = losses(store_of(undisturbed.folder).stage(tune.spec.ref))
    together = losses(login.folder_of(tune))
    assert len(together) == STEPS
    assert together == pytest.approx(alone, abs=LOSS_TOLERANCE)
    rows = slurm_cluster.sacct(fields="JobName,NNodes,AllocTRES")
    trained = [row for row in rows if row[0].startswith("nodes-tune")]
    assert [(row[1], "gres/gpu=4" in row[2]) for row in trained] == [("2", True)]


def losses(stage: StageDir) -> list[float]:
    """Of the steps of a stage's one attempt."""
    (attempt,) = stage.attempts()
    return [row[names.LOSS] for row in attempt.metric_rows() if names.STEP in row]


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
