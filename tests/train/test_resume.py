"""A run that was killed or asked to stop ends with the bytes of one that was not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scalesweep.launch.rank import EXIT_INTERRUPTED
from scalesweep.rundir import read_json
from scalesweep.specs import Method
from tests.train.exactness import apart, in_bf16, moved, trained
from tests.train.small_stages import LORA, Ended, Lab, SmallStage

LAYOUTS = [
    pytest.param(method, zero_stage, id=f"{method}-zero{zero_stage}")
    for method in (Method.full, Method.lora, Method.qlora)
    for zero_stage in (0, 1, 2, 3)
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
    file = killed.attempt.checkpoints / "step-00000004" / "rank-000.safetensors"
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
    left = sorted(path.name for path in killed.attempt.checkpoints.iterdir())
    again = stage.attempt()

    assert killed.codes[0] == -9
    assert left[0] == ".step-00000002.part"
    assert not [name for name in left if not name.endswith(".part")]
    assert not list(killed.attempt.checkpoints.iterdir())  # the next attempt swept up
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


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_in_bf16_a_killed_run_ends_with_the_same_bytes(
    lab: Lab, tmp_path: Path, zero_stage: int
) -> None:
    whole = in_bf16(lab, tmp_path / "whole", zero_stage=zero_stage).attempt()
    stage = in_bf16(lab, tmp_path / "killed", zero_stage=zero_stage)

    stage.attempt(killed_after=6)
    resumed = stage.attempt()

    assert resumed_from(stage, step=4, attempt=2)
    assert resumed.hashes == whole.hashes


# python -m tests.train.exactness measures more of them.
MOVED = [
    (Method.full, (2, 3), (1, 0)),
    (Method.full, (1, 0), (2, 2)),
    (Method.lora, (1, 0), (2, 3)),
    (Method.lora, (2, 2), (4, 1)),
    (Method.qlora, (1, 0), (2, 2)),
    (Method.qlora, (2, 1), (1, 0)),
]


@pytest.fixture(scope="module")
def references(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Method], Ended]:
    """One rank, no ZeRO, never interrupted; of each method once."""
    root = tmp_path_factory.mktemp("references")

    @functools.cache
    def reference(method: Method) -> Ended:
        return trained(lab, root / method, method, num_ranks=1, zero_stage=0)

    return reference


@pytest.mark.parametrize(("method", "before", "after"), MOVED, ids=str)
def test_a_run_goes_on_by_another_number_of_ranks_under_another_zero_stage(
    lab: Lab,
    references: Callable[[Method], Ended],
    tmp_path: Path,
    method: Method,
    before: tuple[int, int],
    after: tuple[int, int],
) -> None:
    losses, run = moved(lab, tmp_path, method, before=before, after=after)

    found = apart(losses, run, references(method))
    assert found.is_tolerable(), found
    assert (
        f"written by {before[0]} ranks under ZeRO-{before[1]}; now there are {after[0]} under "
        f"ZeRO-{after[1]}" in run.log
    )
    assert "random numbers begin anew from (seed 3, rank 0, step 4)" in run.log


def test_a_checkpoint_of_another_model_is_refused_with_the_way_out(
    lab: Lab, tmp_path: Path
) -> None:
    stage = lab.stage(tmp_path, Method.lora)
    stage.attempt(asked_to_stop=2)
    stage.spec = replace(stage.spec, lora=replace(LORA, targets=["q_proj"]))
    changed = tmp_path / "store" / "stages"
    (old,) = changed.glob("*/*")
    old.rename(stage.stage.path)

    refused = stage.attempt()

    assert refused.codes == [1]
    error = read_json(refused.attempt.path / "error-000.json")
    assert error["expected"]
    assert "holds other parameters than this model trains:" in error["message"]
    assert "delete the checkpoints of this stage to begin anew" in error["message"]
