"""A plan runs in order, each stage once; what fails harms its descendants alone."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from scalesweep.errors import StageError, StoreError
from scalesweep.launch import leases, local
from scalesweep.launch.attempts import RunningAttempt
from scalesweep.launch.local import StageRun, State, priorities
from scalesweep.launch.workers import Workers
from scalesweep.plan.graph import PlannedStage
from scalesweep.records import Execution, Outcome, StageKind, Usage
from scalesweep.rundir import Store, write_json
from scalesweep.study_run import exit_status
from tests.fakes.plans import plan_of, stage
from tests.fakes.processes import wait_for
from tests.fakes.progress import MemoryProgress
from tests.fakes.stage_runner import journal, output_text, pids
from tests.launch.running import WORKERS, run, scheduler, states


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def attempts_of(store: Store, planned: PlannedStage) -> list[Outcome]:
    """How each attempt of a stage ended."""
    found = [attempt.usage() for attempt in store.stage(planned.spec.ref).attempts()]
    return [usage.outcome for usage in found if usage is not None]


# ------------------------------------------------------------------------------- order


def test_children_run_after_their_parents_and_read_their_output(store: Store) -> None:
    data = stage("data", kind=StageKind.data, text="d")
    align = stage("align", after=[data], text="a")
    tune = stage("tune", after=[align, data], text="t")

    result = run(plan_of(data, align, tune), store)

    assert result.all_done
    assert journal(store) == ["data", "align", "tune"]
    assert output_text(store, tune.spec.ref) == "tadd"
    done = store.stage(tune.spec.ref).done()
    align_done = store.stage(align.spec.ref).done()
    assert done is not None
    assert align_done is not None
    assert done.inputs["input0"] == align_done.digest


def test_an_attempt_says_which_study_began_it_and_a_later_study_reuses_it(store: Store) -> None:
    first = stage("first", "count", steps=1)
    second = stage("second", after=[first])
    earlier = dataclasses.replace(plan_of(first), study="earlier")
    run(earlier, store)

    run(dataclasses.replace(plan_of(first, second), study="later"), store)

    said = {
        one.spec.label: [a.execution() for a in store.stage(one.ref).attempts()]
        for one in (first, second)
    }
    assert {label: [e.study for e in found if e] for label, found in said.items()} == {
        "first": ["earlier"],
        "second": ["later"],
    }


def test_no_more_stages_run_at_once_than_there_are_devices(store: Store) -> None:
    stages = [stage(f"s{i}", "count", steps=3) for i in range(5)]
    result = run(plan_of(*stages), store, num_workers=2)

    spans = []
    for planned in stages:
        usage = store.stage(planned.spec.ref).attempt(1).usage()
        assert usage is not None
        spans.append((usage.started_at, usage.started_at + usage.wall_s))
    most = max(sum(b <= at < e for b, e in spans) for at, _ in spans)
    assert result.all_done
    assert most == 2


def test_a_stage_of_all_devices_runs_alone_and_one_of_more_runs_too(store: Store) -> None:
    wide = stage("wide", "write", devices=2)
    wider = stage("wider", "write", devices=3)

    result = run(plan_of(wide, wider, stage("narrow")), store, num_workers=2)

    assert result.all_done
    assert journal(store).count("wide") == 2  # two ranks
    assert journal(store).count("wider") == 3


def test_the_stage_with_most_work_behind_it_starts_first(store: Store) -> None:
    short, long = stage("short"), stage("long")
    plan = plan_of(short, long, stage("after", after=[long], text="x"))

    run(plan, store, num_workers=1)

    assert journal(store)[0] == "long"
    length = priorities(plan)
    assert length[long.spec.ref] == 2 * length[short.spec.ref]


# ------------------------------------------------------------------------------- again


def test_a_second_run_makes_no_attempts(store: Store) -> None:
    data = stage("data")
    plan = plan_of(data, stage("tune", after=[data]))
    run(plan, store)

    again = run(plan, store)

    assert again.all_done
    assert again.new_attempts == 0
    assert all(r.was_done for r in again.runs.values())
    assert journal(store) == ["data", "tune"]


def test_a_deleted_stage_runs_again_and_its_children_do_not_when_its_bytes_are_the_same(
    store: Store,
) -> None:
    data = stage("data")
    plan = plan_of(data, stage("tune", after=[data]))
    run(plan, store)
    shutil.rmtree(store.stage(data.spec.ref).path)

    again = run(plan, store)

    assert again.all_done
    assert journal(store) == ["data", "tune", "data"]


def test_children_run_again_when_a_deleted_stage_comes_out_otherwise(store: Store) -> None:
    data = stage("data", "differ")
    tune = stage("tune", after=[data])
    plan = plan_of(data, tune)
    run(plan, store)
    shutil.rmtree(store.stage(data.spec.ref).path)
    progress = MemoryProgress()

    again = run(plan, store, progress=progress)

    assert again.all_done
    assert journal(store) == ["data", "tune", "data", "tune"]
    assert ("again", "tune") in progress.events
    assert output_text(store, tune.spec.ref) == output_text(store, data.spec.ref)
    assert (store.stage(tune.spec.ref).path / "done.json.aside-1").exists()


def test_damaged_output_is_made_again(store: Store) -> None:
    data = stage("data", text="whole")
    plan = plan_of(data)
    run(plan, store)
    (store.stage(data.spec.ref).output() / "text").write_text("torn")

    again = run(plan, store)

    assert again.new_attempts == 1
    assert output_text(store, data.spec.ref) == "whole"


def test_an_attempt_closed_as_done_whose_record_is_gone_runs_again(store: Store) -> None:
    data = stage("data")
    run(plan_of(data), store)
    store.stage(data.spec.ref).done_file.unlink()

    again = run(plan_of(data), store)

    assert again.all_done
    assert attempts_of(store, data) == [Outcome.done, Outcome.done]


def test_an_open_attempt_of_this_very_process_is_not_waited_for(store: Store) -> None:
    data = stage("data")
    folder = store.stage(data.spec.ref)
    leases.claim(folder, data.execution, after=0)

    assert run(plan_of(data), store).all_done


def test_a_stage_held_on_another_host_is_waited_for_and_the_way_out_is_named(
    store: Store,
) -> None:
    held = stage("held")
    attempt = leases.claim(store.stage(held.spec.ref), held.execution, after=0)
    assert attempt is not None
    far = dataclasses.replace(leases.this_process(), host="elsewhere", pid=7)
    write_json(attempt.lease, far.to_json())
    said: list[str] = []

    class Following(MemoryProgress):
        """Does what it is told."""

        def event(self, run: StageRun, what: str) -> None:
            if what == "elsewhere":
                said.append(run.cause)
                Path(run.cause.rpartition("delete ")[2]).unlink()

    result = run(plan_of(held), store, progress=Following())

    assert result.all_done
    assert said == [
        "process 7 on elsewhere is at it, which cannot be seen from here; "
        f"if it is dead, delete {attempt.lease}"
    ]


# ------------------------------------------------------------------------------- failure


def test_a_failure_stops_its_descendants_and_nobody_else(store: Store) -> None:
    bad = stage("bad", "fail")
    child = stage("child", after=[bad])
    grandchild = stage("grandchild", after=[child])
    good = stage("good", "count", steps=3)
    after_good = stage("after_good", after=[good])

    result = run(plan_of(bad, child, grandchild, good, after_good), store)

    assert states(result) == {
        "bad": State.failed,
        "child": State.blocked,
        "grandchild": State.blocked,
        "good": State.done,
        "after_good": State.done,
    }
    assert exit_status(result) == 1
    failed = result.runs[bad.spec.ref]
    assert failed.cause == "bad cannot be done"
    assert failed.log is not None
    assert "what the log says" in failed.log.read_text()
    assert "Traceback" in failed.log.read_text()


def test_an_error_of_the_stage_itself_is_not_tried_again_but_the_next_line_does(
    store: Store,
) -> None:
    bug = stage("bug", "bug")

    first = run(plan_of(bug), store, max_tries=3)
    second = run(plan_of(bug), store, max_tries=3)

    assert first.runs[bug.spec.ref].cause == "ZeroDivisionError: in bug"
    assert first.new_attempts == second.new_attempts == 1
    assert attempts_of(store, bug) == [Outcome.failed, Outcome.failed]


def test_a_stage_without_output_failed(store: Store) -> None:
    empty = stage("empty", "nothing")

    result = run(plan_of(empty), store)

    assert result.runs[empty.spec.ref].cause == "the stage ended without writing any output"


@pytest.mark.parametrize("by", ["SIGKILL", "SIGSEGV"])
def test_a_killed_stage_is_tried_again(store: Store, by: str) -> None:
    victim = stage("victim", "die", times=2, by=by)
    progress = MemoryProgress()

    result = run(plan_of(victim), store, max_tries=3, progress=progress)

    assert result.all_done
    assert attempts_of(store, victim) == [Outcome.killed, Outcome.killed, Outcome.done]
    assert [what for what, _ in progress.events] == [
        "start", "retry", "start", "retry", "start", "done",
    ]  # fmt: skip


def test_a_stage_is_tried_no_more_than_max_tries(store: Store) -> None:
    victim = stage("victim", "die", times=9)

    result = run(plan_of(victim), store, max_tries=2)

    assert attempts_of(store, victim) == [Outcome.killed, Outcome.killed]
    assert states(result) == {"victim": State.failed}
    assert "SIGKILL" in result.runs[victim.spec.ref].cause


def test_a_process_that_ends_without_a_word_is_tried_again(store: Store) -> None:
    mute = stage("mute", "vanish")

    result = run(plan_of(mute), store, max_tries=2)

    assert result.new_attempts == 2
    assert result.runs[mute.spec.ref].cause == "ended with status [3] and said nothing; see its log"


def test_the_kill_of_one_rank_is_the_cause_and_not_what_the_others_say_about_it(
    store: Store,
) -> None:
    pair = stage("pair", "die_together", devices=2)

    result = run(plan_of(pair), store)

    assert result.all_done
    assert attempts_of(store, pair) == [Outcome.killed, Outcome.done]


def test_ranks_end_with_the_first_that_fails(store: Store) -> None:
    pair = stage("pair", "fail_alone", devices=2)
    begin = time.monotonic()

    result = run(plan_of(pair), store)

    assert result.runs[pair.spec.ref].cause == "RuntimeError: shapes differ"
    assert attempts_of(store, pair) == [Outcome.failed]
    assert time.monotonic() - begin < 20


def test_a_sigterm_from_outside_is_tried_again_from_the_checkpoint(store: Store) -> None:
    long = stage("long", "count", steps=40)

    def disturb() -> None:
        wait_for(lambda: "long" in journal(store, "step3"))
        os.kill(pids(store)[0], signal.SIGTERM)

    thread = threading.Thread(target=disturb)
    thread.start()
    result = run(plan_of(long), store)
    thread.join()

    assert result.all_done
    assert attempts_of(store, long) == [Outcome.interrupted, Outcome.done]
    assert all(len(journal(store, f"step{n}")) == 1 for n in range(1, 41))


def test_a_full_disk_fails_the_stage_that_meets_it(store: Store) -> None:
    full = stage("full", "fill_the_disk")

    result = run(plan_of(full, stage("good")), store, max_tries=1)

    assert states(result) == {"full": State.failed, "good": State.done}


# ------------------------------------------------------------------------------- usage


def test_usage_counts_held_devices_and_the_steps_of_this_attempt(store: Store) -> None:
    pair = stage("pair", "count", steps=3, devices=2, usd_per_node_hour=3600)

    result = run(plan_of(pair), store)

    usage = store.stage(pair.spec.ref).attempt(1).usage()
    assert isinstance(usage, Usage)
    assert (usage.steps, usage.tokens, usage.first_step) == (3, 30, 0)
    assert usage.num_devices == 2
    # two of a node's two devices: one dollar a second
    assert usage.cost_usd == pytest.approx(usage.wall_s)
    assert result.runs[pair.spec.ref].cost_usd == pytest.approx(usage.wall_s)
    assert usage.cpu_s > 0
    assert usage.peak_memory_bytes > 1e6


# ------------------------------------------------------------------------------- stopping


def interrupt_when(condition: object, *, times: int = 1) -> threading.Thread:
    """Ctrl-C for this process once a condition holds."""
    assert callable(condition)

    def act() -> None:
        wait_for(condition)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_ctrl_c_lets_stages_checkpoint_and_the_next_line_continues(store: Store) -> None:
    first = stage("first", "count", steps=60)
    plan = plan_of(first, stage("second", after=[first]))

    thread = interrupt_when(lambda: journal(store, "step2"))
    result = run(plan, store)
    thread.join()

    assert exit_status(result) == 130
    assert states(result) == {"first": State.interrupted, "second": State.interrupted}
    assert result.new_attempts == 1
    assert result.runs[plan.stages[1].spec.ref].cause == "not started"
    assert attempts_of(store, first) == [Outcome.interrupted]

    again = run(plan, store)

    assert again.all_done
    assert all(len(journal(store, f"step{n}")) == 1 for n in range(1, 61))


def test_a_second_ctrl_c_kills(store: Store) -> None:
    deaf = stage("deaf", "stubborn")

    thread = interrupt_when(lambda: journal(store, "stubborn"), times=2)
    result = run(plan_of(deaf), store)
    thread.join()

    assert exit_status(result) == 130
    assert states(result) == {"deaf": State.interrupted}
    assert result.runs[deaf.spec.ref].cause == "killed at the second signal"
    assert attempts_of(store, deaf) == [Outcome.killed]


def test_what_does_not_stop_in_time_is_killed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "GRACE_S", 0.5)
    deaf = stage("deaf", "stubborn")

    thread = interrupt_when(lambda: journal(store, "stubborn"))
    result = run(plan_of(deaf), store)
    thread.join()

    assert states(result) == {"deaf": State.interrupted}
    assert "did not within" in result.runs[deaf.spec.ref].cause


def test_ctrl_c_while_the_server_imports_ends_at_once(store: Store) -> None:
    class SlowWorkers(Workers):
        def warm_up(self) -> None:
            time.sleep(60)

    begin = time.monotonic()
    loop = scheduler(plan_of(stage("one")), store)
    loop.workers = SlowWorkers()
    thread = interrupt_when(lambda: time.monotonic() - begin > 0.2)
    result = loop.run()
    thread.join()

    assert exit_status(result) == 130
    assert result.new_attempts == 0
    assert time.monotonic() - begin < 30


def test_handlers_of_signals_are_as_before_after_a_run(store: Store) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    run(plan_of(stage("one")), store)

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


# ------------------------------------------------------------------------------- the store


@pytest.mark.parametrize("root", ["/dev/null/store", "/proc/nowhere"])
def test_a_store_that_cannot_be_written_is_refused_by_name(root: str) -> None:
    with pytest.raises(StoreError, match=f"store={root}: cannot be written"):
        run(plan_of(stage("one")), Store(Path(root)))


def test_a_disk_that_fills_up_ends_the_run_with_what_to_do(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(leases, "write_json", no_space)
    with pytest.raises(StoreError, match="No space left on device"):
        run(plan_of(stage("one")), store)


def test_output_that_nobody_reads_is_not_blamed_on_the_store(store: Store) -> None:
    class ClosedPipe(MemoryProgress):
        def event(self, *_: object) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(plan_of(stage("one", "stubborn")), store, progress=ClosedPipe())


def test_a_run_announces_itself_and_leaves_no_lease(store: Store) -> None:
    seen: list[int] = []

    class Looking(MemoryProgress):
        def event(self, *_: object) -> None:
            seen.append(len(list(local.commands_folder(store, "fake").glob("*.json"))))

    run(plan_of(stage("one")), store, progress=Looking())

    assert set(seen) == {1}
    assert (store.study("fake") / "plan.json").exists()
    assert list(local.commands_folder(store, "fake").iterdir()) == []


# ------------------------------------------------------------------------------- processes


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_many_stages_leak_neither_files_nor_processes(store: Store) -> None:
    run(plan_of(stage("warm")), store)
    before = open_files()

    run(plan_of(*[stage(f"s{i}", "die", times=1) for i in range(6)]), store)

    assert open_files() <= before
    assert all(leases.process_start(pid) is None for pid in pids(store))


def test_processes_that_cannot_start_are_tried_again_and_then_a_failure(store: Store) -> None:
    class NoProcesses(Workers):
        def warm_up(self) -> None:
            pass

        def start(self, *_: object) -> list[object]:
            raise EOFError

    one = stage("one")
    loop = scheduler(plan_of(one), store, max_tries=2)
    loop.workers = NoProcesses()

    result = loop.run()

    assert attempts_of(store, one) == [Outcome.killed, Outcome.killed]
    assert "could not be started" in result.runs[one.spec.ref].cause


def test_a_server_that_cannot_be_started_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(Workers, "_started", refuse)
    loop = scheduler(plan_of(stage("one")), store)
    loop.workers = Workers(preload=())

    with pytest.raises(StageError, match="AF_UNIX path too long"):
        loop.run()


def test_the_death_of_the_server_ends_its_ranks_and_is_tried_again(store: Store) -> None:
    long = stage("long", "count", steps=30)

    def disturb() -> None:
        wait_for(lambda: journal(store, "step2"))
        assert WORKERS._server is not None
        os.kill(WORKERS._server, signal.SIGKILL)

    thread = threading.Thread(target=disturb)
    thread.start()
    result = run(plan_of(long), store)
    thread.join()

    assert result.all_done
    assert attempts_of(store, long)[-1] is Outcome.done
    assert attempts_of(store, long)[0] is Outcome.killed
    assert all(leases.process_start(pid) is None for pid in pids(store))


def test_an_attempt_counts_time_by_a_clock_that_nobody_sets(store: Store) -> None:
    one = stage("one", "count", steps=3)
    folder = store.stage(one.spec.ref)
    folder.path.mkdir(parents=True)
    write_json(folder.stage_file, one.spec.to_json())
    attempt = leases.claim(folder, Execution(cluster="local"), after=0)
    assert attempt is not None

    running = RunningAttempt(
        store, one, attempt, workers=WORKERS, parents={}, runner="tests.fakes.stage_runner"
    )
    running._started_at += 3600  # as if the clock had been set back by an hour
    wait_for(lambda: running.poll() is not None)

    usage = attempt.usage()
    assert usage is not None
    assert 0 <= usage.startup_s <= usage.wall_s < 60
