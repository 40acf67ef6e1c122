"""A command that runs a plan of fake stages, to be started and killed by tests.

python -m tests.fakes.command PLAN STORE [NUM_WORKERS [PRELOAD]]
"""

from __future__ import annotations

import sys
from pathlib import Path

from scalesweep.errors import ScaleSweepError
from scalesweep.launch.local import Scheduler
from scalesweep.launch.progress import choose_progress
from scalesweep.launch.summary import summary_lines
from scalesweep.launch.workers import Workers
from scalesweep.plan.graph import Plan
from scalesweep.rundir import Store, read_json
from scalesweep.study_run import exit_status
from tests.fakes.plans import RUNNER


def main(words: list[str]) -> int:
    plan = Plan.from_json(read_json(Path(words[0])))
    num_workers = int(words[2]) if len(words) > 2 else 2
    try:
        with choose_progress() as progress:
            result = Scheduler(
                plan=plan,
                store=Store(Path(words[1])),
                num_workers=num_workers,
                progress=progress,
                workers=Workers(preload=words[3:]),
                runner=RUNNER,
            ).run()
    except ScaleSweepError as error:
        print(f"scalesweep: {error}", file=sys.stderr)
        return 2
    for line in summary_lines(plan, result):
        print(line)
    return exit_status(result)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
