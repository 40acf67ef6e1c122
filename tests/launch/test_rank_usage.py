"""What a rank writes down while it runs: all that is known of it when everything is killed."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from scalesweep.launch import rank
from scalesweep.launch.rank import RankTask, _UsageWriter
from scalesweep.records import StageKind, StageRef
from scalesweep.rundir import AttemptDir


def written(folder: Path, rows: list[dict[str, float]]) -> AttemptDir:
    """An attempt of 100 s so far, its usage written once."""
    attempt = AttemptDir(folder / "0001")
    attempt.path.mkdir()
    writer_of(attempt, rows).write()
    return attempt


def writer_of(attempt: AttemptDir, rows: list[dict[str, float]]) -> _UsageWriter:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    attempt.metrics.write_text(text + '{"step": 9', encoding="utf-8")  # the last line is torn
    task = RankTask(
        store=attempt.path.parent,
        ref=StageRef(kind=StageKind.tune, key="0" * 16),
        attempt=1,
        inputs={},
        rank=0,
        world_size=1,
        port=0,
        started_at=1000.0,
        started_monotonic=time.monotonic() - 100,
    )
    return _UsageWriter(task, attempt)


def test_steps_tokens_and_start_up_are_known_before_the_end(tmp_path: Path) -> None:
    rows = [
        {"time": 1012.0 + i, "step": 51 + i, "step_s": 2.0, "tokens": 10,
         "tokens_seen": 510 + 10 * i}
        for i in range(3)
    ]  # fmt: skip

    usage = written(tmp_path, list(rows)).usage()

    assert usage is not None
    assert (usage.first_step, usage.steps, usage.tokens) == (50, 3, 30)
    assert usage.startup_s == pytest.approx(10.0)  # the first step began 2 s before its row
    assert usage.wall_s == pytest.approx(100.0, abs=5)


def test_before_the_first_row_all_is_start_up(tmp_path: Path) -> None:
    usage = written(tmp_path, []).usage()

    assert usage is not None
    assert usage.steps == 0
    assert usage.startup_s == usage.wall_s


def test_the_last_write_waits_for_one_that_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends after it: a write cut by that would leave its half beside."""
    attempt = AttemptDir(tmp_path / "0001")
    attempt.path.mkdir()
    writer, write = writer_of(attempt, []), rank.write_json
    begun, may_end = threading.Event(), threading.Event()
    ended: list[str] = []

    def slow(*args: object) -> None:
        first = not begun.is_set()
        begun.set()
        assert may_end.wait(10)
        write(*args)  # type: ignore[arg-type]
        ended.append("thread" if first else "last")

    monkeypatch.setattr(rank, "write_json", slow)
    thread = threading.Thread(target=writer.write)
    thread.start()
    assert begun.wait(10)
    threading.Timer(0.1, may_end.set).start()

    writer.close()

    thread.join()
    assert ended == ["thread", "last"]
