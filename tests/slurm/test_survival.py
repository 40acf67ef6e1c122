"""What clusters do to jobs: each is survived, and the bytes are those of an undisturbed run."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from scalesweep.records import StageKind
from scalesweep.rundir import read_json
from tests.slurm.cluster import SlurmCluster, until
from tests.slurm.studies import LIGHT, Login

pytestmark = pytest.mark.slow
PACE_S = 0.1


@pytest.fixture
def login(slurm_cluster: SlurmCluster, tmp_path: Path) -> Login:
    return Login(
        cluster=slurm_cluster,
        folder=tmp_path,
        study="light",
        runner=LIGHT,
        step_s=PACE_S,
        settings=("until=tune", "cluster.silent_s=10"),
    )


@pytest.fixture(scope="module")
def expected(
    slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Digests of the study when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("expected")
    login = Login(
        cluster=slurm_cluster,
        folder=folder,
        study="light",
        runner=LIGHT,
        step_s=0.01,
        settings=("until=tune",),
    )
    login.submit("tuning=full")
    login.wait_for_queue()
    return login.digests()


def finish(login: Login, expected: dict[str, str]) -> None:
    login.wait_for_queue()
    assert login.digests() == expected, login.logs()


def outcomes(login: Login) -> list[tuple[str, str]]:
    """Outcome and class of every attempt of the tune stage."""
    found = []
    for attempt in login.folder_of(login.stage(StageKind.tune)).attempts():
        usage = attempt.usage()
        found.append((str(usage.outcome), usage.failure) if usage else ("", ""))
    return found


def test_signals_requeues_and_kills_are_survived_by_the_job_itself(
    login: Login, expected: dict[str, str]
) -> None:
    login.submit("tuning=full")
    tune = login.stage(StageKind.tune)
    cluster = login.cluster
    element = login.element(tune)

    login.wait_for_step(tune, attempt=1)
    cluster.run("scancel", "--batch", "--signal=USR2", element)  # the time limit comes near
    login.wait_for_step(tune, attempt=2)
    cluster.run("scancel", "--signal=TERM", f"{element}.0")  # what ranks hear of a preemption
    third = login.wait_for_step(tune, attempt=3)
    subprocess.run(["pkill", "-9", "-f", str(third.path / "task.json")], check=True)  # ranks, srun
    login.wait_for_step(tune, attempt=4)
    cluster.run("scontrol", "requeue", element)
    login.wait_for_step(tune, attempt=5)
    finish(login, expected)

    assert outcomes(login)[:4] == [
        ("interrupted", "time_limit"),
        ("interrupted", "preempted"),
        ("killed", "killed"),
        ("interrupted", ""),
    ]
    assert outcomes(login)[-1] == ("done", "")
    steps = [
        usage.first_step
        for attempt in login.folder_of(tune).attempts()
        if (usage := attempt.usage()) is not None
    ]
    assert steps == sorted(steps)
    assert steps[1] > 0
    assert_accounted(login, ["REQUEUED"] * 3 + ["COMPLETED"])


def assert_accounted(login: Login, states: list[str]) -> None:
    """The report charges what sacct has of all runs, and the attempts' journals agree with it."""
    tune = login.stage(StageKind.tune)
    rows = login.cluster.wait_for_rows(
        lambda rows: [row[1] for row in rows] == states,
        "-j",
        login.element(tune),
        fields="JobID,State,ElapsedRaw",
    )
    login.verb("report", "light", "--format", "json", "--output", str(login.folder / "r.json"))
    report = read_json(login.folder / "r.json")

    (stage,) = [s for s in report["stages"] if s["stage"] == str(tune.spec.ref)]
    by_sacct = sum(int(row[2]) for row in rows)
    assert stage["costs"]["total"]["device_seconds"] == pytest.approx(by_sacct)
    journal = sum(
        usage.wall_s
        for attempt in login.folder_of(tune).attempts()
        if (usage := attempt.usage()) is not None
    )
    assert journal == pytest.approx(by_sacct, abs=2 * len(rows))


def test_a_step_whose_slurmstepd_is_killed_is_done_again(
    login: Login, expected: dict[str, str]
) -> None:
    login.submit("tuning=full")
    tune = login.stage(StageKind.tune)
    login.wait_for_step(tune, attempt=1)
    job = login.cluster.job(login.element(tune))["JobId"]

    subprocess.run(["pkill", "-9", "-f", rf"slurmstepd: \[{job}\.0\]"], check=True)
    finish(login, expected)

    assert outcomes(login)[0] == ("killed", "node_failure")


def test_a_preempted_job_goes_on_when_there_are_nodes(
    login: Login, expected: dict[str, str]
) -> None:
    login.submit("tuning=full")
    tune = login.stage(StageKind.tune)
    login.wait_for_step(tune, attempt=1)

    login.cluster.sbatch("sleep 2", "-p", "urgent", "-N4", "--exclusive", "-o", "/dev/null")
    finish(login, expected)

    assert len(outcomes(login)) >= 2


def test_a_node_that_loses_power_is_survived(login: Login, expected: dict[str, str]) -> None:
    login.submit("tuning=full")
    tune = login.stage(StageKind.tune)
    login.wait_for_step(tune, attempt=1)
    node = login.cluster.job(login.element(tune))["NodeList"]

    login.cluster.kill_node(node)
    login.wait_for_step(tune, attempt=2, timeout_s=120)
    states = login.states()
    login.cluster.start_node(node)
    finish(login, expected)

    assert states[tune.spec.label] == "running"
    assert outcomes(login)[0][0] == "running"  # its supervisor died with it
    report = login.verb("report", "light")
    assert "sacct" in report


