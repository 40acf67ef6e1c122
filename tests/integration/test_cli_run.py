"""Whole lines of the real stack, as people type them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from scalesweep.plan.known import predicted
from scalesweep.records import Outcome, StageKind
from scalesweep.rundir import AttemptDir, read_json
from tests.conftest import Undisturbed
from tests.fakes.processes import wait_for
from tests.integration.tiny_study import (
    STUDY,
    TINY,
    begun,
    count_attempts,
    digests,
    plan_in,
    store_of,
    typed,
)

pytestmark = pytest.mark.slow


def test_a_study_ends_with_its_report_and_leaves_only_the_store(undisturbed: Undisturbed) -> None:
    ended = undisturbed.ended

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert "Cost and score" in ended.stdout
    assert "11 stages: 11 done (0 done before), 11 new attempts" in ended.stdout
    page = store_of(undisturbed.folder).study("tiny") / "report.html"
    assert f"report: {page}" in ended.stdout
    assert page.stat().st_size > 10_000
    assert [path.name for path in undisturbed.folder.iterdir()] == ["store"]
    assert not list(undisturbed.folder.rglob(".*"))  # nothing half-written


def test_every_attempt_says_what_made_it(undisturbed: Undisturbed) -> None:
    records = [
        read_json(path)
        for path in undisturbed.folder.glob("store/stages/*/*/attempts/*/execution*")
    ]

    assert len(records) == 11
    assert all(r["versions"]["torch"].startswith("2.") for r in records)


def test_every_stage_is_graded_by_what_was_predicted_before_it_ran(
    undisturbed: Undisturbed,
) -> None:
    said = typed(undisturbed.folder, "report", "tiny", "--predictions", "--format", "json")

    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert found["without_prediction"] == []
    assert len(found["stages"]) == 11
    for row in found["stages"]:
        # Nothing had run here: a rough rate of one core is all there was to go by.
        assert row["basis"].startswith("declared")
        assert 0.01 < row["wall_s"]["predicted"] / row["wall_s"]["measured"] < 100, row


def test_the_next_plan_takes_the_speeds_of_the_runs_before_it(undisturbed: Undisturbed) -> None:
    store = store_of(undisturbed.folder)
    plan = plan_in(undisturbed.folder)

    later = predicted(plan, store)

    for stage in later.stages:
        expected, usage = stage.execution.predicted, store.stage(stage.ref).attempt(1).usage()
        assert expected is not None
        assert usage is not None
        assert expected.basis.startswith("measured: ")
        if stage.spec.kind in (StageKind.tune, StageKind.align):  # the only run of its method
            assert expected.wall_s == pytest.approx(usage.wall_s, rel=1e-3)
    assert {path.name[:7] for path in store.cache.glob("tokens-*")} == {"tokens-"}


def test_stages_start_within_a_breath_once_imports_are_paid(undisturbed: Undisturbed) -> None:
    paths = undisturbed.folder.glob("store/stages/judge/*/attempts/0001")
    usages = [AttemptDir(path).usage() for path in paths]

    # A judge stage does almost nothing: what it takes is its start.
    assert min(usage.wall_s for usage in usages if usage) < 2


def test_the_line_typed_again_makes_no_attempts(undisturbed: Undisturbed) -> None:
    begin = time.monotonic()

    again = typed(undisturbed.folder, *STUDY)

    assert again.returncode == 0
    assert "all 11 stages were done; 0 new attempts" in again.stdout
    assert "Cost and score" in again.stdout
    assert time.monotonic() - begin < 60
    assert count_attempts(undisturbed.folder) == 11


def test_a_deleted_stage_runs_again_alone(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = undisturbed.copy(tmp_path)
    align = next(s for s in plan_in(folder).stages if s.spec.kind is StageKind.align)
    shutil.rmtree(store_of(folder).stage(align.spec.ref).path)

    again = typed(folder, *STUDY)

    assert again.returncode == 0, again.stdout
    assert "11 stages: 11 done (10 done before), 1 new attempts" in again.stdout
    assert digests(folder) == digests(undisturbed.folder)


def test_a_failing_cell_is_named_and_the_others_finish(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.copy(tmp_path)

    ended = typed(folder, "-m", "optim.lr=0.004,1e30", "optim.max_steps=6", "study=bad", *TINY)

    assert ended.returncode == 1, ended.stdout + ended.stderr
    last = [line for line in ended.stdout.splitlines() if line.startswith("failed:")]
    assert len(last) == 1
    assert "lr1e+30" in last[0]
    assert "the loss is" in last[0]
    log = Path(last[0].rpartition("log: ")[2])
    assert "StageError" in log.read_text()
    cells = json.loads(typed(folder, "status", "bad", "--json").stdout)["cells"]
    assert sorted(cell["state"] for cell in cells) == ["done", "failed"]


def test_a_model_that_cannot_run_here_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    ended = typed(tmp_path, "model=33b", "tuning=full")

    assert ended.returncode == 2
    assert ended.stdout == ""
    # 32.5 billion trained parameters of 16 bytes, and a frozen tower of 0.3 billion of 2
    assert "model=33b: cannot run here; weights, gradients and optimizer states" in ended.stderr
    assert "take 521 GB" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_cancel_from_another_shell_stops_and_the_line_continues(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.copy(tmp_path)
    line = ("tuning=full", "optim.max_steps=300", "study=long", "until=tune", *TINY)
    with begun(folder, *line) as command:
        wait_for(lambda: _rows(folder, "long") >= 2, timeout_s=150)
        assert "running tune" in typed(folder, "status", "long").stdout
        cancelled = typed(folder, "cancel", "long")
        said, _ = command.communicate(timeout=60)

    assert cancelled.returncode == 0
    assert cancelled.stdout == f"process {command.pid}: stopped\n"
    assert command.returncode == 130
    assert "interrupted: cell " in said
    assert "interrupted tune" in typed(folder, "status", "long").stdout

    again = typed(folder, *line)

    attempts = _attempts(folder, "long")
    usages = [attempt.usage() for attempt in attempts]
    assert again.returncode == 0
    assert [u.outcome for u in usages if u] == [Outcome.interrupted, Outcome.done]
    assert sum(usage.steps for usage in usages if usage) == 300  # not one step twice


def _attempts(folder: Path, study: str) -> list[AttemptDir]:
    """Attempts of a study's only tune stage."""
    if not (store_of(folder).study(study) / "plan.json").exists():
        return []
    tune = next(s for s in plan_in(folder, study).stages if s.spec.kind is StageKind.tune)
    return store_of(folder).stage(tune.spec.ref).attempts()


def _rows(folder: Path, study: str) -> int:
    return sum(len(list(attempt.metric_rows())) for attempt in _attempts(folder, study))


@pytest.mark.parametrize("more", [[], ["budget.usd=1"]], ids=["", "budget"])
@pytest.mark.parametrize("root", ["/dev/null/store", "/proc/nowhere"])
def test_a_store_that_cannot_be_written_is_refused(
    tmp_path: Path, root: str, more: list[str]
) -> None:
    ended = typed(tmp_path, f"store={root}", *TINY, *more)

    assert ended.returncode == 2
    assert f"store={root}: cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr
