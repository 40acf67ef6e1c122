"""Whole commands in processes of their own: killed, interrupted, started twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scalesweep.launch import leases
from scalesweep.launch.cancel import cancel
from scalesweep.launch.local import State
from scalesweep.plan.graph import Plan
from scalesweep.records import Outcome
from scalesweep.rundir import Store, write_json
from tests.fakes.plans import plan_of, stage
from tests.fakes.processes import descendants, living, started, wait_for
from tests.fakes.stage_runner import journal, output_text, pids
from tests.launch.running import run, states

REPOSITORY = Path(__file__).parents[2]
ORPHANS_END_WITHIN_S = 10


class Shell:
    """Starts commands that run a plan below one folder."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store")
        self._folder = folder
        self._stack = ExitStack()

    def start(self, plan: Plan, *words: str, workers: int = 2) -> subprocess.Popen[str]:
        file = self._folder / "plan.json"
        write_json(file, plan.to_json())
        line = [sys.executable, "-m", "tests.fakes.command", str(file), str(self.store.root)]
        return self._stack.enter_context(started([*line, str(workers), *words], cwd=REPOSITORY))

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def test_the_death_of_the_command_ends_its_ranks_and_their_server(shell: Shell) -> None:
    deaf, long = stage("deaf", "stubborn"), stage("long", "count", steps=10_000)
    command = shell.start(plan_of(deaf, long))
    wait_for(lambda: journal(shell.store, "stubborn") and journal(shell.store, "step3"))
    below = descendants(command.pid)
    assert set(pids(shell.store)) <= set(below)
    assert len(below) >= 3  # two ranks and the server

    os.kill(command.pid, signal.SIGKILL)

    wait_for(lambda: not living(below), timeout_s=ORPHANS_END_WITHIN_S)
    assert shell.store.stage(deaf.spec.ref).done() is None
    assert leases.holder(shell.store.stage(long.spec.ref)) is None


def test_what_an_orphan_did_is_continued_and_never_published(shell: Shell) -> None:
    long = stage("long", "count", steps=30, step_s=0.05)
    plan = plan_of(long)
    command = shell.start(plan)
    wait_for(lambda: journal(shell.store, "step3"))
    os.kill(command.pid, signal.SIGKILL)

    result = run(plan, shell.store)

    done = shell.store.stage(long.spec.ref).done()
    assert result.all_done
    assert done is not None
    assert done.attempt == 2
    # At most the step that was under way is done twice.
    steps = Counter(n for n in range(1, 31) for _ in journal(shell.store, f"step{n}"))
    assert set(steps) == set(range(1, 31))
    assert steps.total() <= 31


