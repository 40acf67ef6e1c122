"""What one rank of a stage does in its own process, from fork to exit."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from scalesweep.errors import Interrupted, ScaleSweepError, StoreError
from scalesweep.launch.failures import EXIT_STORAGE, is_storage_error
from scalesweep.records import Outcome, StageRef, Usage
from scalesweep.rundir import AttemptDir, Store, write_json
from scalesweep.stages import RENDEZVOUS_VARIABLE, RUNNERS, StageContext, StopFlag
from scalesweep.tracking import metric_names as names
from scalesweep.tracking.metric_rows import first_row, last_row, startup_s

EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OVERTAKEN = 0, 1, 75, 76
USAGE_INTERVAL_S = 2.0
LONGEST_CAUSE = 600
"""Characters of an error that are kept as its cause; the log has all of it."""
HELD_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Blocked in whatever starts a rank, until the rank knows what to do with them."""
COMMAND_VARIABLE = "SCALESWEEP_COMMAND"
"""Environment variable with the process id of the command that starts ranks."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, kw_only=True)
class RankTask:
    """One rank of one attempt; pickled into the process that runs it."""

    store: Path
    ref: StageRef
    attempt: int
    inputs: dict[str, Path]
    rank: int
    world_size: int
    port: int
    started_at: float
    """Seconds since 1970 when the attempt was claimed."""
    started_monotonic: float
    """The same on the clock of this boot, which all processes share and nobody sets."""
    runner: str | None = None
    """Module with run(context), instead of the kind's own."""
    local_rank: int | None = None
    """Position on its node; None where there is one node."""
    rendezvous: Path | None = None
    """File by which ranks on several nodes find each other; port has no meaning then."""
    ends_at: float | None = None
    """Seconds since 1970 when the job's time limit ends it; None where it has none."""


def error_file(attempt: AttemptDir, rank: int) -> Path:
    return attempt.path / f"error-{rank:03d}.json"


def done_file(attempt: AttemptDir, rank: int) -> Path:
    """There when a rank that srun started is done: it may say 0 of ranks that were killed."""
    return attempt.path / f"done-{rank:03d}"


def rank_usage_file(attempt: AttemptDir, rank: int) -> Path:
    return attempt.usage_file if rank == 0 else attempt.path / f"usage-{rank:03d}.json"


def main(task: RankTask, lifeline: Connection) -> None:
    """Run one rank; never returns.

    lifeline: its other end is held by the command; when that dies, so do we, at once.
    """
    die_with_parent()
    threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()
    serve(task, stopped_by=(signal.SIGTERM,))


def serve(task: RankTask, *, stopped_by: Sequence[signal.Signals]) -> None:
    """Run one rank in this process and exit with how it ended; never returns.

    stopped_by: signals that ask to write a checkpoint and stop.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's business
    stop = StopFlag()
    for number in stopped_by:
        signal.signal(number, lambda *_: stop.event.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)
    store = Store(task.store)
    stage = store.stage(task.ref)
    attempt = stage.attempt(task.attempt)
    _redirect_output(attempt.log)
    _set_environment(task)
    usage = _UsageWriter(task, attempt)
    usage.start()
    status = EXIT_FAILED
    try:
        execution = attempt.execution()
        assert execution is not None, "an attempt is claimed with its execution.json"
        if execution.needs_gpu and not list(Path("/dev").glob("nvidia[0-9]*")):
            # Going on with the CPU would cost the GPU's price until the time limit.
            raise RuntimeError(
                f"no GPU device on {os.uname().nodename}, though the job asked for it"
            )
        spec = stage.spec()
        module = importlib.import_module(task.runner or RUNNERS[spec.kind])
        module.run(
            StageContext(
                store=store,
                stage=stage,
                attempt=attempt,
                spec=spec,
                execution=execution,
                inputs=task.inputs,
                rank=task.rank,
                world_size=task.world_size,
                local_rank=task.rank if task.local_rank is None else task.local_rank,
                stop_requested=stop,
                ends_at=task.ends_at,
            )
        )
        if task.rendezvous is not None:
            done_file(attempt, task.rank).touch()
        status = EXIT_DONE
    except Interrupted as error:
        _say(str(error))
        status = EXIT_INTERRUPTED
    except BaseException as error:
        if is_storage_error(error):  # it may be that nothing more can be written
            status = EXIT_STORAGE
        _say(traceback.format_exc())
        _write_error(attempt, task.rank, error)
    usage.close()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Threads of libraries may hang in a normal exit; all that matters is on disk.
    os._exit(status)


def _peak_device_bytes() -> int:
    """Highest memory of this process's tensors on its GPU; 0 where it has used none."""
    torch = sys.modules.get("torch")  # the stage imports it, if it needs it
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.max_memory_allocated())


