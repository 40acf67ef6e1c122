"""kill -9 of the command, of a worker and of all, again and again: the results are the same bytes.

Moments are chosen by what lies in the store, not by time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scalesweep.records import StageKind
from scalesweep.rundir import AttemptDir
from scalesweep.tracking import metric_names as names
from tests.conftest import Undisturbed
from tests.fakes.processes import descendants, living, wait_for
from tests.integration.tiny_study import (
    CHECKPOINT_EVERY,
    STEPS,
    STUDY,
    begun,
    digests,
    plan_in,
    scores,
    store_of,
    typed,
    weights,
)

pytestmark = pytest.mark.slow
ORPHANS_END_WITHIN_S = 10
IN_THE_MIDDLE = CHECKPOINT_EVERY + 2
"""Steps after which a tune stage has a checkpoint and is far from its end."""


def attempts(folder: Path, kind: StageKind) -> list[AttemptDir]:
    """All attempts of a kind that have begun to write their log."""
    paths = (folder / "store" / "stages" / kind).glob("*/attempts/[0-9]*")
    return [AttemptDir(path) for path in sorted(paths) if (path / "log").exists()]


def attempts_beside(attempt: AttemptDir) -> list[AttemptDir]:
    """All attempts of the attempt's stage, in order of number."""
    return [AttemptDir(path) for path in sorted(attempt.path.parent.glob("[0-9]*"))]


def in_data(folder: Path) -> AttemptDir | None:
    return next(iter(attempts(folder, StageKind.data)), None)


def in_tune(folder: Path) -> AttemptDir | None:
    for attempt in attempts(folder, StageKind.tune):
        if IN_THE_MIDDLE <= len(list(attempt.metric_rows())) < STEPS:
            return attempt
    return None


def in_generate(folder: Path) -> AttemptDir | None:
    """An attempt that answers with a tuned checkpoint."""
    of_tuned = {
        planned.spec.key
        for planned in plan_in(folder).stages
        if planned.spec.kind is StageKind.generate and "checkpoint" in planned.spec.inputs
    }
    found = attempts(folder, StageKind.generate)
    return next((a for a in found if a.path.parents[1].name in of_tuned), None)


MOMENTS: tuple[Callable[[Path], AttemptDir | None], ...] = (in_data, in_tune, in_generate)


def wait_until(
    moment: Callable[[Path], AttemptDir | None], folder: Path, command: subprocess.Popen[str]
) -> AttemptDir:
    """The attempt that a moment is about, while the command runs."""
    found: list[AttemptDir] = []

    def come() -> bool:
        assert command.poll() is None, f"the command ended before {moment.__name__}"
        if (attempt := moment(folder)) is not None:
            found.append(attempt)
        return bool(found)

    wait_for(come, timeout_s=150, what=moment.__name__)
    return found[0]


def rank_of(attempt: AttemptDir, command: subprocess.Popen[str]) -> int | None:
    """The process that writes an attempt's log."""
    for pid in descendants(command.pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/fd/1").readlink() == attempt.log:
                return pid
    return None


def assert_the_same_as(undisturbed: Undisturbed, folder: Path) -> None:
    assert scores(folder) == scores(undisturbed.folder)
    assert weights(folder) == weights(undisturbed.folder)
    assert digests(folder) == digests(undisturbed.folder)


def assert_continued(tuned: AttemptDir) -> None:
    """The first attempt after a killed one that took a step began at the newest checkpoint.

    An attempt between the two may have been killed, with its command, before its first step.
    """
    later = [a for a in attempts_beside(tuned) if a.number > tuned.number]
    first_steps = [u.first_step for a in later if (u := a.usage()) is not None and u.steps > 0]
    steps = list(tuned.metric_rows())[-1][names.STEP]
    # The row of a step is there before its checkpoint is.
    assert first_steps[0] >= max(CHECKPOINT_EVERY, steps - 2 * CHECKPOINT_EVERY + 1)


@pytest.mark.parametrize("victim", ["command", "all"])
def test_a_command_killed_three_times_ends_with_the_same_bytes(
    victim: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    kill = {"command": os.kill, "all": os.killpg}[victim]
    killed: dict[str, AttemptDir] = {}

    for moment in MOMENTS:
        with begun(tmp_path, *STUDY) as command:
            killed[moment.__name__] = wait_until(moment, tmp_path, command)
            below = descendants(command.pid)
            kill(command.pid, signal.SIGKILL)
            command.wait()
            wait_for(lambda: not living(below), timeout_s=ORPHANS_END_WITHIN_S)  # noqa: B023
    last = typed(tmp_path, *STUDY)

    assert last.returncode == 0, last.stdout + last.stderr
    assert_continued(killed["in_tune"])
    assert_the_same_as(undisturbed, tmp_path)


def test_a_command_whose_workers_are_killed_goes_on_by_itself(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    killed: list[AttemptDir] = []
    with begun(tmp_path, *STUDY) as command:
        for moment in MOMENTS:
            attempt = wait_until(moment, tmp_path, command)
            rank = rank_of(attempt, command)
            if rank is not None:  # else it ended between the two looks
                os.kill(rank, signal.SIGKILL)
                killed.append(attempt)
        said, _ = command.communicate()

    assert command.returncode == 0, said
    assert len(killed) >= 2
    assert said.count("retry ") == len(killed)
    assert_the_same_as(undisturbed, tmp_path)


def test_a_command_killed_at_its_imports_leaves_nothing_behind(tmp_path: Path) -> None:
    with begun(tmp_path, *STUDY) as command:
        commands = store_of(tmp_path).study("tiny") / "commands"
        wait_for(lambda: list(commands.glob("*.json")))
        wait_for(lambda: len(descendants(command.pid)) >= 2)  # the server and its tracker
        below = descendants(command.pid)
        os.kill(command.pid, signal.SIGKILL)

        wait_for(lambda: not living(below), timeout_s=ORPHANS_END_WITHIN_S)

    assert not (tmp_path / "store" / "stages").exists()
