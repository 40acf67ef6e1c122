"""How an attempt failed, from what it left behind, and whether another try can help. Pure."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from scalesweep.records import Execution


class Failure(StrEnum):
    """Classes of bad ends; docs/clusters.md says what each means."""

    gpu_oom = "gpu_oom"
    host_oom = "host_oom"
    nan_loss = "nan_loss"
    data = "data"
    settings = "settings"
    rendezvous = "rendezvous"
    node_failure = "node_failure"
    preempted = "preempted"
    time_limit = "time_limit"
    cancelled = "cancelled"
    budget = "budget"
    storage = "storage"
    controller = "controller"
    killed = "killed"
    unknown = "unknown"


class Remedy(StrEnum):
    """What a supervisor does about a bad end."""

    give_up = "give up"
    """The same would happen again: the stage fails, its descendants are cancelled."""
    again = "again here"
    """In the same allocation, from the newest checkpoint."""
    smaller = "again with a smaller micro-batch"
    elsewhere = "requeue"
    """The job waits for nodes again, under the same id."""
    wait = "wait for the file system"
    stop = "stop"
    """Somebody asked for it; nothing follows by itself."""


REMEDIES: Mapping[Failure, Remedy] = {
    Failure.gpu_oom: Remedy.smaller,
    Failure.host_oom: Remedy.smaller,
    Failure.nan_loss: Remedy.give_up,
    Failure.data: Remedy.give_up,
    Failure.settings: Remedy.give_up,
    Failure.rendezvous: Remedy.elsewhere,
    Failure.node_failure: Remedy.elsewhere,
    Failure.preempted: Remedy.elsewhere,
    Failure.time_limit: Remedy.elsewhere,
    Failure.cancelled: Remedy.stop,
    Failure.budget: Remedy.stop,
    Failure.storage: Remedy.wait,
    Failure.controller: Remedy.again,
    Failure.killed: Remedy.again,
    Failure.unknown: Remedy.again,
}

COUNTED = (
    Failure.host_oom,
    Failure.rendezvous,
    Failure.node_failure,
    Failure.time_limit,
    Failure.storage,
    Failure.controller,
    Failure.killed,
    Failure.unknown,
)
"""Classes whose tries without progress are bounded by cluster.max_tries.

Of the others some are not tried again, gpu_oom is bounded by the divisors of the micro-batch, and
the rest comes from outside, as often as the cluster likes.
"""

# The second row: what clients of Lustre, BeeGFS and soft NFS mounts get while a server is away.
STORAGE_ERRNOS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.ESHUTDOWN, errno.ENOTCONN, errno.EREMOTEIO, errno.EHOSTDOWN, errno.ENOLINK),
)
STORAGE = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|Stale file handle|"
    r"Cannot send after transport endpoint shutdown|Remote I/O error|"
    r"PytorchStreamWriter failed|unexpected pos \d+ vs|file write failed",
    re.IGNORECASE,
)
GPU_OOM = re.compile(
    r"CUDA (error: )?out of memory|Cuda failure.*out of memory|OutOfMemoryError|"
    r"CUBLAS_STATUS_ALLOC_FAILED"
)
GPU_FAULT = re.compile(
    r"uncorrectable ECC|fallen off the bus|no CUDA-capable device|unspecified launch failure|"
    r"no GPU device|hardware error|NVLink error|\bXid\b"
)
HOST_OOM = re.compile(
    r"oom-kill|oom_kill|Out Of Memory|MemoryError|Cannot allocate memory|"
    r"DefaultCPUAllocator: can't allocate memory|Exceeded job memory limit",
)
RENDEZVOUS = re.compile(
    r"NCCL|ncclRemoteError|ncclSystemError|Gloo|gloo|rendezvous|Connection reset by peer|"
    r"Connection refused|Socket Timeout|DistStoreError|DistNetworkError|TCPStore|"
    r"Connection closed by (peer|remote)",
)
NODE = re.compile(
    r"Node failure|NODE FAIL|Communication connection failure|Socket timed out|"
    r"Zero Bytes were transmitted|node .* not responding|DUE TO NODE|step launch failed|"
    r"Unable to create step|Invalid job id",
    re.IGNORECASE,
)
CONTROLLER = re.compile(
    r"Unable to contact slurm controller|Unable to confirm allocation|Slurm controller",
    re.IGNORECASE,
)
NAN = re.compile(r"the loss is (nan|-?inf)|is not finite", re.IGNORECASE)

EXIT_STORAGE = 74
"""EX_IOERR of sysexits.h: a rank could not write, not even its error."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of an attempt that ended badly."""

    errors: Sequence[Mapping[str, Any]] = ()
    """error-*.json of the ranks: type, message, expected."""
    exit_code: int = 0
    """Of srun: the highest of its tasks'; 128 + n where a signal n killed one; or -n."""
    said: str = ""
    """The last that srun and Slurm printed about it."""
    log: str = ""
    """The last that ranks printed themselves."""
    asked: Failure | None = None
    """The supervisor itself asked the ranks to stop, for this reason."""
    storage_works: bool = True
    """Whether the attempt's folder can be written now."""


