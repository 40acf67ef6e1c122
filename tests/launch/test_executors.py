"""Batch scripts are compared word by word; sbatch's answer is read, and never guessed."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scalesweep.launch.executors import (
    JobShape,
    Script,
    batch_script,
    compact,
    sbatch,
)
from scalesweep.launch.jobs import log_file
from scalesweep.launch.slurm import SlurmError
from tests.fakes.slurm import AWAY, FakeSlurm

GOLDEN = Path(__file__).parent / "golden"

TUNE = JobShape(
    nodes=2,
    tasks_per_node=8,
    devices_per_node=8,
    gres="gpu:a100",
    cpus_per_task=12,
    memory_gb=480.5,
    timeout_min=1440,
    signal_lead_s=300,
    partition="main",
    account="vision",
    qos="high",
    constraint="ib&nvme",
    exclusive=True,
    array_parallelism=64,
    options=("--reservation=study week", "--no-kill", "--time-min=60"),
)
DATA = JobShape(
    nodes=1,
    tasks_per_node=1,
    devices_per_node=0,
    gres="gpu",
    cpus_per_task=4,
    memory_gb=None,
    timeout_min=60,
    signal_lead_s=300,
    partition=None,
    account=None,
    qos=None,
    constraint=None,
    exclusive=False,
    array_parallelism=256,
)
SCRIPT = Script(code=Path("/store/code/0123456789abcdef"), directory=Path("/store"))
LOADED = Script(
    code=Path("/my store/code/0123456789abcdef"),
    preamble="/home/me/modules of the lab.sh",
    env={"NCCL_SOCKET_IFNAME": "ib0", "GREETING": "it's $HOME"},
    directory=Path("/my store"),
)


def script_of(shape: JobShape, script: Script = SCRIPT, **settings: object) -> str:
    given = {
        "name": "ablation-tune-0123456789",
        "indices": [0],
        "dependency": "",
        "comment": "scalesweep ablation",
        **settings,
    }
    folder = script.directory / "jobs" / str(given["name"])
    return batch_script(folder, shape=shape, script=script, **given)  # type: ignore[arg-type]


def check_golden(name: str, text: str) -> None:
    """The interpreter is that of whoever submits."""
    found = text.replace(shlex.quote(sys.executable), "PYTHON")
    assert found == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_script_of_a_stage_on_several_nodes_with_every_option() -> None:
    text = script_of(
        TUNE, LOADED, indices=[7, 0, 2, 1], dependency="afterok:12_3:15_0,aftercorr:14"
    )

    check_golden("job_gpu.sh", text)


def test_the_script_of_a_stage_without_a_device() -> None:
    text = script_of(DATA, name="ablation-data-0123456789")

    check_golden("job_cpu.sh", text)


def test_the_script_is_one_that_bash_can_read(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(script_of(TUNE, LOADED), encoding="utf-8")

    subprocess.run(["bash", "-n", str(script)], check=True)


def test_what_the_script_sets_reaches_the_supervisor_as_it_was_given(tmp_path: Path) -> None:
    preamble = tmp_path / "pre amble.sh"
    preamble.write_text("export PYTHONPATH=/site FROM_SITE=yes\n", encoding="utf-8")
    script = Script(
        code=Path("/co de"), preamble=str(preamble), env={"X": "it's $HOME"}, directory=tmp_path
    )
    text = script_of(DATA, script)
    begin = text[: text.index("exec ")]

    said = subprocess.run(
        ["bash", "-c", f'{begin}\nprintf "%s|" "$PYTHONPATH" "$X" "$FROM_SITE"'],
        capture_output=True,
        text=True,
        check=True,
    )

    assert said.stdout == "/co de:/site|it's $HOME|yes|"


def test_a_preamble_that_fails_ends_the_job_with_a_status_of_its_own(tmp_path: Path) -> None:
    text = script_of(DATA, Script(code=tmp_path, preamble="/no/such/file", directory=tmp_path))

    ended = subprocess.run(["bash", "-c", text], capture_output=True, check=False)

    assert ended.returncode == 78


@pytest.mark.parametrize(
    ("gigabytes", "line"),
    [(0, "#SBATCH --mem=0\n"), (480.5, "#SBATCH --mem=480500M\n"), (1e-6, "#SBATCH --mem=1M\n")],
)
def test_memory_is_asked_for_in_megabytes_and_zero_is_all_of_it(
    gigabytes: float, line: str
) -> None:
    assert line in script_of(dataclasses.replace(DATA, memory_gb=gigabytes))


def test_an_option_of_the_cluster_replaces_ours() -> None:
    text = script_of(dataclasses.replace(DATA, options=("--chdir=/elsewhere",)))

    assert "#SBATCH --chdir=/elsewhere\n" in text
    assert text.count("--chdir") == 1


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([0], "0"),
        ([0, 1, 2], "0-2"),
        ([7, 2, 1, 0], "0-2,7"),
        ([1, 3, 5], "1,3,5"),
        ([0, 1, 900, 901], "0-1,900-901"),
        ([], ""),
    ],
)
def test_indices_are_written_as_ranges(indices: list[int], text: str) -> None:
    assert compact(indices) == text


def test_the_log_is_where_slurm_is_told_to_write_it() -> None:
    folder = Path("/store/jobs/ablation-tune-0123456789")

    path = log_file(folder, array_job_id=12, index=3)

    template = str(path).replace("12_3", "%A_%a")
    assert f"#SBATCH --output={template}\n" in script_of(TUNE)


# ---------------------------------------------------------------------- sbatch


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", fake.path)
    return fake


def submitted(tmp_path: Path, slurm: FakeSlurm) -> int:
    return sbatch(tmp_path, script_of(DATA, indices=[0, 1]), env={"PATH": slurm.path})


def test_sbatch_answers_with_the_id_of_the_array(tmp_path: Path, slurm: FakeSlurm) -> None:
    job_id = submitted(tmp_path, slurm)

    assert list(slurm.states()) == [f"{job_id}_0", f"{job_id}_1"]
    assert (tmp_path / "job.sh").read_text() == script_of(DATA, indices=[0, 1])


def test_what_sbatch_refuses_is_an_error_with_its_words(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.fault("sbatch", "refuse", "sbatch: error: invalid partition specified: x")

    with pytest.raises(SlurmError, match=r"^sbatch: .*invalid partition specified: x$"):
        submitted(tmp_path, slurm)


def test_a_controller_that_is_away_is_an_error(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.fault("sbatch", "lost", AWAY)

    with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
        submitted(tmp_path, slurm)


def test_an_answer_without_an_id_is_an_error(tmp_path: Path, slurm: FakeSlurm) -> None:
    (slurm.bin / "sbatch").write_text("#!/bin/sh\necho 'Submitted, I think'\n")

    with pytest.raises(SlurmError, match="cannot find a job id in its answer 'Submitted, I think'"):
        submitted(tmp_path, slurm)
