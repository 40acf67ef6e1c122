"""A study's offline W&B runs, as a command of its own so that nothing else need import wandb.

python -m scalesweep.tracking.export_command STORE STUDY --project P [--entity E]

The last line of the output says where the runs are and how to upload them. Exit status: 0 written,
2 refused (the last line of the error output says why), 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from scalesweep.errors import ScaleSweepError
from scalesweep.report.formatting import plural
from scalesweep.rundir import Store
from scalesweep.tracking.export import Exported, export

DONE, REFUSED, INTERRUPTED = 0, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Export one study; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scalesweep.tracking.export_command")
    parser.add_argument("store", type=Path)
    parser.add_argument("study")
    parser.add_argument("--project", required=True)
    parser.add_argument("--entity")
    words = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up like Ctrl-C
    try:
        store = Store(words.store.resolve())
        made = export(store, words.study, project=words.project, entity=words.entity)
    except (ScaleSweepError, OSError) as error:
        print(f"W&B: no runs written: {error}", file=sys.stderr)
        return REFUSED
    except ImportError as error:
        print(f"W&B: {error}; pip install 'scalesweep[wandb]'", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("W&B: interrupted, no runs written", file=sys.stderr)
        return INTERRUPTED
    print(line_about(made, store=store, study=words.study))
    return DONE


def line_about(made: Exported, *, store: Store, study: str) -> str:
    """One line for who waits at the terminal."""
    runs = f"W&B: {plural(made.num_runs, 'offline run')} below {made.folder}"
    if not made.num_to_upload:
        return f"{runs}; all were uploaded and have not changed since"
    some = ""
    if made.num_to_upload < made.num_runs:
        some = f" {made.num_to_upload} (the others were uploaded and have not changed since)"
    words = shlex.join(["python", "-m", "scalesweep", "sync", study, "--store", str(store.root)])
    return f"{runs}; upload{some} with: {words}"


if __name__ == "__main__":
    sys.exit(main())
