"""The real stack, held to a budget: stops in time, loses nothing, ends with the same bytes."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import pytest

from scalesweep.launch.budget import admit_study
from scalesweep.launch.local import Scheduler, State
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.plan.spending import study_spending
from scalesweep.records import Outcome, StageKind, Usage
from scalesweep.rundir import Store, read_json
from scalesweep.tracking import metric_names as names
from tests.fakes.processes import wait_for
from tests.fakes.progress import MemoryProgress
from tests.integration.tiny_study import TINY, digests, plan_in, store_of, typed
from tests.launch.test_budget import held_to

pytestmark = pytest.mark.slow
EVERY = 25
LINE = (
    "-m",
    "tuning=lora,full",
    "until=tune",
    "study=tiny",
    "optim.max_steps=150",
    *TINY,
    f"cluster.checkpoint_every_steps={EVERY}",
    "cluster=local",
)


@pytest.fixture(scope="module")
def unbounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbounded")
    ended = typed(folder, *LINE)
    assert ended.returncode == 0, ended.stderr
    return folder


def usages(plan: Plan, store: Store) -> dict[str, list[Usage]]:
    """Stage -> its attempts."""
    return {
        stage.spec.label: [u for a in store.stage(stage.ref).attempts() if (u := a.usage())]
        for stage in plan.stages
    }


def interval_usd(plan: Plan, store: Store) -> float:
    """Of one checkpoint interval of every training stage that was stopped, by its slowest steps."""
    found = 0.0
    for stage in plan.stages:
        for attempt in store.stage(stage.ref).attempts():
            usage = attempt.usage()
            if usage is not None and usage.failure == "budget" and usage.steps:
                steps = sorted(float(r[names.STEP_SECONDS]) for r in attempt.metric_rows())
                seconds = sum(steps[-EVERY:])
                found += usage.cost_usd / usage.wall_s * seconds
    return found


def test_a_study_at_60_percent_of_its_predicted_cost_stops_in_time_and_can_go_on(
    unbounded: Path, tmp_path: Path
) -> None:
    planned = json.loads(typed(tmp_path, "plan", *LINE, "--json").stdout)
    cost = sum(stage["execution"]["predicted"]["usd"] for stage in planned["stages"])
    bound = round(0.6 * cost, 6)
    shown = json.loads(typed(tmp_path, "plan", *LINE, f"budget.usd={bound}", "--json").stdout)

    ended = typed(tmp_path, *LINE, f"budget.usd={bound}")

    plan, store = plan_in(tmp_path), store_of(tmp_path)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    # One cell and what both share are more than half; the other is left out, as was shown before.
    (left_out,) = shown["budget"]["left_out"]
    (cell,) = [cell for cell in plan.cells if cell.name == left_out["cell"]]
    assert not store.stage(cell.stages["tune"]).path.exists()
    assert "left out for want of room: 1 of 2 cells" in ended.stdout
    spent = study_spending(plan, store).look().usd
    assert spent <= bound + interval_usd(plan, store)
    assert f"budget.usd={bound:.10g}: $" in ended.stdout

    ended = typed(tmp_path, *LINE, f"budget.usd={100 * cost}")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert digests(tmp_path) == digests(unbounded)


def test_stages_that_run_stop_at_a_checkpoint_and_go_on_to_the_same_bytes(
    unbounded: Path, tmp_path: Path
) -> None:
    plan = Plan.from_json(read_json(store_of(unbounded).study("tiny") / "plan.json"))
    plan = dataclasses.replace(plan, stages=tuple(map(_unpredicted, plan.stages)))
    store = store_of(tmp_path)
    tunes = [stage for stage in plan.stages if stage.spec.kind is StageKind.tune]
    admit_study(store, held_to(plan, usd=1000.0))

    def lower_it() -> None:
        """In the middle of both: a little more than was spent."""
        attempts = [store.stage(stage.ref).attempt(1) for stage in tunes]
        wait_for(
            lambda: all(len(list(attempt.metric_rows())) > 30 for attempt in attempts),
            timeout_s=200,
            what="both stages to train",
        )
        spent = study_spending(plan, store).look().usd
        admit_study(store, held_to(plan, usd=1.05 * spent))

    thread = threading.Thread(target=lower_it)
    thread.start()
    result = Scheduler(plan=plan, store=store, num_workers=2, progress=MemoryProgress()).run()
    thread.join()

    assert [result.runs[stage.ref].state for stage in tunes] == [State.out_of_budget] * 2
    stopped = {stage.spec.label: usages(plan, store)[stage.spec.label][0] for stage in tunes}
    assert all(usage.outcome is Outcome.interrupted for usage in stopped.values())
    record = read_json(store.study("tiny") / "budget.json")
    spent = study_spending(plan, store).look()
    assert spent.usd <= record["micro_usd"] / 1e6 + interval_usd(plan, store)

    admit_study(store, held_to(plan, usd=1000.0))
    result = Scheduler(plan=plan, store=store, num_workers=2, progress=MemoryProgress()).run()

    assert result.all_done
    for label, usage in stopped.items():
        first, second = usages(plan, store)[label]
        assert second.first_step == first.steps == usage.steps
    assert digests(tmp_path) == digests(unbounded)


def _unpredicted(stage: PlannedStage) -> PlannedStage:
    return dataclasses.replace(
        stage, execution=dataclasses.replace(stage.execution, predicted=None)
    )