def is_storage_error(error: BaseException) -> bool:
    """Whether an exception says that a file system is full, read-only or gone."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in STORAGE_ERRNOS:
            return True
        if STORAGE.search(str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def classify(evidence: Evidence) -> Failure:
    """The class of a bad end. What was asked for comes first, then what ranks say themselves."""
    if evidence.asked is not None:
        return evidence.asked
    texts = [f"{e.get('type', '')}: {e.get('message', '')}" for e in evidence.errors]
    if evidence.exit_code == EXIT_STORAGE or any(
        STORAGE.search(text) for text in (*texts, evidence.said)
    ):
        return Failure.storage
    for error, text in zip(evidence.errors, texts, strict=True):
        if error.get("expected"):
            if NAN.search(text):
                return Failure.nan_loss
            return Failure.data if error.get("type") == "DataError" else Failure.settings
    # A rank that ran out of memory makes its neighbours fail in a collective: memory first.
    for pattern, failure in (
        (GPU_OOM, Failure.gpu_oom),
        (HOST_OOM, Failure.host_oom),
    ):
        if any(pattern.search(text) for text in (*texts, evidence.said, evidence.log)):
            return failure
    if any(GPU_FAULT.search(text) for text in (*texts, evidence.log)):
        return Failure.node_failure  # another node may do
    if not texts and CONTROLLER.search(evidence.said) and not NODE.search(evidence.said):
        return Failure.controller
    if NODE.search(evidence.said):
        return Failure.node_failure
    if not evidence.storage_works:
        return Failure.storage
    killed = _signal_of(evidence.exit_code) is not None
    if not texts and _signal_of(evidence.exit_code) == signal.SIGABRT:
        # NCCL's watchdog ends a process by itself, and says so in its log only.
        return Failure.rendezvous if RENDEZVOUS.search(evidence.log) else Failure.unknown
    others = [text for text in texts if not RENDEZVOUS.search(text)]
    if killed and not others:
        return Failure.killed
    if texts and not others:
        return Failure.rendezvous
    if not texts and not killed and RENDEZVOUS.search(evidence.said):
        return Failure.rendezvous
    return Failure.unknown


def _signal_of(exit_code: int) -> int | None:
    if exit_code < 0:
        return -exit_code
    return exit_code - 128 if 128 < exit_code < 128 + 65 else None


def smaller_micro_batch(execution: Execution, *, max_seq_len: int) -> Execution | None:
    """The same with less in a forward pass; None where there is nothing smaller.

    Rows go down to the largest proper divisor, which divides whatever the old number divides;
    packs to half, and never below the longest sample.
    """
    if execution.micro_batch_tokens:
        tokens = max(execution.micro_batch_tokens // 2, max_seq_len)
        smaller = tokens < execution.micro_batch_tokens
        return replace(execution, micro_batch_tokens=tokens) if smaller else None
    for size in range(execution.micro_batch_size // 2, 0, -1):
        if execution.micro_batch_size % size == 0:
            return replace(execution, micro_batch_size=size)
    return None


def smaller_of(execution: Execution, other: Execution) -> Execution:
    """The execution with the smaller micro-batch of the two, all else as it is.

    Rows and packs do not compare: what did not fit as one says nothing of the other.
    """
    if bool(execution.micro_batch_tokens) != bool(other.micro_batch_tokens):
        return execution
    return replace(
        execution,
        micro_batch_size=min(execution.micro_batch_size, other.micro_batch_size),
        micro_batch_tokens=min(execution.micro_batch_tokens, other.micro_batch_tokens),
    )


@dataclass(frozen=True, kw_only=True)
class Try:
    """What counts of an attempt of a stage."""

    failure: Failure | None
    """None: it ended well, or nothing is known (its node died)."""
    progress: int
    """How far it came, resumed work included: its last metric row's steps or answers."""


def counted_tries(tries: Sequence[Try]) -> int:
    """Attempts at the end of a row that failed in a bounded way without getting any further.

    tries: oldest first. One that came further than all before it begins the count anew.
    """
    count, best = 0, 0
    for one in tries:
        if one.progress > best:
            count, best = 0, one.progress
        if one.failure in COUNTED:
            count += 1
    return count
