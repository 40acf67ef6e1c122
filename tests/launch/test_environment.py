"""Jobs get what they need of a shell's variables, and no secret of it."""

from __future__ import annotations

import pytest

from scalesweep.launch.environment import allowed

SECRETS = (
    "WANDB_API_KEY",
    "HF_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "SSH_AUTH_SOCK",
    "SLURM_JWT",
    "MY_PASSWORD",
    "https_proxy",
)


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_stay_in_the_shell(name: str) -> None:
    assert allowed({name: "s3cret", "HOME": "/home/me"}) == {"HOME": "/home/me"}


def test_what_a_job_needs_to_begin_goes_with_it() -> None:
    needed = {
        "HOME": "/home/me",
        "PATH": "/usr/bin",
        "LANG": "C.UTF-8",
        "LC_ALL": "C",
        "SLURM_CONF": "/etc/slurm.conf",
        "HF_HOME": "/data/hf",
        "SCALESWEEP_STORE": "/store",
    }

    assert allowed(needed) == needed


def test_settings_of_sbatch_in_the_shell_do_not_change_jobs() -> None:
    assert allowed({"SBATCH_PARTITION": "debug", "SLURM_JOB_ID": "7", "PYTHONPATH": "/x"}) == {}


def test_a_name_is_added_where_the_cluster_says_so() -> None:
    environment = {"NCCL_DEBUG": "INFO", "NCCL_SOCKET_IFNAME": "ib0"}

    assert allowed(environment, also=["NCCL_DEBUG", "ABSENT"]) == {"NCCL_DEBUG": "INFO"}
