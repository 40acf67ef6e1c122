"""A stage says nothing to anybody: what it measures goes to the store, and from there to W&B."""

from __future__ import annotations

from pathlib import Path

from scalesweep.rundir import read_json
from scalesweep.specs import Method
from tests.train.small_stages import Lab


def test_a_stage_opens_no_connection_though_the_environment_asks_for_wandb(
    tmp_path: Path, lab: Lab
) -> None:
    stage = lab.stage(tmp_path, Method.projector)

    ended = stage.attempt(runner="tests.fakes.watched_stage")

    assert len(ended.rows) == 8, ended.log
    assert read_json(ended.attempt.path / "watched.json") == {"connected": [], "loaded": []}
