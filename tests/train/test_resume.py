"""A run that was killed or asked to stop ends with the bytes of one that was not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from scalesweep.launch.rank import EXIT_INTERRUPTED
from scalesweep.rundir import read_json
from scalesweep.specs import Method
from tests.train.small_stages import Lab, SmallStage

LAYOUTS = [
    pytest.param(method, zero_stage, id=f"{method}-zero{zero_stage}")
    for method in (Method.full, Method.lora, Method.qlora)
    for zero_stage in (0, 2, 3)
    if (method, zero_stage) != (Method.qlora, 3)
]


def resumed_from(stage: SmallStage, *, step: int, attempt: int) -> bool:
    """Whether an attempt says that it went on after a step."""
    return f"resumed after step {step} from" in stage.stage.attempt(attempt).log.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "zero_stage"), LAYOUTS)
def test_a_killed_run_ends_with_the_same_losses_and_bytes(
    lab: Lab, tmp_path: Path, method: Method, zero_stage: int
) -> None:
    runner = "tests.train.sharded" if zero_stage == 3 else None
    whole = lab.stage(tmp_path / "whole", method, num_ranks=2, zero_stage=zero_stage)
    stage = lab.stage(tmp_path / "killed", method, num_ranks=2, zero_stage=zero_stage)

    expected = whole.attempt(runner=runner)
    killed = stage.attempt(killed_after=6)  # checkpoints after 2 and 4
    resumed = stage.attempt(runner=runner)

    assert set(killed.codes) == {-9}
    assert list(killed.losses) == [1, 2, 3, 4, 5]
    assert resumed_from(stage, step=4, attempt=2)
    assert list(resumed.losses) == [5, 6, 7, 8]
    assert {**killed.losses, **resumed.losses} == expected.losses
    assert resumed.hashes == expected.hashes


def test_a_damaged_checkpoint_is_left_out_and_the_end_is_the_same(lab: Lab, tmp_path: Path) -> None:
    whole = lab.stage(tmp_path / "whole", Method.lora).attempt()
    stage = lab.stage(tmp_path / "killed", Method.lora)
    killed = stage.attempt(killed_after=6)
    file = next(killed.attempt.checkpoints.glob("step-00000004/engine/*.pt"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)

    resumed = stage.attempt()

    assert "step-00000004 is left out:" in resumed.log
    assert resumed_from(stage, step=2, attempt=2)
    assert resumed.hashes == whole.hashes


def test_a_kill_in_the_middle_of_a_save_costs_that_checkpoint_alone(
    lab: Lab, tmp_path: Path
) -> None:
    whole = lab.stage(tmp_path / "whole", Method.full, num_ranks=2, zero_stage=2).attempt()
    stage = lab.stage(tmp_path / "killed", Method.full, num_ranks=2, zero_stage=2)

    killed = stage.attempt(killed_in_save=True)
    again = stage.attempt()

    assert killed.codes[0] == -9
    assert [path.name for path in killed.attempt.checkpoints.iterdir()] == [".step-00000002.part"]
    assert list(again.losses) == list(range(1, 9))
    assert again.hashes == whole.hashes


def test_a_signal_to_one_rank_stops_all_at_one_step_with_a_checkpoint(
    lab: Lab, tmp_path: Path
) -> None:
    whole = lab.stage(tmp_path / "whole", Method.lora, num_ranks=2).attempt()
    stage = lab.stage(tmp_path / "stopped", Method.lora, num_ranks=2)

    stopped = stage.attempt(asked_to_stop=3, ranks=[1])
    saved = read_json(stopped.attempt.checkpoints / "step-00000003" / "complete.json")
    resumed = stage.attempt()

    assert stopped.codes == [EXIT_INTERRUPTED, EXIT_INTERRUPTED]
    assert stopped.log.count("stopped after step 3 of 8") == 2
    assert saved["state"]["step"] == 3
    assert list(resumed.losses) == [4, 5, 6, 7, 8]
    assert resumed.hashes == whole.hashes
    # The second attempt has two checkpoints of its own by then.
    assert not list(stopped.attempt.checkpoints.glob("step-*"))


def test_a_checkpoint_of_another_layout_is_refused(lab: Lab, tmp_path: Path) -> None:
    stage = lab.stage(tmp_path, Method.lora)
    stage.attempt(asked_to_stop=2)
    stage.execution = replace(stage.execution, zero_stage=2)

    refused = stage.attempt()

    assert refused.codes == [1]
    error = json.loads((refused.attempt.path / "error-000.json").read_text("utf-8"))
    assert error["expected"]
    assert (
        "written by 1 ranks under ZeRO-0 and cannot be continued by 1 under ZeRO-2"
        in (error["message"])
    )
