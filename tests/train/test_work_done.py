"""What an attempt writes down of its work: its own steps alone, whatever ended it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scalesweep.cost_model.token_cache import kept_statistics
from scalesweep.cost_model.token_statistics import training_data_key
from scalesweep.records import WorkDone
from scalesweep.specs import Method
from tests.train.small_stages import Ended, Lab, tower_spec


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


def test_what_the_data_are_like_is_kept_for_the_next_plan(lab: Lab, tmp_path: Path) -> None:
    stage = lab.stage(tmp_path, Method.full)  # 24 conversations about a picture, 12 without one
    done = counted(stage.attempt())
    cache = tmp_path / "store" / "cache"

    kept = kept_statistics(cache, training_data_key(stage.stage_spec))

    assert kept is not None
    assert (kept.num_samples, kept.pictures) == (36, 24)
    # 8 steps of 8: each sample once, and 28 of them a second time.
    drawn = kept.work(64, num_patches=16)
    assert drawn.num_tokens == pytest.approx(done.tokens, rel=0.1)
    assert drawn.sum_squared_lengths == pytest.approx(done.squared_lengths, rel=0.2)
    assert drawn.num_supervised == pytest.approx(done.supervised, rel=0.2)
    larger = replace(stage, spec=replace(stage.spec, tower=tower_spec(image_size=48))).stage_spec
    assert training_data_key(larger) == training_data_key(stage.stage_spec)
    shorter = replace(stage, spec=replace(stage.spec, max_seq_len=100)).stage_spec
    assert training_data_key(shorter) != training_data_key(stage.stage_spec)


def counted(run: Ended) -> WorkDone:
    work = run.attempt.work_done()
    assert work is not None
    return work
