"""python -m benchmarks [NAME ...]; names are below; without any, all."""

from __future__ import annotations

import importlib
import os
import platform
import sys

NAMES = (
    "startup",
    "sweeps",
    "submission",
    "training",
    "packing",
    "checkpoints",
    "costs",
    "memory",
    "generation",
    "judging",
    "demo",
    "predictions",
)


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"{unknown[0]}: no such benchmark; choose {', '.join(NAMES)}", file=sys.stderr)
        return 2
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python "
          f"{platform.python_version()}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    for name in names or NAMES:
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
