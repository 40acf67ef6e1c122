"""What an attempt writes down of its work: its own steps alone, whatever ended it."""

from __future__ import annotations

from pathlib import Path

from scalesweep.records import WorkDone
from scalesweep.specs import Method
from tests.train.small_stages import Ended, Lab


def test_attempts_count_their_own_steps_and_add_up_to_the_stage(lab: Lab, tmp_path: Path) -> None:
    stage = lab.stage(tmp_path, Method.projector, num_ranks=2)  # captions: a picture in each

    stopped = stage.attempt(asked_to_stop=3)
    resumed = stage.attempt()

    first, second = counted(stopped), counted(resumed)
    assert (first.units, second.units) == (3, 5)
    assert (first.samples, second.samples) == (3 * 8, 5 * 8)
    assert first.pictures == first.samples
    for run, work in ((stopped, first), (resumed, second)):
        assert work.tokens == sum(row["tokens"] for row in run.rows)
        # 16 image tokens, and a caption of fewer than 40: none is as long as 60.
        assert 16 * work.samples < work.supervised + 16 * work.samples < work.tokens
        assert work.tokens**2 / work.samples <= work.squared_lengths < 60 * work.tokens
        assert work.device
    assert second.generated == 0


def counted(run: Ended) -> WorkDone:
    work = run.attempt.work_done()
    assert work is not None
    return work
