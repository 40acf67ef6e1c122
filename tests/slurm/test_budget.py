"""A cluster's supervisors hold a study to its budget with nobody looking on."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalesweep.records import StageKind, Usage
from tests.slurm.cluster import SlurmCluster
from tests.slurm.studies import LIGHT, Login

pytestmark = pytest.mark.slow
STEP_S = 0.3
EVERY = 4
"""Steps between two checkpoints of the light trainer."""


@pytest.fixture
def login(slurm_cluster: SlurmCluster, tmp_path: Path) -> Login:
    return login_in(slurm_cluster, tmp_path)


def login_in(cluster: SlurmCluster, folder: Path) -> Login:
    return Login(
        cluster=cluster,
        folder=folder,
        study="bounded",
        runner=LIGHT,
        step_s=STEP_S,
        # Without a device nothing is predicted: all is begun, and stopped while it runs.
        settings=(
            "until=generate",
            "tuning=lora,full",
            "cluster.device=null",
            f"cluster.checkpoint_every_steps={EVERY}",
        ),
    )


def usages(login: Login) -> dict[str, list[Usage]]:
    """Label of a stage -> its attempts."""
    return {
        stage.spec.label: [
            usage for a in login.folder_of(stage).attempts() if (usage := a.usage()) is not None
        ]
        for stage in login.plan().stages
    }


def spent(login: Login) -> float:
    return sum(usage.node_hours for of_stage in usages(login).values() for usage in of_stage)


def test_a_study_stops_in_time_and_goes_on_when_its_budget_is_raised(
    login: Login, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    (tmp_path / "free").mkdir()
    free = login_in(slurm_cluster, tmp_path / "free")
    free.submit()
    free.wait_for_queue()
    expected, whole = free.digests(), spent(free)
    bound = 0.6 * whole

    login.submit(f"budget.node_hours={bound}")
    login.wait_for_queue()

    found = usages(login)
    stopped = {
        label: of_stage[-1]
        for label, of_stage in found.items()
        if of_stage and of_stage[-1].failure == "budget"
    }
    assert stopped, login.logs()
    assert {str(usage.outcome) for usage in stopped.values()} <= {"interrupted", "killed"}
    one_interval = sum(
        usage.num_devices / usage.node_devices * EVERY * STEP_S / 3600 for usage in stopped.values()
    )
    assert spent(login) < bound + one_interval
    assert spent(login) > 0.3 * whole  # it was not stopped for no reason
    states = login.states()
    for label in stopped:
        assert states[label] == "out of budget"
    generate = [s.spec.label for s in login.plan().stages if s.spec.kind is StageKind.generate]
    assert any(states[label] == "left out" and not found[label] for label in generate)
    assert login.status()["budget"]["over"]["node_hours"] <= one_interval
    said = login.verb("status", "bounded")
    assert "budget.node_hours=" in said
    assert "raise it and type the line again for what was stopped" in said

    again = login.submit(f"budget.node_hours={10 * whole}").stdout
    login.wait_for_queue()

    assert "reserved for 2 of 2 cells" in again
    assert login.digests() == expected, login.logs()
    trained = [label for label, usage in stopped.items() if usage.steps]
    assert trained
    for label in trained:  # it went on from where it was stopped
        assert usages(login)[label][-1].first_step == stopped[label].first_step + (
            stopped[label].steps
        )
