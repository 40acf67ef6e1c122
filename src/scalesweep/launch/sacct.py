"""Slurm's accounting: one row for each run of each job, all jobs in one call of sacct."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence

from scalesweep.errors import ScaleSweepError
from scalesweep.launch.slurm import SlurmError, asked
from scalesweep.slurm_records import JobRow

TIMEOUT_S = 30
MOST_CHARACTERS = 100_000
"""Of job ids in one call; the kernel takes 131,071 in one argument."""
CLOCK_TOLERANCE_S = 7200
"""How far a submitter's clock may be ahead of the database's, daylight saving included."""

# -D: runs before a requeue too; -X: no steps; -P: columns are not cut.
FIELDS = (
    "JobID,JobIDRaw,JobName,Cluster,State,ElapsedRaw,AllocTRES,NNodes,AllocCPUS,"
    "Submit,Eligible,Start,End,ExitCode"
)
ENVIRONMENT = {
    "SLURM_TIME_FORMAT": "%s",
    "SLURM_BITSTR_LEN": "0",  # the indices of a waiting array in full
    "LC_ALL": "C",
}


class AccountingUnavailable(ScaleSweepError):
    """sacct has no answer: it is not here, there is no accounting, or its database is away."""


def query(job_ids: Iterable[int], *, names: Collection[str], since: float) -> list[JobRow]:
    """Rows of all runs of jobs or job arrays.

    names: of the jobs; rows of another name are left out, since job ids start again where a
    cluster's state was wiped.
    since: when the first of them was submitted, seconds since 1970.

    Raises:
        AccountingUnavailable: with the reason in one line.
    """
    begin = time.localtime(max(since - CLOCK_TOLERANCE_S, 0))
    words = ["sacct", "-D", "-X", "-P", "-n", "-S", time.strftime("%Y-%m-%dT%H:%M:%S", begin)]
    rows = []
    for ids in _chunks(sorted(set(job_ids))):
        try:
            text = asked(
                [*words, "-j", ids, "-o", FIELDS],
                env={**os.environ, **ENVIRONMENT},
                timeout_s=TIMEOUT_S,
            )
        except SlurmError as error:
            raise AccountingUnavailable(_reason(str(error))) from error
        rows += [row for row in parse_rows(text) if row.name in names]
    return rows


def _chunks(job_ids: Sequence[int]) -> Iterator[str]:
    """The ids as arguments of sacct; nearly always one."""
    most = MOST_CHARACTERS // (len(str(max(job_ids, default=0))) + 1)
    for i in range(0, len(job_ids), most):
        yield ",".join(map(str, job_ids[i : i + most]))


def _reason(said: str) -> str:
    """The one thing to know of what sacct said."""
    for pattern, reason in (
        (r"not installed", "no sacct here"),
        (r"accounting storage is disabled", "Slurm accounting storage is disabled"),
        (r"no answer from Slurm", f"sacct did not answer in {TIMEOUT_S} s"),
        (r"Connection refused", "slurmdbd refuses connections"),
    ):
        if re.search(pattern, said, re.IGNORECASE):
            return reason
    return said


def parse_rows(text: str) -> list[JobRow]:
    """Rows of sacct -D -X -P -n -o FIELDS with times in seconds since 1970.

    A row that never got nodes is kept and not `started`: it is the wait for the next run of a
    requeued job, or an element that was cancelled before. Lines that are no such row are skipped.
    """
    rows = []
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != FIELDS.count(",") + 1 or not fields[1].isdigit():
            continue
        job, job_id, name, cluster, state, elapsed, tres, nodes, cpus, *times, exit_code = fields
        submit, eligible, start, end = map(_time, times)
        rows.append(
            JobRow(
                job=job,
                job_id=int(job_id),
                name=name,
                cluster=cluster,
                state=state.partition(" ")[0],  # CANCELLED by 1000
                elapsed_s=_number(elapsed),
                gpus=_gpus(tres),
                nodes=_number(nodes),
                cpus=_number(cpus),
                submit=submit,
                eligible=eligible,
                start=start,
                end=end,
                exit_code=exit_code,
                # What was cancelled while it waited may have a start, but nothing was allocated.
                started=bool(tres) and start is not None,
            )
        )
    return rows


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _time(text: str) -> int | None:
    """None for Unknown and None."""
    return int(text) if text.isdigit() and int(text) else None


def _gpus(tres: str) -> int:
    """Of AllocTRES. One with a type is there twice, as gres/gpu:a100=8 and as gres/gpu=8."""
    counts: dict[str, int] = {}
    for part in tres.split(","):
        name, _, count = part.partition("=")
        if name == "gres/gpu" or name.startswith("gres/gpu:"):
            counts[name] = _number(count)
    return counts.pop("gres/gpu", sum(counts.values()))
