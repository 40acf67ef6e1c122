"""Host memory that this process may still take."""

from __future__ import annotations

from pathlib import Path


def available_bytes(root: Path = Path("/")) -> int:
    """What the kernel could give without swapping, within the limits of this process's cgroups.

    root: of the file system; another one in tests. Where nothing can be read, 0.
    """
    free = _meminfo(root / "proc/meminfo")
    for folder in _cgroups(root):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            most, taken = _number(folder / limit), _number(folder / used)
            if most is not None and taken is not None:
                free = min(free, max(0, most - taken + _reclaimable(folder / "memory.stat")))
    return free


def _meminfo(path: Path) -> int:
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


def _cgroups(root: Path) -> list[Path]:
    """Folders of this process's memory cgroup and of all above it (Slurm makes one a job)."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        folder = top / path.lstrip("/")
        found += [folder, *[up for up in folder.parents if up.is_relative_to(top)]]
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max"
        return None


def _reclaimable(path: Path) -> int:
    """Cached files, which are counted as used and given back when needed."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError):
        return 0
