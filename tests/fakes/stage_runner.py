"""Stands in for every kind's run(context): does what the stage's identity says, in milliseconds.

identity["do"] names a function below; every run leaves a line in <store>/journal.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path

from scalesweep.errors import Interrupted, StageError
from scalesweep.launch.leases import process_start
from scalesweep.records import StageRef
from scalesweep.rundir import Store, write_atomic
from scalesweep.stages import StageContext
from scalesweep.tracking import metric_names as names


def run(context: StageContext) -> None:
    note(context, "run")
    globals()[f"do_{context.spec.identity['do']}"](context)


def note(context: StageContext, what: str) -> None:
    """One line in the journal; appending is atomic among processes."""
    line = f"{what} {context.spec.label} {context.attempt.number} {os.getpid()} {time.time()}\n"
    handle = os.open(context.store.root / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode())
    os.close(handle)


def journal(store: Store, what: str = "run") -> list[str]:
    """Labels of the stages that ran, in the order of their beginning."""
    return [line.split()[1] for line in _lines(store) if line.split()[0] == what]


def pids(store: Store) -> list[int]:
    """Processes that ran stages."""
    return [int(line.split()[3]) for line in _lines(store)]


def _lines(store: Store) -> list[str]:
    path = store.root / "journal"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def do_write(context: StageContext) -> None:
    """Output made of the identity's text and the inputs' bytes."""
    if not context.is_main:
        return
    read = [(f / "text").read_text() for _, f in sorted(context.inputs.items())]
    text = context.spec.identity.get("text", "") + "".join(read)
    (context.attempt.output / "text").write_text(text)


def do_differ(context: StageContext) -> None:
    """Other bytes in each attempt, as long as before."""
    (context.attempt.output / "text").write_text(str(time.time_ns()))


def do_nothing(context: StageContext) -> None:
    del context


def do_fail(context: StageContext) -> None:
    print("what the log says")
    raise StageError(f"{context.spec.label} cannot\nbe done")


def do_bug(context: StageContext) -> None:
    raise ZeroDivisionError(f"in {context.spec.label}")


def do_die(context: StageContext) -> None:
    """Killed in the first attempts, fine afterwards."""
    if context.attempt.number <= context.spec.identity["times"]:
        os.kill(os.getpid(), getattr(signal, context.spec.identity.get("by", "SIGKILL")))
        time.sleep(60)
    do_write(context)


def do_vanish(context: StageContext) -> None:
    del context
    os._exit(3)


def do_die_together(context: StageContext) -> None:
    """One rank is killed; the other one notices and fails, as ranks that talk do."""
    if context.attempt.number > 1:
        do_write(context)
        return
    victim = context.attempt.path / "victim"
    if context.rank == 0:
        victim.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    while not victim.exists() or process_start(int(victim.read_text() or os.getpid())):
        time.sleep(0.005)
    raise RuntimeError("connection closed by peer")


def do_fail_alone(context: StageContext) -> None:
    """One rank fails by itself; the other would wait for it for ever."""
    if context.rank == 1:
        raise RuntimeError("shapes differ")
    time.sleep(60)


def do_wait(context: StageContext) -> None:
    """Until a file appears below the store; asked to stop, it writes down how far it was."""
    gate = context.store.root / context.spec.identity["gate"]
    while not gate.exists():
        if context.stop_requested():
            context.attempt.checkpoints.mkdir(exist_ok=True)
            (context.attempt.checkpoints / "here").touch()
            raise Interrupted("stopped")
        time.sleep(0.01)
    do_write(context)


def do_heed_the_time(context: StageContext) -> None:
    """Stops at a checkpoint when less time than it needs is left."""
    ends_at = context.ends_at
    if ends_at is not None and ends_at - time.time() < context.spec.identity["needs_s"]:
        context.attempt.time_limit_file.touch()
        raise Interrupted("stopped")
    do_write(context)


def do_stubborn(context: StageContext) -> None:
    """Never hears that it is to stop."""
    note(context, "stubborn")
    while True:
        time.sleep(0.05)


def do_count(context: StageContext) -> None:
    """Steps with a loss, and a checkpoint of one number after each."""
    begin = 0
    for earlier in context.earlier_attempts():
        if (earlier.checkpoints / "step").exists():
            begin = int((earlier.checkpoints / "step").read_text())
            break
    context.attempt.checkpoints.mkdir(exist_ok=True)
    total = context.spec.identity["steps"]
    for step in range(begin + 1, total + 1):
        time.sleep(context.spec.identity.get("step_s", 0.02))
        context.log_metrics(
            {
                names.STEP: step,
                names.LOSS: 1 / step,
                names.TOKENS: 10,
                names.TOKENS_PER_SECOND: 1234.0,
                names.STEP_SECONDS: 0.02,
                names.PROGRESS_DONE: step,
                names.PROGRESS_TOTAL: total,
                names.PROGRESS_UNIT: "step",
            }
        )
        note(context, f"step{step}")
        write_atomic(context.attempt.checkpoints / "step", str(step))
        if context.stop_requested() and step < total:
            raise Interrupted("stopped")
    do_write(context)


def do_fill_the_disk(context: StageContext) -> None:
    """No file may grow beyond a few bytes, as on a full disk."""
    sys.stdout.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
    (context.attempt.output / "text").write_text("x" * 100)


def output_text(store: Store, ref: StageRef) -> str:
    """What a published stage of this runner wrote."""
    return Path(store.stage(ref).output() / "text").read_text()


def do_name_main(context: StageContext) -> None:
    """Output is what this process takes for the program that was started."""
    main = sys.modules["__main__"]
    found = [str(getattr(main, name, "")) for name in ("__spec__", "__file__")]
    (context.attempt.output / "text").write_text("".join(found).replace("None", ""))