def test_a_server_killed_during_imports_is_started_again(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW_IMPORT_S", "2")
    command = shell.start(plan_of(stage("one")), "tests.fakes.slow_import")
    wait_for(lambda: _importing(command.pid))

    os.kill(next(p for p in descendants(command.pid) if _imports(p)), signal.SIGKILL)

    assert command.wait(timeout=60) == 0


def test_the_death_of_the_command_during_imports_ends_the_server(shell: Shell) -> None:
    command = shell.start(plan_of(stage("one")), "tests.fakes.slow_import")
    wait_for(lambda: _importing(command.pid))
    below = descendants(command.pid)

    os.kill(command.pid, signal.SIGKILL)

    wait_for(lambda: not living(below), timeout_s=ORPHANS_END_WITHIN_S)


def _importing(pid: int) -> bool:
    """Whether the server below a command is at its imports."""
    return any(_imports(child) for child in descendants(pid))


def _imports(pid: int) -> bool:
    try:
        return "slow_import" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_stops_in_order(shell: Shell, number: int) -> None:
    """A terminal sends Ctrl-C to every process of the line, a batch system SIGTERM."""
    long = stage("long", "count", steps=10_000)
    command = shell.start(plan_of(long))
    wait_for(lambda: journal(shell.store, "step3"))

    os.killpg(command.pid, number)
    said, _ = command.communicate(timeout=60)

    usage = shell.store.stage(long.spec.ref).attempt(1).usage()
    assert command.returncode == 130
    assert usage is not None
    assert usage.outcome is Outcome.interrupted
    assert "Traceback" not in said
    assert "1 stages: 1 interrupted (0 done before), 1 new attempts" in said


def test_a_signal_to_the_whole_group_during_imports_ends_at_once(shell: Shell) -> None:
    command = shell.start(plan_of(stage("one")), "tests.fakes.slow_import")
    wait_for(lambda: _importing(command.pid))
    below = descendants(command.pid)
    begin = time.monotonic()

    os.killpg(command.pid, signal.SIGINT)
    said, _ = command.communicate(timeout=60)

    assert command.returncode == 130
    assert "Traceback" not in said
    assert time.monotonic() - begin < 10
    wait_for(lambda: not living(below), timeout_s=ORPHANS_END_WITHIN_S)
    assert list((shell.store.study("fake") / "commands").iterdir()) == []


def test_nothing_lives_on_after_a_command_ended_well(shell: Shell) -> None:
    command = shell.start(plan_of(stage("long", "count", steps=10)))
    wait_for(lambda: journal(shell.store, "step3"))
    below = descendants(command.pid)

    assert command.wait(timeout=60) == 0
    wait_for(lambda: not living(below), timeout_s=ORPHANS_END_WITHIN_S)


def test_all_processes_killed_at_once_leave_a_store_that_continues(shell: Shell) -> None:
    long = stage("long", "count", steps=40)
    plan = plan_of(long, stage("after", after=[long], text="x"))
    command = shell.start(plan)
    wait_for(lambda: journal(shell.store, "step3"))

    os.killpg(command.pid, signal.SIGKILL)
    command.wait()

    assert states(run(plan, shell.store)) == {"long": State.done, "after": State.done}


def test_two_commands_at_once_run_each_stage_once(shell: Shell) -> None:
    data = stage("data", "count", steps=2)
    middle = [stage(f"middle{i}", "count", steps=2, after=[data]) for i in range(6)]
    last = [stage(f"last{i}", after=[parent]) for i, parent in enumerate(middle)]
    plan = plan_of(data, *middle, *last)

    commands = [shell.start(plan) for _ in range(2)]
    said = [command.communicate(timeout=120)[0] for command in commands]

    assert [command.returncode for command in commands] == [0, 0]
    assert Counter(journal(shell.store)) == {s.spec.label: 1 for s in plan.stages}
    assert "13 stages: 13 done" in said[0] + said[1]


def test_a_command_takes_over_what_another_one_left(shell: Shell) -> None:
    gated = stage("gated", "wait", gate="open", text="x")
    plan = plan_of(gated)
    first = shell.start(plan)
    wait_for(lambda: journal(shell.store))
    second = shell.start(plan)
    time.sleep(1.5)
    assert len(journal(shell.store)) == 1  # the second one waits

    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: len(journal(shell.store)) == 2)
    (shell.store.root / "open").touch()
    said, _ = second.communicate(timeout=60)

    assert second.returncode == 0
    host = leases.this_process().host
    assert f"waits   gated: process {first.pid} on {host} is at it" in said
    assert output_text(shell.store, gated.spec.ref) == "x"


def test_cancel_stops_a_living_command_as_ctrl_c_would(shell: Shell) -> None:
    long = stage("long", "count", steps=10_000)
    command = shell.start(plan_of(long))
    wait_for(lambda: journal(shell.store, "step3"))

    lines = cancel(shell.store, "fake")

    assert lines == [f"process {command.pid}: stopped"]
    assert command.wait(timeout=30) == 130
    usage = shell.store.stage(long.spec.ref).attempt(1).usage()
    assert usage is not None
    assert usage.outcome is Outcome.interrupted


def test_the_last_line_of_a_failed_run_names_cell_cause_and_log(shell: Shell) -> None:
    bad, good = stage("bad", "fail"), stage("good")
    plan = plan_of(bad, good, cells={"cell-a": [bad], "cell-b": [good]})

    command = shell.start(plan)
    said, _ = command.communicate(timeout=60)

    log = shell.store.stage(bad.spec.ref).attempt(1).log
    assert command.returncode == 1
    assert said.splitlines()[-1] == f"failed: cell cell-a: bad: bad cannot be done; log: {log}"


def test_a_store_that_cannot_be_written_is_one_line_and_exit_2(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.store = Store(Path("/dev/null/store"))

    command = shell.start(plan_of(stage("one")))
    said, _ = command.communicate(timeout=60)
    shell.close()

    assert command.returncode == 2
    assert said == (
        "scalesweep: store=/dev/null/store: cannot be written (Not a directory); choose another "
        "with store=DIR\n"
    )
