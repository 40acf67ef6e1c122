"""Entry point of `python -m scalesweep` and of the command `scalesweep`."""

from __future__ import annotations

import sys

from scalesweep.cli import run


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
