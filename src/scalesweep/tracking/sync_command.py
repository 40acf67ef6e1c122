"""One round of uploading, as a command of its own so that nothing else need import wandb.

python -m scalesweep.tracking.sync_command STORE STUDY --project P [--entity E] [--limit S]
    [--lag S]

Exit status: 0 W&B has everything, 1 something is left (kept; the next round goes on), 2 refused,
130 interrupted. The last line says so.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from scalesweep.errors import ScaleSweepError
from scalesweep.report.formatting import plural
from scalesweep.rundir import Store
from scalesweep.tracking.sync import LAG_S, Synced, Syncing

DONE, LEFT, REFUSED, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Do one round; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scalesweep.tracking.sync_command")
    parser.add_argument("store", type=Path)
    parser.add_argument("study")
    parser.add_argument("--project", required=True)
    parser.add_argument("--entity")
    parser.add_argument("--limit", type=float, default=180.0)
    parser.add_argument("--lag", type=float, default=LAG_S)
    words = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up like Ctrl-C
    try:
        synced = Syncing(
            store=Store(words.store.resolve()),
            study=words.study,
            project=words.project,
            entity=words.entity,
            stall_s=words.limit,
            lag_s=words.lag,
        ).round()
    except (ScaleSweepError, OSError) as error:
        print(f"scalesweep: sync: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("scalesweep: sync: interrupted; what was not sent is kept", file=sys.stderr)
        return INTERRUPTED
    for warning in synced.warnings:
        print(f"scalesweep: warning: {warning}", file=sys.stderr)
    print(line_about(synced), file=sys.stderr if synced.problem else sys.stdout)
    return LEFT if synced.problem else DONE


def line_about(synced: Synced) -> str:
    """One line for who waits at the terminal."""
    sent = f"W&B: {plural(synced.num_sent, 'run')} uploaded"
    if synced.problem:
        return (
            f"{sent}, {synced.num_left} not: {synced.problem}. All is kept on disk; the same "
            "sync goes on from there"
        )
    if not synced.num_sent:
        return "W&B: has everything; nothing was sent"
    return f"{sent}: {synced.url}"


if __name__ == "__main__":
    sys.exit(main())
