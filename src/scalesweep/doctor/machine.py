"""What the operating system says of this machine; no GPU library is imported."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
from importlib import metadata
from pathlib import Path

from scalesweep.config.load import slurm_answers
from scalesweep.doctor.findings import Finding, State
from scalesweep.models.hub import cache_folder

GIB = 1 << 30

# torch's DataLoader and NCCL share memory there; Docker gives 64 MiB unless told.
LEAST_SHM_BYTES = 1 * GIB
LEAST_OPEN_FILES = 4096
"""A sharded checkpoint and its index, logs and sockets of eight ranks."""
INSTRUCTION_SETS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
"""Fastest first; the first two have arithmetic in bf16."""


def machine_findings(store: Path) -> list[Finding]:
    """In the order in which they are shown."""
    return [
        Finding(name="python", value=platform.python_version()),
        cores(),
        memory(),
        shared_memory(),
        open_files(),
        disk(store),
        slurm(),
        hub_cache(),
        wandb(),
    ]


def cores(cpuinfo: Path = Path("/proc/cpuinfo")) -> Finding:
    usable = len(os.sched_getaffinity(0))
    flags: set[str] = set()
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                flags = set(line.partition(":")[2].split())
                break
    known = [name for name in INSTRUCTION_SETS if name in flags]
    return Finding(
        name="cores",
        value=f"{usable}" + (f", {known[0].upper()}" if known else ""),
        facts={"cores": usable, "instruction_sets": known},
    )


def memory(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup/memory.max")
) -> Finding:
    """Of the machine, and of this job where it is held to less."""
    values: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0]) * 1024
    total, free = values.get("MemTotal", 0), values.get("MemAvailable", 0)
    limit: int | None = None
    with contextlib.suppress(OSError, ValueError):
        limit = int(cgroup.read_text(encoding="utf-8"))  # "max" where there is none
    text = f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"
    if limit is not None and limit < total:
        text += f"; held to {limit / GIB:.1f}"
    return Finding(name="memory", value=text, facts={"total": total, "free": free, "limit": limit})


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    try:
        size = shutil.disk_usage(folder).total
    except OSError:
        return Finding(
            name="shared memory",
            value=f"no {folder}",
            state=State.note,
            way_out="ranks of one machine need it; mount a tmpfs there",
        )
    small = size < LEAST_SHM_BYTES
    return Finding(
        name="shared memory",
        value=f"{size / GIB:.2f} GiB in {folder}",
        state=State.note if small else State.well,
        way_out="NCCL and data loaders may fail; docker run --shm-size=16g" if small else "",
        facts={"total": size},
    )


def open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft < LEAST_OPEN_FILES
    return Finding(
        name="open files",
        value=f"{soft} (at most {hard})",
        state=State.note if few else State.well,
        way_out=f"many ranks on one machine may need more; ulimit -n {min(65536, hard)}"
        if few
        else "",
        facts={"soft": soft, "hard": hard},
    )


def disk(store: Path) -> Finding:
    """Of the store, or of the folder that will hold it."""
    folder = store
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return Finding(
        name="store",
        value=f"{store}: {usage.free / GIB:.1f} GiB free of {usage.total / GIB:.1f}",
        state=State.note if usage.free < 10 * GIB else State.well,
        way_out="checkpoints of large models will not fit; store=DIR elsewhere"
        if usage.free < 10 * GIB
        else "",
        facts={"free": usage.free, "total": usage.total, "there": store.exists()},
    )


def slurm() -> Finding:
    found = slurm_answers()
    text = "sbatch answers: cluster=auto submits" if found else "none here: cluster=auto runs here"
    return Finding(name="Slurm", value=text, facts={"found": found})


def hub_cache() -> Finding:
    """Where Hugging Face keeps what it downloaded."""
    folder = cache_folder()
    models = len(list(folder.glob("models--*"))) if folder.is_dir() else 0
    text = f"{folder}: {models} model{'' if models == 1 else 's'}"
    if not folder.is_dir():
        text = f"{folder}: not there"
    return Finding(
        name="Hugging Face cache",
        value=text,
        facts={"folder": str(folder), "models": models},
    )


def wandb() -> Finding:
    try:
        version = metadata.version("wandb")
    except metadata.PackageNotFoundError:
        return Finding(
            name="W&B",
            value="not installed: no runs are written",
            way_out="pip install 'scalesweep[wandb]'",
            facts={"version": None},
        )
    return Finding(name="W&B", value=f"{version}: runs are written offline, `sync` uploads them",
                   facts={"version": version})  # fmt: skip
