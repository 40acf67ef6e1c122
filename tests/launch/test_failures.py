"""What ranks, srun and Slurm say of a bad end gives its class, and the class what follows."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest

from scalesweep.launch.failures import (
    REMEDIES,
    Evidence,
    Failure,
    Remedy,
    Try,
    classify,
    counted_tries,
    is_storage_error,
    smaller_micro_batch,
    smaller_of,
)
from scalesweep.records import Execution

KILLED_RANK = (
    "srun: error: n1: task 3: Killed\n"
    "srun: launch/slurm: _step_signal: Terminating StepId=12.0\n"
    "slurmstepd: error: *** STEP 12.0 ON n0 CANCELLED AT 2026-11-24T10:00:00 ***\n"
)
FAILED_RANK = "srun: error: n0: task 0: Exited with exit code 1\n"


def error(kind: str, message: str = "", *, expected: bool = False) -> dict[str, Any]:
    """As a rank writes it."""
    text = message if expected else f"{kind}: {message}"
    return {"type": kind, "message": text, "expected": expected}


NCCL = error(
    "DistBackendError",
    "NCCL error in: /opt/pytorch/torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:2251, unhandled "
    "system error, ncclSystemError: System call or external library call failed",
)
GLOO = error(
    "RuntimeError",
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer "
    "[10.0.0.7]:24310",
)
CUDA_OOM = error(
    "OutOfMemoryError",
    "CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0 has a total capacity of 79.25 GiB",
)
ALLOCATOR = error(
    "RuntimeError",
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)",
)

BY_ERRORS = {
    "cuda-oom": (CUDA_OOM, Failure.gpu_oom),
    "cublas": (
        error("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        Failure.gpu_oom,
    ),
    "cpu-allocator": (ALLOCATOR, Failure.host_oom),
    "memory-error": (
        error("MemoryError", "Unable to allocate 9.31 GiB for an array"),
        Failure.host_oom,
    ),
    "fork": (error("OSError", "[Errno 12] Cannot allocate memory"), Failure.host_oom),
    "nccl": (NCCL, Failure.rendezvous),
    "gloo": (GLOO, Failure.rendezvous),
    "tcp-store": (
        error("DistStoreError", "Timed out after 601 seconds waiting for clients. 15/16 joined."),
        Failure.rendezvous,
    ),
    "rendezvous-file": (
        error("TimeoutError", "rendezvous: rank 0 wrote no rendezvous.json in 600 s"),
        Failure.rendezvous,
    ),
    "refused": (error("ConnectionRefusedError", "[Errno 111] Connection refused"),
                Failure.rendezvous),
    "enospc": (error("OSError", "[Errno 28] No space left on device: 'x'"), Failure.storage),
    "quota": (error("OSError", "[Errno 122] Disk quota exceeded"), Failure.storage),
    "read-only": (error("OSError", "[Errno 30] Read-only file system: 'y'"), Failure.storage),
    "stale": (error("OSError", "[Errno 116] Stale file handle"), Failure.storage),
    "torch-save": (
        error(
            "RuntimeError",
            "[enforce fail at inline_container.cc:626] . unexpected pos 576 vs 470",
        ),
        Failure.storage,
    ),
    "torch-writer": (
        error("RuntimeError", "PytorchStreamWriter failed writing file data/0: file write failed"),
        Failure.storage,
    ),
    "nan": (
        error("StageError", "step 7: the loss is nan; try a smaller learning rate", expected=True),
        Failure.nan_loss,
    ),
    "infinite": (error("StageError", "step 7: the loss is inf", expected=True), Failure.nan_loss),
    "data": (error("DataError", "train.json, item 3: no image", expected=True), Failure.data),
    "settings": (
        error("ConfigError", "batch.micro_batch_size=3: must divide 8", expected=True),
        Failure.settings,
    ),
    "bug": (error("ZeroDivisionError", "division by zero"), Failure.unknown),
}  # fmt: skip


@pytest.mark.parametrize(("found", "failure"), BY_ERRORS.values(), ids=BY_ERRORS)
def test_what_a_rank_says_gives_the_class(found: dict[str, Any], failure: Failure) -> None:
    evidence = Evidence(errors=[found], exit_code=1, said=FAILED_RANK)

    assert classify(evidence) is failure


BY_SLURM = {
    "oom-kill": (
        137,
        "slurmstepd: error: Detected 1 oom_kill event in StepId=12.0. Some of the step tasks have "
        "been OOM Killed.\nsrun: error: n0: task 0: Out Of Memory\n",
        Failure.host_oom,
    ),
    "memory-limit": (
        1,
        "slurmstepd: error: Step 12.0 exceeded memory limit\nslurmstepd: error: Exceeded job "
        "memory limit\n",
        Failure.host_oom,
    ),
    "node-failure": (
        1,
        "srun: error: Node failure on n1\nsrun: Job step aborted: Waiting up to 32 seconds\n",
        Failure.node_failure,
    ),
    "node-fail": (
        1,
        "slurmstepd: error: *** STEP 12.0 ON n0 CANCELLED AT 2026-11-24T10:00:00 DUE TO NODE n1 "
        "FAILURE ***\n",
        Failure.node_failure,
    ),
    "launch": (
        1,
        "srun: error: Task launch for StepId=12.0 failed on node n1: Communication connection "
        "failure\nsrun: error: Application launch failed: Communication connection failure\n",
        Failure.node_failure,
    ),
    "socket": (
        1,
        "srun: error: Unable to create step for job 12: Socket timed out on send/recv operation\n",
        Failure.node_failure,
    ),
    "no-step": (
        1,
        "srun: error: Unable to create step for job 12: Job/step already completing or completed\n",
        Failure.node_failure,
    ),
    "controller": (
        1,
        "srun: error: Unable to confirm allocation for job 12: Unable to contact slurm controller "
        "(connect failure)\n",
        Failure.controller,
    ),
    "nccl-said": (1, "n0: NCCL WARN Connect to 10.0.0.7 failed\n" + FAILED_RANK,
                  Failure.rendezvous),
    "sigkill": (137, KILLED_RANK, Failure.killed),
    "sigterm": (143, "srun: error: n0: task 0: Terminated\n", Failure.killed),
    "killed-srun": (-9, "", Failure.killed),
    "storage-status": (74, "srun: error: n0: task 0: Exited with exit code 74\n", Failure.storage),
    "interrupted": (75, "", Failure.unknown),
    "silent": (1, FAILED_RANK, Failure.unknown),
    "exit-3": (3, "", Failure.unknown),
    "status-above-signals": (255, "", Failure.unknown),
}  # fmt: skip


@pytest.mark.parametrize(("code", "said", "failure"), BY_SLURM.values(), ids=BY_SLURM)
def test_without_a_word_of_the_ranks_what_slurm_says_counts(
    code: int, said: str, failure: Failure
) -> None:
    assert classify(Evidence(exit_code=code, said=said)) is failure


@pytest.mark.parametrize("first", [CUDA_OOM, ALLOCATOR], ids=["gpu", "host"])
def test_memory_counts_before_the_collective_that_fails_after_it(first: dict[str, Any]) -> None:
    alone = classify(Evidence(errors=[first], exit_code=1))

    assert classify(Evidence(errors=[GLOO, NCCL, first], exit_code=1, said=KILLED_RANK)) is alone


def test_an_expected_error_counts_before_what_follows_in_the_other_ranks() -> None:
    broken = error("DataError", "train.json, item 3: no image", expected=True)

    assert classify(Evidence(errors=[GLOO, broken], exit_code=1)) is Failure.data


def test_a_full_disk_counts_before_an_error_that_the_trainer_expects() -> None:
    full = error("StageError", "no checkpoint: No space left on device", expected=True)

    assert classify(Evidence(errors=[full], exit_code=1)) is Failure.storage


def test_neighbours_of_a_killed_rank_do_not_make_it_a_rendezvous() -> None:
    assert classify(Evidence(errors=[GLOO], exit_code=137, said=KILLED_RANK)) is Failure.killed


def test_a_bug_beside_broken_connections_is_not_taken_for_the_network() -> None:
    bug = error("ZeroDivisionError", "division by zero")

    assert classify(Evidence(errors=[GLOO, bug], exit_code=137)) is Failure.unknown


def test_what_the_supervisor_asked_for_counts_before_all_else() -> None:
    evidence = Evidence(
        errors=[CUDA_OOM], exit_code=75, asked=Failure.time_limit, storage_works=False
    )

    assert classify(evidence) is Failure.time_limit


def test_a_folder_that_cannot_be_written_explains_an_end_that_nothing_else_does() -> None:
    assert classify(Evidence(exit_code=137, storage_works=False)) is Failure.storage


def test_every_class_has_a_remedy() -> None:
    assert REMEDIES.keys() == set(Failure)


REMEDY_OF = {
    Failure.gpu_oom: Remedy.smaller,
    Failure.nan_loss: Remedy.give_up,
    Failure.data: Remedy.give_up,
    Failure.settings: Remedy.give_up,
    Failure.node_failure: Remedy.elsewhere,
    Failure.preempted: Remedy.elsewhere,
    Failure.time_limit: Remedy.elsewhere,
    Failure.cancelled: Remedy.stop,
    Failure.storage: Remedy.wait,
    Failure.killed: Remedy.again,
}


@pytest.mark.parametrize(("failure", "remedy"), REMEDY_OF.items(), ids=map(str, REMEDY_OF))
def test_the_remedy_fits_the_class(failure: Failure, remedy: Remedy) -> None:
    assert REMEDIES[failure] is remedy


# ---------------------------------------------------------------------- file systems


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE]
)
def test_an_errno_of_a_bad_file_system_is_told_from_others(number: int) -> None:
    assert is_storage_error(OSError(number, "whatever"))
    assert not is_storage_error(OSError(errno.ENOENT, "No such file or directory"))


def test_a_bad_file_system_is_found_behind_the_error_that_it_led_to() -> None:
    wrapped, beside = RuntimeError("cannot save"), RuntimeError("cannot clean up")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    beside.__context__ = wrapped

    assert is_storage_error(beside)
    assert is_storage_error(RuntimeError("PytorchStreamWriter failed writing file data/1"))
    assert not is_storage_error(RuntimeError("cannot save"))


# ---------------------------------------------------------------------- counting


@pytest.mark.parametrize(("size", "smaller"), [(8, 4), (12, 6), (9, 3), (7, 1), (2, 1), (1, None)])
def test_the_smaller_micro_batch_is_the_largest_proper_divisor(
    size: int, smaller: int | None
) -> None:
    execution = Execution(cluster="slurm", micro_batch_size=size)

    found = smaller_micro_batch(execution, max_seq_len=1)

    assert found == (None if smaller is None else replace(execution, micro_batch_size=smaller))


@pytest.mark.parametrize(
    ("tokens", "smaller"), [(8192, 4096), (4096, 2048), (3000, 2048), (2048, None)]
)
def test_smaller_packs_are_half_and_never_below_the_longest_sample(
    tokens: int, smaller: int | None
) -> None:
    execution = Execution(cluster="slurm", micro_batch_tokens=tokens)

    found = smaller_micro_batch(execution, max_seq_len=2048)

    assert found == (None if smaller is None else replace(execution, micro_batch_tokens=smaller))


def test_rows_and_packs_do_not_compare() -> None:
    rows = Execution(cluster="slurm", micro_batch_size=8)
    packs = Execution(cluster="slurm", micro_batch_tokens=8192)

    assert smaller_of(packs, rows) == packs
    assert smaller_of(rows, packs) == rows
    assert smaller_of(packs, replace(packs, micro_batch_tokens=4096)).micro_batch_tokens == 4096


def tries(*found: tuple[Failure | None, int]) -> list[Try]:
    return [Try(failure=failure, progress=progress) for failure, progress in found]


def test_attempts_that_come_no_further_are_counted() -> None:
    killed = Failure.killed

    assert counted_tries([]) == 0
    assert counted_tries(tries((killed, 0), (killed, 0), (killed, 0))) == 3


def test_coming_further_begins_the_count_anew() -> None:
    killed = Failure.killed

    assert counted_tries(tries((killed, 0), (killed, 0), (killed, 5))) == 1
    assert counted_tries(tries((killed, 5), (killed, 5), (killed, 4))) == 3


def test_what_comes_from_outside_is_as_often_as_the_cluster_likes() -> None:
    outside = (Failure.preempted, Failure.cancelled, None)

    assert counted_tries(tries(*((failure, 0) for failure in outside))) == 0


def test_preemptions_between_do_not_forgive_what_failed() -> None:
    row = tries((Failure.killed, 3), (Failure.preempted, 3), (Failure.node_failure, 3))

    assert counted_tries(row) == 2


def test_memory_of_the_gpu_outside_of_torchs_allocator() -> None:
    said = {"type": "AcceleratorError", "message": "AcceleratorError: CUDA error: out of memory"}

    assert classify(Evidence(errors=[said], exit_code=1)) is Failure.gpu_oom


@pytest.mark.parametrize(
    ("errors", "code", "log", "failure"),
    [
        (["RuntimeError: no GPU device on n3, though the job asked one"], 1, "",
         Failure.node_failure),
        (["AcceleratorError: CUDA error: uncorrectable ECC error encountered"], 1, "",
         Failure.node_failure),
        ([], 134, "[rank3] Watchdog caught collective operation timeout: NCCL", Failure.rendezvous),
        ([], 134, "free(): invalid pointer", Failure.unknown),
        ([], 1, "torch.OutOfMemoryError: CUDA out of memory.", Failure.gpu_oom),
    ],
    ids=["no GPU", "ECC", "NCCL watchdog", "abort", "log only"],
)  # fmt: skip
def test_what_ranks_print_before_they_die_counts(
    errors: list[str], code: int, log: str, failure: Failure
) -> None:
    said = [{"type": e.partition(":")[0], "message": e, "expected": False} for e in errors]

    assert classify(Evidence(errors=said, exit_code=code, log=log)) is failure