def _say(text: str) -> None:
    """To the log, which may lie on a full disk."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr)


def die_with_parent() -> None:
    """SIGKILL this process when the one that started it dies (Linux; elsewhere nothing happens).

    So no rank outlives the server that reports its end, whatever it is busy with.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def die_with_command() -> None:
    """The same for the server, whose parent is the command; ends it when that is gone already."""
    die_with_parent()
    if os.environ.get(COMMAND_VARIABLE) != str(os.getppid()):
        os._exit(EXIT_FAILED)


def _die_with(lifeline: Connection) -> None:
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        os._exit(EXIT_FAILED)


def _redirect_output(log: Path) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.getLogger("scalesweep").setLevel(logging.INFO)


def _set_environment(task: RankTask) -> None:
    os.environ.update(
        RANK=str(task.rank),
        LOCAL_RANK=str(task.rank if task.local_rank is None else task.local_rank),
        WORLD_SIZE=str(task.world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(task.port),
    )
    if task.rendezvous is not None:
        os.environ[RENDEZVOUS_VARIABLE] = str(task.rendezvous)


def _write_error(attempt: AttemptDir, rank: int, error: BaseException) -> None:
    expected = isinstance(error, ScaleSweepError)
    message = str(error) if expected else f"{type(error).__name__}: {error}"
    first = message.strip().splitlines() or [type(error).__name__]
    line = " ".join(first)
    if len(line) > LONGEST_CAUSE:
        line = f"{line[:LONGEST_CAUSE]} ..."
    record = {"type": type(error).__name__, "message": line, "expected": expected}
    try:
        write_json(error_file(attempt, rank), record)
    except OSError as unwritten:  # a full disk, of which the error itself may speak
        _say(f"error not written: {unwritten}")


class _UsageWriter(threading.Thread):
    """Rewrites this rank's usage every few seconds, so that a kill loses little of the account."""

    def __init__(self, task: RankTask, attempt: AttemptDir) -> None:
        super().__init__(daemon=True)
        self._task, self._attempt = task, attempt
        self._execution = attempt.execution()
        self._file = rank_usage_file(attempt, task.rank)
        self._writing = threading.Lock()

    def run(self) -> None:
        while True:
            self.write()
            time.sleep(USAGE_INTERVAL_S)
            self._end_if_overtaken()

    def _end_if_overtaken(self) -> None:
        """A later attempt shows that we were taken for dead: nothing we do is of use any more."""
        if self._attempt.following().path.exists():
            _say("a later attempt of this stage has begun; this one ends")
            os._exit(EXIT_OVERTAKEN)

    def write(self) -> None:
        with self._writing:
            self._write()

    def close(self) -> None:
        """Write for the last time; the process ends, which must not cut a write of the thread."""
        self._writing.acquire()  # and never release
        self._write()

    def _write(self) -> None:
        spent = resource.getrusage(resource.RUSAGE_SELF)
        execution = self._execution
        usage = Usage(
            outcome=Outcome.running,
            started_at=self._task.started_at,
            wall_s=round(time.monotonic() - self._task.started_monotonic, 3),
            cpu_s=round(spent.ru_utime + spent.ru_stime, 3),
            peak_memory_bytes=spent.ru_maxrss * 1024,
            peak_device_bytes=_peak_device_bytes(),
            num_devices=execution.num_held_devices if execution else 1,
            node_devices=execution.node_devices if execution else 1,
            usd_per_node_hour=execution.usd_per_node_hour if execution else 0.0,
        )
        if self._task.rank == 0:
            if not self._is_open():
                return
            usage = self._with_work(usage)
        try:
            write_json(self._file, usage.to_json())
        except OSError as error:  # a full disk must not end the training by way of its accounts
            _say(f"usage not written: {error}")

    def _is_open(self) -> bool:
        """Whoever started the ranks may have closed the attempt while this one is being killed."""
        try:
            found = self._attempt.usage()
        except (StoreError, KeyError, TypeError, ValueError):
            return True
        return found is None or found.outcome is Outcome.running

    def _with_work(self, usage: Usage) -> Usage:
        """Steps and start-up so far, by first and last row: the command may die with us."""
        first, last = first_row(self._attempt.metrics), last_row(self._attempt.metrics)
        spent = startup_s(first, started_at=self._task.started_at, wall_s=usage.wall_s)
        usage = replace(usage, startup_s=round(spent, 3))
        if names.STEP not in first or names.STEP not in last:
            return usage
        tokens_before = int(first.get(names.TOKENS_SEEN, 0)) - int(first.get(names.TOKENS, 0))
        return replace(
            usage,
            steps=int(last[names.STEP]) - int(first[names.STEP]) + 1,
            first_step=int(first[names.STEP]) - 1,
            tokens=int(last.get(names.TOKENS_SEEN, 0)) - tokens_before,
        )
