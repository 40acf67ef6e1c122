"""A short piece of chaos: faults at random moments, and the study ends with the same bytes.

`make chaos` is the long one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.chaos import ChaosRun, sequence
from tests.slurm.cluster import SlurmCluster
from tests.slurm.faults import FAULTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
QUICK = (
    "submitter_killed",
    "requeued",
    "usr2",
    "rank_killed",
    "supervisor_killed",
    "database_killed",
)
"""Faults that Slurm gets over within seconds."""


def test_a_study_that_is_hit_by_six_faults_ends_with_the_same_bytes(
    slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    run = ChaosRun(
        seed=7,
        cluster=slurm_cluster,
        folder=tmp_path / "run",
        kinds=sequence(7, num_faults=len(QUICK), kinds=QUICK),
        num_cells=3,
        step_s=0.1,
        gap_s=(0.5, 4.0),
    )

    run.run()

    assert set(run.injected) == set(QUICK)
    assert [fault for verdict in run.verdicts for fault in verdict.faults] == []
    assert len(run.study.plan.stages) >= 12


def test_a_sequence_has_every_kind_and_is_the_same_for_the_same_seed() -> None:
    one = sequence(3, num_faults=30, kinds=list(FAULTS))

    assert set(one) == set(FAULTS)
    assert len(one) == 30
    assert one == sequence(3, num_faults=30, kinds=list(FAULTS))
    assert one != sequence(4, num_faults=30, kinds=list(FAULTS))
