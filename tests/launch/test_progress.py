"""What people see while a study runs: plain lines in a log, a table that fits a terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from scalesweep.launch.local import StageRun, State
from scalesweep.launch.progress import (
    LiveProgress,
    PlainProgress,
    choose_progress,
    overall_text,
    seconds_text,
)
from scalesweep.rundir import AttemptDir
from scalesweep.tracking import metric_names as names
from scalesweep.tracking.metric_rows import last_row
from tests.fakes.plans import stage

LABEL = "tune mini_s 32px mini_text lora rank8 alpha16 lr0.015 seed1"


def a_run(label: str = LABEL, **fields: Any) -> StageRun:
    return StageRun(planned=stage(label), **{"new_attempts": 1, **fields})


def running(folder: Path, row: Mapping[str, Any], label: str = LABEL) -> StageRun:
    """A running stage whose metrics end with a row."""
    folder.mkdir()
    attempt = AttemptDir(folder)
    if row:
        attempt.metrics.write_text(json.dumps({"time": 1.0, **row}) + "\n")
    fake: Any = SimpleNamespace(attempt=attempt, wall_s=12.0)
    return a_run(label, state=State.running, running=fake)


TRAINING = {
    names.PROGRESS_DONE: 30,
    names.PROGRESS_TOTAL: 150,
    names.PROGRESS_UNIT: "step",
    names.LOSS: 1.23456,
    names.TOKENS_PER_SECOND: 12_345.6,
    names.STEP_SECONDS: 0.5,
}


@pytest.mark.parametrize(
    ("what", "fields", "line"),
    [
        ("start", {}, f"start   {LABEL}"),
        ("done", {"wall_s": 12.34}, f"done    {LABEL} in 12.3 s"),
        ("done", {"new_attempts": 0}, f"done    {LABEL} by another command"),
        (
            "failed",
            {"cause": "step 3: the loss is nan", "log": Path("/s/log")},
            f"failed  {LABEL}: step 3: the loss is nan (log: /s/log)",
        ),
        ("retry", {"cause": "killed by SIGKILL"}, f"retry   {LABEL}: killed by SIGKILL"),
        ("again", {"cause": "output/a is missing"}, f"again   {LABEL}: output/a is missing"),
        ("elsewhere", {"cause": "process 7 is at it"}, f"waits   {LABEL}: process 7 is at it"),
        ("left out", {"cause": "the budget is spent"}, f"left out {LABEL}: the budget is spent"),
    ],
)
def test_a_plain_line_says_when_what_happened_and_why(
    what: str, fields: dict[str, Any], line: str
) -> None:
    stream = io.StringIO()
    with PlainProgress(stream) as progress:
        progress.event(a_run(**fields), what)

    assert stream.getvalue() == f"   0:00 {line}\n"


def live_text(runs: list[StageRun], *, width: int = 80) -> list[str]:
    """The lines of the live table on a terminal."""
    progress = LiveProgress()
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(progress._table({run.ref: run for run in runs}))
    return capture.get().splitlines()


def test_the_live_table_shows_steps_loss_speed_and_time_left_in_80_columns(
    tmp_path: Path,
) -> None:
    lines = live_text(
        [
            running(tmp_path / "a", TRAINING),
            running(tmp_path / "b", {}, "data mini_train"),
            running(
                tmp_path / "c",
                {names.PROGRESS_DONE: 1000, names.PROGRESS_TOTAL: 3000},
                "generate [mini]",
            ),
            a_run("x", state=State.done),
            a_run("y", state=State.failed),
            a_run("z"),
        ]
    )

    assert len(lines) == 4  # one for each that runs, and the sum
    assert max(len(line) for line in lines) <= 80
    training, data, generate, overall = lines
    # 120 steps of 0.5 s are left
    for text in ("tune mini_s", "30/150", "loss 1.235", "12.3k tok/s", "-1:00"):
        assert text in training
    assert "starts" in data
    # 1000 in 12 s, 2000 to go
    assert "generate [mini]" in generate
    assert "-0:24" in generate
    assert overall.strip() == "1/6 stages done, 1 waiting, 3 running, 1 failed  0:00"


def test_a_narrow_terminal_shortens_names_first(tmp_path: Path) -> None:
    lines = live_text([running(tmp_path / "a", TRAINING)], width=60)

    assert max(len(line) for line in lines) <= 60
    assert "30/150" in lines[0]


def test_the_sum_counts_stages_by_state() -> None:
    runs = [a_run("a", state=State.done), a_run("b", state=State.left_out), a_run("c")]

    text = overall_text({run.ref: run for run in runs})

    assert text == "1/3 stages done, 1 waiting, 1 left out, workers start"


def test_plain_lines_tell_now_and_then_how_far_stages_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, data = running(tmp_path / "a", TRAINING), running(tmp_path / "b", {}, "data")
    stream = io.StringIO()
    progress = PlainProgress(stream)

    progress.update({run.ref: run for run in (training, data)})
    assert stream.getvalue() == ""

    monkeypatch.setattr("scalesweep.launch.progress.PLAIN_INTERVAL_S", 0.0)
    progress.update({run.ref: run for run in (training, data)})

    assert stream.getvalue().splitlines() == [
        f"   0:00 at      {LABEL}: 30/150, loss 1.235, 12.3k tok/s, -1:00",
        "   0:00 at      data: starts",
        "   0:00 0/2 stages done, 2 running",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05")]
)
def test_seconds_are_written_as_a_clock_shows_them(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('{"a": 1}\n{"a": 2}\n', {"a": 2}),
        ('{"a": 1}\n{"a": 2', {"a": 1}),  # the last line is not whole
        ('{"a": 1}\n{broken}\n', {"a": 1}),
        ("3\n", {}),
        ("", {}),
    ],
)
def test_the_newest_whole_row_is_read(tmp_path: Path, text: str, row: dict[str, int]) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)

    assert last_row(tmp_path / "metrics.jsonl") == row
    assert last_row(tmp_path / "missing") == {}


def test_the_tail_of_a_long_file_is_enough(tmp_path: Path) -> None:
    rows = [json.dumps({"step": step, "text": "x" * 100}) for step in range(1000)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows) + "\n")

    assert last_row(tmp_path / "metrics.jsonl")["step"] == 999


def test_a_stream_that_is_no_terminal_gets_plain_lines() -> None:
    assert isinstance(choose_progress(io.StringIO()), PlainProgress)