def test_a_controller_that_is_away_while_a_line_is_typed_is_waited_for(
    login: Login, expected: dict[str, str]
) -> None:
    login.cluster.kill_controller()
    typed = subprocess.Popen(
        login.line("tuning=full"),
        cwd=login.folder,
        env=login.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    time.sleep(5)
    assert typed.poll() is None
    login.cluster.start_controller()
    said, _ = typed.communicate(timeout=120)

    assert typed.returncode == 0, said
    finish(login, expected)
    names = [row[0] for row in login.cluster.sacct(fields="JobName")]
    for folder in (login.store.root / "jobs").iterdir():
        assert names.count(folder.name) == 1


def test_a_submitter_that_dies_leaves_no_unknown_job_and_none_twice(
    login: Login, expected: dict[str, str]
) -> None:
    """Killed at the very moment when sbatch has answered and its id is not written yet."""
    for moment in ("before", "after"):
        env = {**login.environment(), "SCALESWEEP_TEST_DIE": moment}
        killed = subprocess.run(
            [login.line()[0], "-m", "tests.fakes.dying_submitter", *login.line("tuning=full")[3:]],
            cwd=login.folder,
            env={**env, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    login.submit("tuning=full")
    finish(login, expected)

    for stage in login.plan().stages:
        assert len(login.folder_of(stage).attempts()) == 1
    rows = login.cluster.sacct(fields="JobName,State")
    ours = [row for row in rows if (login.store.root / "jobs" / row[0]).is_dir()]
    assert len(ours) == len(login.plan().stages)  # each ran once; what died before sbatch never


def test_two_studies_that_need_the_same_stages_run_them_once(
    login: Login, expected: dict[str, str]
) -> None:
    other = Login(
        cluster=login.cluster,
        folder=login.folder,
        study="other",
        runner=LIGHT,
        step_s=PACE_S,
        settings=login.settings,
    )
    lines = [one.line("tuning=full") for one in (login, other, login)]
    typed = [
        subprocess.Popen(
            line, cwd=login.folder, env=login.environment(), stdout=subprocess.PIPE, text=True
        )
        for line in lines
    ]
    said = [process.communicate(timeout=180)[0] for process in typed]

    assert [process.returncode for process in typed] == [0, 0, 0], said
    finish(login, expected)
    for stage in login.plan().stages:
        assert len(login.folder_of(stage).attempts()) == 1, login.logs()


def test_a_cancelled_study_goes_on_from_its_checkpoint(
    login: Login, expected: dict[str, str]
) -> None:
    login.submit("tuning=full")
    tune = login.stage(StageKind.tune)
    login.wait_for_step(tune, attempt=1, step=6)

    said = login.verb("cancel", "light")
    login.wait_for_queue()

    assert "told to write a checkpoint and end" in said
    assert outcomes(login) == [("interrupted", "cancelled")]
    assert login.states()[tune.spec.label] == "interrupted"
    login.submit("tuning=full")
    finish(login, expected)
    last = login.folder_of(tune).attempts()[-1].usage()
    assert last is not None
    assert last.first_step >= 6


def test_no_secret_of_the_shell_reaches_slurm(login: Login, expected: dict[str, str]) -> None:
    secret = "scalesweep-test-secret-4711"
    login.more_env = {"OPENAI_API_KEY": secret, "WANDB_API_KEY": secret, "MY_TOKEN": secret}

    login.submit("tuning=full", "cluster.sbatch=['--begin=now+5']")
    element = login.element(login.stage(StageKind.data, "mini_train"))
    script = login.cluster.run("scontrol", "write", "batch_script", element, "-")
    held = grep(secret, login.cluster.folder / "state")
    finish(login, expected)

    assert secret not in script
    assert not held
    assert not grep(secret, login.cluster.folder)  # state, spool, logs and the database's files
    assert not grep(secret, login.folder)


def grep(text: str, folder: Path) -> list[str]:
    """Files below a folder that hold a text."""
    ended = subprocess.run(
        ["grep", "-rlaF", text, str(folder)], capture_output=True, text=True, check=False
    )
    return ended.stdout.splitlines()


def test_without_accounting_the_journal_says_what_it_cost(
    slurm_cluster_without_accounting: SlurmCluster, tmp_path: Path
) -> None:
    login = Login(
        cluster=slurm_cluster_without_accounting,
        folder=tmp_path,
        study="light",
        runner=LIGHT,
        step_s=0.05,
        settings=("until=tune",),
    )

    login.submit("tuning=full")
    login.wait_for_queue()
    report = " ".join(login.verb("report", "light").split())

    assert set(login.states().values()) == {"done"}
    assert re.search(r"own journals \(no Slurm accounting: .*disabled\)", report)


def test_a_full_file_system_is_waited_for(login: Login, expected: dict[str, str]) -> None:
    """As root: the store is a small file system that is full for some seconds."""
    if not login.cluster.has_namespaces:
        pytest.skip("mounting needs root")
    store = login.cluster.shared / "full"
    store.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(store)], check=True)
    try:
        (login.folder / "store").symlink_to(store, target_is_directory=True)
        login.submit("tuning=full")
        tune = login.stage(StageKind.tune)
        login.wait_for_step(tune, attempt=1)
        filler = store / "filler"
        fill(filler)
        until(
            lambda: "cannot be written" in login.logs() or "storage" in login.logs(),
            timeout_s=60,
            what="a supervisor that waits for the file system",
        )
        filler.unlink()
        finish(login, expected)
    finally:
        login.cluster.run("scancel", "--quiet", "--user", "root")
        until(lambda: not login.cluster.squeue(), timeout_s=60, what="an empty queue")
        subprocess.run(["umount", "-l", str(store)], check=True)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 65536)
